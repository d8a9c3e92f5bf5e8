"""Vocals out of a mix, with the MDX-Net that upstream uses (`Kim_Vocal_2.onnx`).

The arithmetic is that of audio-separator's MDX architecture, through which upstream goes: 44.1 kHz stereo,
spectrogram of a chunk -> net -> spectrogram, chunks blended under a Hann window, edges of half a transform
cut away. That library pins numpy and resamplers and asks the network for its model list at every start; here
onnxruntime alone does it, optional, and imported when separation is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .sound import MediaError

SEPARATION_RATE = 44_100
N_FFT = 7_680  # of Kim_Vocal_2; the file does not tell it
HOP = 1_024
OVERLAP = 0.25  # of neighbouring chunks, audio-separator's default
PEAK = 0.9  # louder mixes are scaled down to this, audio-separator's default
SILENT_BINS = 3  # lowest frequencies that are taken out


@dataclass(frozen=True)
class VocalNet:
    """``run`` takes the (1, 4, bins, frames) spectrogram of both channels' real and imaginary parts and gives
    that of the vocals; ``n_fft`` is the transform's length.
    """

    run: Callable[[Tensor], Tensor]
    frames: int
    bins: int
    n_fft: int = N_FFT


def open_net(model: Path) -> VocalNet:
    """The net of an ONNX file."""
    if not model.is_file():
        raise MediaError(
            f"expected the vocal separator but got no such file ({model}). Run `python teacache_memo.py "
            "models download vocals`, give vocals of your own, or turn separation off."
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise MediaError(
            f"expected the package onnxruntime but it is not installed ({model.name}). Run: python -m pip "
            "install onnxruntime, connect vocals instead, or turn separation off."
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        providers = onnxruntime.get_available_providers()
        session: Any = onnxruntime.InferenceSession(str(model), sess_options=options, providers=providers)
        node = session.get_inputs()[0]
        _, channels, bins, frames = node.shape
        good = channels == 4 and isinstance(bins, int) and isinstance(frames, int)
    except Exception as error:  # onnxruntime's own classes share no public base
        raise MediaError(
            f"expected an MDX-Net but got: {str(error)[:200]} ({model}). Download Kim_Vocal_2.onnx again."
        ) from error
    if not good:
        raise MediaError(
            f"expected a net for 4 channels of fixed size but got {node.shape} ({model}). "
            "Use Kim_Vocal_2.onnx."
        )

    def run(spectrogram: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {node.name: spectrogram.numpy()})[0])

    return VocalNet(run, frames, bins)


def separate(mix: Tensor, net: VocalNet, on_done: Callable[[float], None] | None = None) -> Tensor:
    """(2, S) at 44.1 kHz -> the vocals (2, S), as audio-separator's MDX architecture computes them."""
    peak = float(mix.abs().max())
    scaled = mix * (PEAK / peak) if peak > PEAK else mix
    chunk, trim, length = HOP * (net.frames - 1), net.n_fft // 2, mix.shape[-1]
    inner = chunk - 2 * trim
    padded = F.pad(scaled, (trim, inner + trim - length % inner))
    total = padded.shape[-1]
    sums, weights = torch.zeros_like(padded), torch.zeros(total)
    for start in range(0, total, int((1 - OVERLAP) * chunk)):
        stop = min(start + chunk, total)
        piece = F.pad(padded[:, start:stop], (0, chunk - (stop - start)))
        vocals = _through_net(piece, net)[:, : stop - start]
        window = torch.hann_window(stop - start, periodic=False)
        sums[:, start:stop] += vocals * window
        weights[start:stop] += window
        if on_done is not None:
            on_done(stop / total)
    return (sums / weights)[:, trim : trim + length] * peak


def _through_net(piece: Tensor, net: VocalNet) -> Tensor:
    """(2, chunk) -> (2, chunk)."""
    n_fft, bins = net.n_fft, net.bins
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(piece, n_fft, HOP, window=window, return_complex=True)  # (2, n_fft/2 + 1, frames)
    parts = torch.view_as_real(spectrum).permute(0, 3, 1, 2)[:, :, :bins].flatten(0, 1)[None].contiguous()
    parts[:, :, :SILENT_BINS] = 0
    parts = net.run(parts)[0].unflatten(0, (2, 2))  # (1, 4, bins, frames) -> (2, 2, bins, frames)
    parts = F.pad(parts, (0, 0, 0, n_fft // 2 + 1 - bins)).permute(0, 2, 3, 1).contiguous()
    return torch.istft(torch.view_as_complex(parts), n_fft, HOP, window=window)
