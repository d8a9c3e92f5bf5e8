"""Speech for the cartoon world: an espeak-ng corpus, and the mouth that belongs to a waveform.

The mouth is a function of the audio alone (loudness and spectrum), so lips and voice belong together by
construction and any recording, held out or real, has a target to be measured against.
"""

import hashlib
import logging
import subprocess
import wave
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
FPS = 30
TRAIN_VOICES = (
    "en-us+m3",
    "en-gb+f2",
    "en-us+f4",
    "en-gb+m7",
    "en-gb-scotland+m1",
    "en-us+whisperf",
    "de+f3",
    "es+m2",
    "it+f1",
)
HELD_OUT_VOICES = ("en-us+f5", "en-gb-x-rp+m5", "fr+m4")
TRAIN_TEXTS = (
    "The old clock on the wall has stopped again, so nobody knows how late it is.",
    "Please put the blue cup next to the bread and close the window.",
    "We walked along the river until the sun went down behind the hills.",
    "My brother sings in the kitchen every morning before work.",
    "Did you really see a fox in the garden last night?",
    "Oh no, I left all my keys on the table upstairs!",
    "Seven small boats came home before the storm.",
    "A good teacher listens twice and speaks once.",
    "I would like a bowl of warm soup, and perhaps some cheese.",
    "The train to the north leaves at a quarter past nine.",
    "How many apples can one hungry child eat in an afternoon?",
    "Water, water everywhere, and not a single drop to drink.",
    "She painted the whole house yellow in one weekend.",
    "Be careful, the road is narrow and the bridge is wet.",
    "Nobody told me that the museum is closed on Monday.",
    "It is easy to laugh when somebody else has to dance.",
    "Open the door! Open it, quickly, before the dog runs away.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
    "The moon was high over the quiet, empty harbour.",
    "You may keep the book as long as you like.",
    "Far away a bell rang, and then it was silent.",
    "Our neighbour grows tomatoes, beans, and enormous pumpkins.",
    "I am so happy that you came to visit us today.",
    "Sometimes the shortest way is not the fastest way.",
)
HELD_OUT_TEXTS = (
    "Everybody in the village knew the tall man with the green umbrella.",
    "Would you mind moving your bicycle a little to the left?",
    "Yesterday we built a tower of wooden blocks, and it fell over twice.",
    "Coffee first, then we shall talk about the weather and your plans.",
    "A hundred birds were sitting on the roof of the school.",
    "He opened the parcel slowly, smiled, and began to read aloud.",
)


@dataclass(frozen=True)
class Utterance:
    """A waveform (S,) at 16 kHz and its mouth (N, 2): opening and width per frame, both 0..1."""

    waveform: Tensor
    mouth: Tensor


def read_wav(path: Path) -> Tensor:
    """A 16-bit mono WAV file as (S,) in -1..1, resampled linearly to 16 kHz."""
    with wave.open(str(path)) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    samples = torch.from_numpy(np.frombuffer(data, np.int16).astype(np.float32) / 32768)
    if rate == SAMPLE_RATE:
        return samples
    count = round(len(samples) * SAMPLE_RATE / rate)
    return functional.interpolate(samples[None, None], size=count, mode="linear", align_corners=False)[0, 0]


