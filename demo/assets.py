"""Draw and speak the files that the demo ships: two portraits of people never trained on, both in one
picture, a sentence, the held-out speech of the evaluation, and a part of it that answers the sentence.

    python -m demo.assets          # needs espeak-ng
    python -m demo.assets --two    # what is made of the others: two_people.png and speech2.wav
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from .faces import render, sample_people, still_pose
from .speech import HELD_OUT_VOICES, SAMPLE_RATE, held_out_corpus, read_wav, speak, write_wav
from .training.autoencoder import HELD_OUT_SEED

FOLDER = Path(__file__).parent
PORTRAITS = {"portrait.png": 27, "portrait2.png": 12}  # file: which of the held-out people
SENTENCE = "Hello! I am a little cartoon, and today I learned to talk."
SIZE = 384
HELD_OUT_SECONDS = 44
ANSWER = (29.3, 32.6)  # seconds of the held-out speech: another voice
BORDER, WALL = 32, (40, 34, 48)  # around the two people of one picture, as in a video call
FACES = tuple((left + 64, BORDER + 64, left + 320, BORDER + 320) for left in (BORDER, SIZE + 2 * BORDER))
"""Where they are in it. With a margin of 0.25 the crop is the portrait."""


def two() -> None:
    """Write two_people.png and speech2.wav, as long as speech.wav."""
    picture = Image.new("RGB", (2 * SIZE + 3 * BORDER, SIZE + 2 * BORDER), WALL)
    for index, name in enumerate(PORTRAITS):
        picture.paste(Image.open(FOLDER / name), (BORDER + index * (SIZE + BORDER), BORDER))
    picture.save(FOLDER / "two_people.png", optimize=True)
    start, stop = (round(second * SAMPLE_RATE) for second in ANSWER)
    answer = torch.zeros_like(read_wav(FOLDER / "speech.wav"))
    answer[: stop - start] = read_wav(FOLDER / "held_out.wav")[start:stop]
    write_wav(FOLDER / "speech2.wav", answer)


def main() -> None:
    """Write portrait.png, portrait2.png, speech.wav and held_out.wav, and what is made of them."""
    parser = argparse.ArgumentParser(description="The files that the demo ships.")
    parser.add_argument("--two", action="store_true", help="only what is made of the other files")
    if parser.parse_args().two:
        return two()
    for name, number in PORTRAITS.items():
        frame = render(sample_people(1, HELD_OUT_SEED + 20_000 + number), still_pose(1), SIZE)[0]
        Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy()).save(FOLDER / name)
    speech = FOLDER / "work" / "speech"
    waveform = speak(SENTENCE, HELD_OUT_VOICES[0], speech, pitch=60, speed=165)
    write_wav(FOLDER / "speech.wav", 0.8 * waveform)
    held_out = torch.cat([utterance.waveform for utterance in held_out_corpus(speech)])
    write_wav(FOLDER / "held_out.wav", held_out[: HELD_OUT_SECONDS * SAMPLE_RATE])
    return two()


if __name__ == "__main__":
    main()
