"""What a video shows, measured from its pixels: mouth opening, emotion, identity, flicker.

Frames are (T, 3, S, S) in 0..1. No meter looks into a network. Distances are in frame coordinates (-1..1), so
any size works; S = 96 is what they are checked at (`tests/unit/demo/test_demo_meters.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .faces import MOUTH_CENTRE, TRAINED_EMOTIONS, People, render, stack_poses, still_pose

HEAD_Y = 0.06  # where the renderer puts the middle of a head at rest


def _span(low: float, high: float, size: int) -> slice:
    return slice(round((low + 1) / 2 * size), round((high + 1) / 2 * size))


def mouth_opening(frames: Tensor) -> Tensor:
    """Height of the dark red opening between the lips, (T,), in frame coordinates."""
    size, middle = frames.shape[-1], MOUTH_CENTRE + HEAD_Y
    region = frames[:, :, _span(middle - 0.28, middle + 0.30, size), _span(-0.28, 0.28, size)]
    red, green, blue = region.unbind(1)
    dark = ((0.34 - 0.3 * red - 0.59 * green - 0.11 * blue) / 0.2).clamp(0, 1)
    # Dark hair beside the chin is not red.
    opening = dark * ((red - green - 0.05) / 0.06).clamp(0, 1)  # (T, h, w)
    return opening.sum(dim=1).topk(size // 14, dim=1).values.mean(dim=1) * 2 / size


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r; 0 where one side does not move."""
    a, b = a - a.mean(), b - b.mean()
    scale = a.norm() * b.norm()
    return float(a @ b / scale) if scale > 1e-9 else 0.0


@dataclass(frozen=True)
class _Window:
    """A part of the face that shows emotion."""

    top: float
    bottom: float
    side: float


_WINDOWS = (_Window(-0.58, 0.16, 0.52), _Window(0.16, 0.80, 0.36))


def _shifted(frames: Tensor, window: _Window, reach: int) -> Tensor:
    """A window of every frame at every shift up to `reach` pixels: (T, shifts, 3, h, w)."""
    size = frames.shape[-1]
    rows, columns = _span(window.top, window.bottom, size), _span(-window.side, window.side, size)
    shifts = [
        frames[:, :, rows.start + dy : rows.stop + dy, columns.start + dx : columns.stop + dx]
        for dy in range(-reach, reach + 1, 2)
        for dx in range(-reach, reach + 1, 2)
    ]
    return torch.stack(shifts, dim=1)


def emotion_distances(frames: Tensor, person: People, reach: int = 6) -> Tensor:
    """How far each frame is from `person` drawn with each trained emotion at the measured opening: (T, 5).

    Brows, eyes and mouth are compared with templates at any small shift and tilt of the head.
    """
    size = frames.shape[-1]
    opening = (mouth_opening(frames) / 0.42).clamp(0, 1)
    distances = torch.zeros(len(frames), len(TRAINED_EMOTIONS))
    for column, emotion in enumerate(TRAINED_EMOTIONS):
        best = []
        for tilt in (-0.06, 0.0, 0.06):
            pose = stack_poses([still_pose(1, emotion, float(value)) for value in opening])
            pose.roll[:] = tilt
            templates = render(person.index(torch.zeros(len(frames), dtype=torch.long)), pose, size)
            total = torch.zeros(len(frames))
            for window in _WINDOWS:
                own = templates[
                    :, :, _span(window.top, window.bottom, size), _span(-window.side, window.side, size)
                ]
                error = (_shifted(frames, window, reach) - own[:, None]).square().mean(dim=(2, 3, 4))
                total += error.amin(dim=1)
            best.append(total)
        distances[:, column] = torch.stack(best).amin(dim=0)
    return distances


def read_emotion(frames: Tensor, person: People) -> int:
    """The emotion class that a stretch of frames shows, by the nearest templates."""
    return TRAINED_EMOTIONS[int(emotion_distances(frames, person).sum(dim=0).argmin())]


def _plain_mask(size: int) -> Tensor:
    """1 where neither eyes, brows nor mouth move, (size, size)."""
    mask = torch.ones(size, size)
    for window in _WINDOWS:
        mask[_span(window.top, window.bottom, size), _span(-window.side, window.side, size)] = 0
    return mask


def _aligned(frames: Tensor, portrait: Tensor, reach: int) -> Tensor:
    """Frames cut by `reach` on every side and moved so that they fit the portrait best."""
    inner = slice(reach, frames.shape[-1] - reach)
    mask = _plain_mask(frames.shape[-1])[inner, inner]
    target = portrait[:, inner, inner]
    best, error = frames[:, :, inner, inner].clone(), torch.full((len(frames),), float("inf"))
    for dy in range(-reach, reach + 1, 2):
        for dx in range(-reach, reach + 1, 2):
            moved = torch.roll(frames, (dy, dx), dims=(2, 3))[:, :, inner, inner]
            distance = ((moved - target).square() * mask).mean(dim=(1, 2, 3))
            better = distance < error
            best[better], error[better] = moved[better], distance[better]
    return best


def identity_error(frames: Tensor, portrait: Tensor, reach: int = 6) -> float:
    """Colour and shape of the person against the portrait (3, S, S): 0 is the same person, 1 nothing alike.

    Colour is the mean absolute difference outside eyes, brows and mouth; shape is one minus the overlap
    (intersection over union) of what has the colour of the portrait's cheeks.
    """
    size = frames.shape[-1]
    inner = slice(reach, size - reach)
    aligned = functional.avg_pool2d(_aligned(frames, portrait, reach), 3, 1, 1)
    target = functional.avg_pool2d(portrait[None, :, inner, inner], 3, 1, 1)
    mask = _plain_mask(size)[inner, inner]
    colour = ((aligned - target).abs() * mask).sum() / (mask.sum() * 3 * len(frames))
    cheek = portrait[:, _span(0.16, 0.3, size), _span(0.36, 0.44, size)].mean(dim=(1, 2))[:, None, None]
    skin = (aligned - cheek).abs().amax(dim=1) < 0.12
    wanted = (target - cheek).abs().amax(dim=1) < 0.12
    overlap = (skin & wanted).sum() / (skin | wanted).sum().clamp(min=1)
    return float(colour + (1 - overlap)) / 2


def flicker(frames: Tensor) -> float:
    """Mean absolute change between frames in the upper corners, where nothing moves; 1 is black to white."""
    side = frames.shape[-1] // 8
    corners = torch.cat([frames[..., :side, :side], frames[..., :side, -side:]], dim=-1)
    return float((corners[1:] - corners[:-1]).abs().mean())