def write_wav(path: Path, waveform: Tensor) -> None:
    """Save (S,) in -1..1 as 16-bit mono at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((waveform.clamp(-1, 1) * 32767).to(torch.int16).numpy().tobytes())


def speak(text: str, voice: str, folder: Path, *, pitch: int = 50, speed: int = 165) -> Tensor:
    """Say `text` with espeak-ng; the recording is kept in `folder` and read from there the next time."""
    name = hashlib.sha1(f"{text}|{voice}|{pitch}|{speed}".encode(), usedforsecurity=False).hexdigest()[:16]
    path = folder / f"{name}.wav"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "-w", str(path), text]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError as error:
            raise RuntimeError(
                "espeak-ng must be installed but got no such command (training audio). Install espeak-ng."
            ) from error
    return read_wav(path)


def mouth_from_audio(waveform: Tensor) -> Tensor:
    """Opening and width of the mouth at 30 fps, (N, 2) in 0..1 with N = ceil(seconds * 30).

    The opening follows the loudness of the speech band against the whole recording's level, in decibels, less
    where the spectrum is flat (hiss, noise). The width follows the share of energy above 1.2 kHz: "oo" is
    round, "ee" wide.
    """
    frames = -(-waveform.shape[0] * FPS // SAMPLE_RATE)
    level = waveform.square().mean().sqrt().clamp(min=1e-4)
    half = 400
    padded = functional.pad(waveform / level, (half, 2 * half + SAMPLE_RATE // FPS))
    starts = ((torch.arange(frames) + 0.5) * SAMPLE_RATE / FPS).long()
    windows = padded[starts[:, None] + torch.arange(2 * half)] * torch.hann_window(2 * half)
    power = torch.fft.rfft(windows, dim=1).abs().square()  # (N, 401), 20 Hz per bin
    band = power[:, 10:200] + 1e-6
    loudness = 10 * (band.sum(dim=1) / (half * half)).log10()
    flatness = band.log().mean(dim=1).exp() / band.mean(dim=1)
    tone = torch.sigmoid((0.30 - flatness) / 0.06)
    opening = ((loudness + 14.0) / 17.0).clamp(0, 1) * (0.15 + 0.85 * tone)
    high = band[:, 50:].sum(dim=1) / band.sum(dim=1)
    width = ((high.clamp(min=1e-3).log10() + 2.0) / 2.0).clamp(0, 1)
    width = 0.5 + (width - 0.5) * (opening > 0.05)
    return torch.stack([_smooth(opening, 1), _smooth(width, 2)], dim=1).clamp(0, 1)


def _smooth(values: Tensor, rounds: int) -> Tensor:
    kernel = torch.tensor([0.25, 0.5, 0.25])[None, None]
    for _ in range(rounds):
        values = functional.conv1d(functional.pad(values[None, None], (1, 1), mode="replicate"), kernel)[0, 0]
    return values


def _with_bed(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Silence around the speech and, at times, a bed of hiss or hum far below it."""

    def silence() -> Tensor:
        return torch.zeros(int(torch.randint(800, 9600, (1,), generator=generator)))

    waveform = torch.cat([silence(), waveform, silence()])
    kind = int(torch.randint(4, (1,), generator=generator))
    level = (
        0.02 * float(waveform.square().mean().sqrt()) * (1 + 2 * float(torch.rand(1, generator=generator)))
    )
    if kind == 1:
        waveform = waveform + level * torch.randn(waveform.shape, generator=generator)
    elif kind == 2:
        times = torch.arange(waveform.shape[0]) / SAMPLE_RATE
        notes = (110.0, 165.0, 220.0)
        waveform = waveform + level * sum(torch.sin(6.2832 * note * times) for note in notes)
    return waveform


def build_corpus(
    folder: Path,
    *,
    voices: Sequence[str] = TRAIN_VOICES,
    texts: Sequence[str] = TRAIN_TEXTS,
    count: int = 240,
    seed: int = 0,
    on_step: Callable[[float, str], None] | None = None,
) -> list[Utterance]:
    """`count` utterances: texts said by voices at varied pitch and speed, with silence and beds of noise."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    jobs = [
        (texts[i % len(texts)], voices[draw(0, len(voices))], draw(20, 85), draw(125, 210))
        for i in range(count)
    ]
    with ThreadPoolExecutor(2) as pool:
        spoken = pool.map(lambda job: speak(job[0], job[1], folder, pitch=job[2], speed=job[3]), jobs)
        utterances = []
        for index, waveform in enumerate(spoken):
            waveform = _with_bed(waveform, generator)
            utterances.append(Utterance(waveform, mouth_from_audio(waveform)))
            if on_step is not None:
                on_step((index + 1) / count, f"utterance {index + 1} of {count}")
    return utterances


def held_out_corpus(folder: Path, count: int = 24, seed: int = 77) -> list[Utterance]:
    """Sentences and voices that training never hears."""
    return build_corpus(folder, voices=HELD_OUT_VOICES, texts=HELD_OUT_TEXTS, count=count, seed=seed)
