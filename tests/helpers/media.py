"""Sounds, pictures and a wav2vec2 small enough to make on the spot, and readers for the videos we wrote."""

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace
from numpy.typing import NDArray
from safetensors.torch import save_file

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def tone(seconds: float, rate: int = 16_000, channels: int = 1) -> NDArray[np.float32]:
    """(channels, n): a sine per channel, each 50 Hz above the last."""
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * (440 + 50 * k) * time) for k in range(channels)]).astype(
        np.float32
    )


def write_sound(
    path: Path,
    samples: NDArray[np.float32],
    rate: int = 16_000,
    codec: str = "pcm_s16le",
    layout: str = "",
) -> Path:
    """(channels, n) samples -> an audio file of the format that the name ends in."""
    layout = layout or LAYOUTS[samples.shape[0]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if samples.shape[1]:
            packed = np.ascontiguousarray(samples.T).reshape(1, -1)  # PyAV knows eight planes at most
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@dataclass(frozen=True)
class VideoFacts:
    """What a player would find in a video file."""

    num_frames: int
    size: tuple[int, int]
    video_seconds: float
    sound_seconds: float | None
    channels: int


def read_video(path: Path) -> VideoFacts:
    """Decode the whole file, picture and sound."""
    with av.open(str(path)) as container:
        pictures = [(frame.width, frame.height) for frame in container.decode(video=0)]
        rate = container.streams.video[0].average_rate
        has_sound = bool(container.streams.audio)
    seconds = float(len(pictures) / rate)
    if not has_sound:
        return VideoFacts(len(pictures), pictures[0], seconds, None, 0)
    sound, rate = read_sound(path)
    return VideoFacts(len(pictures), pictures[0], seconds, sound.shape[1] / rate, sound.shape[0])


def read_pictures(path: Path) -> NDArray[np.uint8]:
    """(F, H, W, 3), as a player shows them."""
    # Told one colour space for both sides, PyAV before 17 takes another one.
    with av.open(str(path)) as container:
        frames = [
            frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709, dst_colorspace=Colorspace.ITU601)
            for frame in container.decode(video=0)
        ]
        return np.stack([frame.to_ndarray() for frame in frames])


def read_sound(path: Path) -> tuple[NDArray[np.float32], int]:
    """(channels, n) decoded samples and their rate."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), frames[0].sample_rate


def write_tiny_wav2vec2(folder: Path, *, hidden_size: int = 16, num_layers: int = 2) -> Path:
    """A random wav2vec2 in Hugging Face's layout; the default size is what the `micro` audio_proj expects."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        vocab_size=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Wav2Vec2Model(config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str), encoding="utf-8")
    # As published, with the note that transformers 4.44 asks for.
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
