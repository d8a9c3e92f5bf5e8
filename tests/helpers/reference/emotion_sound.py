"""A recording that changes every few seconds, the same on every machine: no random numbers, no file."""

import torch
from torch import Tensor

LABEL_SECONDS = 12.7
LABEL_FRAMES = 384  # 381 frames padded to whole clips, as upstream counts them


def changing_sound(seconds: float) -> Tensor:
    """(S,) float32 at 16 kHz: a chirp whose pitch, loudness and roughness step every 1.9 s."""
    time = torch.arange(round(seconds * 16_000), dtype=torch.float64) / 16_000
    part = (time / 1.9).floor()
    pitch = 90 + 160 * ((part * 5) % 7)
    wobble = torch.sin(2 * torch.pi * (2 + part) * time)
    tone = torch.sin(2 * torch.pi * pitch * time + 3 * wobble)
    rough = torch.sin(2 * torch.pi * 3_700 * time * (1 + 0.2 * wobble)) * (part % 3) / 3
    return ((0.3 * tone + 0.2 * rough) * (0.4 + 0.6 * ((part * 3) % 5) / 5)).float()
