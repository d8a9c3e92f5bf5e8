"""Cartoon portraits drawn by signed distance functions, many at a time, in plain torch.

A frame is a function of two parameter sets: who it is (`sample_people`) and what the face does (`Pose`).
Coordinates run from -1 (left, top) to 1 (right, bottom), so one person renders at any size.
Everything is deterministic in the seed: the same seed gives the same pixels on the same machine.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

# MEMO's emotion classes, in the order of its classifier; 9 is the null class of the unconditional branch.
EMOTIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "unknown")
TRAINED_EMOTIONS = (0, 3, 4, 6, 7)
# Classes without a face of their own borrow one, so that no label leaves the trained world.
EMOTION_FACE = {0: 0, 1: 0, 2: 7, 3: 3, 4: 4, 5: 4, 6: 6, 7: 7, 8: 4}

# emotion: (brow tilt, brow height, mouth corners up, eye opening)
EXPRESSIONS = {
    0: (0.55, 0.07, -0.55, 0.80),
    3: (-0.12, -0.03, 1.00, 0.85),
    4: (0.0, 0.0, 0.12, 1.0),
    6: (-0.55, -0.02, -1.00, 0.70),
    7: (0.0, -0.13, -0.05, 1.40),
}

FACE_FIELDS = ("brow_tilt", "brow_height", "corners", "eye_open")
# Standard deviations of the head's motion, in units of half a frame and radians.
MOTION = {"x": 0.035, "y": 0.03, "roll": 0.05, "yaw": 0.035, "gaze": 0.025}

SKIN = ((0.99, 0.83, 0.70), (0.94, 0.74, 0.57), (0.82, 0.60, 0.43), (0.68, 0.46, 0.32), (0.98, 0.88, 0.78))
HAIR = (
    (0.15, 0.11, 0.10),
    (0.45, 0.26, 0.13),
    (0.93, 0.76, 0.33),
    (0.80, 0.34, 0.14),
    (0.62, 0.62, 0.66),
    (0.35, 0.2, 0.45),
)
VIVID = (
    (0.90, 0.25, 0.25),
    (0.98, 0.68, 0.20),
    (0.30, 0.70, 0.35),
    (0.20, 0.55, 0.85),
    (0.55, 0.35, 0.80),
    (0.95, 0.55, 0.70),
    (0.25, 0.72, 0.72),
    (0.93, 0.92, 0.88),
)
EYES = ((0.16, 0.33, 0.62), (0.20, 0.45, 0.25), (0.36, 0.22, 0.12))
MOUTH_DARK = (0.22, 0.03, 0.06)
MOUTH_CENTRE = 0.40
EYE_X, EYE_Y, BROW_Y = 0.27, -0.10, -0.36


@dataclass(frozen=True)
class People:
    """Who is drawn: B people. Colours are (B, 3), shapes and styles (B,)."""

    skin: Tensor
    hair: Tensor
    shirt: Tensor
    background: Tensor
    background_low: Tensor
    iris: Tensor
    accent: Tensor  # colour of cap, earrings or glasses
    face_width: Tensor
    face_height: Tensor
    hair_style: Tensor  # 0 bald, 1 short, 2 long, 3 curls
    fringe: Tensor  # slope of the hair line
    glasses: Tensor
    earrings: Tensor
    cap: Tensor

    def __len__(self) -> int:
        return self.skin.shape[0]

    def index(self, rows: Tensor | slice) -> "People":
        """The same people in another order, repeated or cut."""
        return People(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def mixed(self, others: "People", share: float, generator: torch.Generator) -> "People":
        """These people, each trait taken from `others` with probability `share`."""
        return People(
            **{
                f.name: getattr(others if torch.rand(1, generator=generator) < share else self, f.name)
                for f in fields(self)
            }
        )


def stack_people(people: list[People]) -> People:
    """One People with the rows of many."""
    return People(**{f.name: torch.cat([getattr(p, f.name) for p in people]) for f in fields(People)})


@dataclass(frozen=True)
class Pose:
    """What the face does: every field is (B,)."""

    x: Tensor
    y: Tensor
    roll: Tensor
    yaw: Tensor
    gaze: Tensor
    blink: Tensor  # 0 open, 1 shut
    mouth_open: Tensor  # 0..1
    mouth_wide: Tensor  # 0 round, 1 wide
    brow_tilt: Tensor
    brow_height: Tensor
    corners: Tensor
    eye_open: Tensor

    def index(self, rows: Tensor | slice) -> "Pose":
        """The same poses in another order, repeated or cut."""
        return Pose(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def stack_poses(poses: list[Pose]) -> Pose:
    """One Pose with the rows of many."""
    return Pose(**{f.name: torch.cat([getattr(p, f.name) for p in poses]) for f in fields(Pose)})


def expression(emotions: Tensor) -> Tensor:
    """Brow tilt, brow height, mouth corners and eye opening of emotion classes (N,) -> (N, 4)."""
    table = torch.tensor([EXPRESSIONS[EMOTION_FACE[i]] for i in range(len(EMOTIONS))])
    return table[emotions]


def still_pose(count: int, emotion: int = 4, mouth_open: float = 0.0, mouth_wide: float = 0.5) -> Pose:
    """Looking straight ahead, for portraits and templates."""
    rest = torch.zeros(6, count).unbind(0)  # x, y, roll, yaw, gaze, blink
    mouth = (torch.full((count,), mouth_open), torch.full((count,), mouth_wide))
    return Pose(*rest, *mouth, *expression(torch.full((count,), emotion)).unbind(1))


def random_poses(count: int, generator: torch.Generator) -> Pose:
    """Independent poses that cover what a video may show; for the autoencoder and for portraits."""

    def normal(spread: float) -> Tensor:
        return spread * torch.randn(count, generator=generator).clamp(-2, 2)

    emotions = torch.tensor(TRAINED_EMOTIONS)[
        torch.randint(len(TRAINED_EMOTIONS), (count,), generator=generator)
    ]
    blink = torch.rand(count, generator=generator)
    return Pose(
        x=normal(MOTION["x"]),
        y=normal(MOTION["y"]),
        roll=normal(MOTION["roll"]),
        yaw=normal(MOTION["yaw"]),
        gaze=normal(MOTION["gaze"]),
        blink=torch.where(blink > 0.85, (blink - 0.85) / 0.15, torch.zeros(())),
        mouth_open=(torch.rand(count, generator=generator) * 1.25 - 0.25).clamp(min=0),
        mouth_wide=torch.rand(count, generator=generator),
        **dict(zip(FACE_FIELDS, expression(emotions).unbind(1), strict=True)),
    )


def sample_people(count: int, seed: int) -> People:
    """`count` people drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def colour(palette: tuple[tuple[float, float, float], ...], spread: float) -> Tensor:
        pick = torch.randint(len(palette), (count,), generator=generator)
        jitter = spread * (2 * torch.rand(count, 3, generator=generator) - 1)
        return (torch.tensor(palette)[pick] + jitter).clamp(0.05, 1.0)

    background = colour(VIVID, 0.10)
    shade = uniform(0.65, 1.0)[:, None]
    return People(
        skin=colour(SKIN, 0.04),
        hair=colour(HAIR, 0.05),
        shirt=colour(VIVID, 0.08),
        background=background,
        background_low=(background * shade + (1 - shade) * 0.5).clamp(0, 1),
        iris=colour(EYES, 0.05),
        accent=colour(VIVID, 0.05),
        face_width=uniform(0.54, 0.66),
        face_height=uniform(0.68, 0.78),
        hair_style=torch.multinomial(torch.tensor([0.1, 0.35, 0.35, 0.2]), count, True, generator=generator),
        fringe=uniform(-0.25, 0.25),
        glasses=(uniform(0, 1) < 0.2).float(),
        earrings=(uniform(0, 1) < 0.2).float(),
        cap=(uniform(0, 1) < 0.15).float(),
    )


class _Canvas:
    """Colours painted over each other; `paint` takes a signed distance in units of the frame."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels  # (B, 3, H, W)
        self.soft = 2.0 / pixels.shape[-1]

    def paint(self, distance: Tensor, colour: Tensor, opacity: Tensor | float = 1.0) -> None:
        """Blend `colour` (B, 3) in where `distance` (B, H, W) is negative, antialiased over a pixel or so."""
        alpha = (0.5 - distance / (1.4 * self.soft)).clamp_(0, 1).mul_(opacity)[:, None]
        self.pixels.lerp_(colour[:, :, None, None].expand_as(self.pixels), alpha)


def _ellipse(x: Tensor, y: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """Approximate signed distance to an ellipse at the origin."""
    rx, ry = torch.as_tensor(rx), torch.as_tensor(ry)
    return ((x / rx).square_().add_((y / ry).square_()).sqrt_() - 1.0) * torch.minimum(rx, ry)


def _capsule(x: Tensor, y: Tensor, half_length: float, radius: float) -> Tensor:
    """Signed distance to a horizontal stroke with round ends at the origin."""
    return torch.sqrt((x.abs() - half_length).clamp_(min=0).square_() + y.square()) - radius


def render(people: People, pose: Pose, size: int = 96) -> Tensor:
    """Frames (B, 3, size, size) in 0..1."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    grid_y, grid_x = torch.meshgrid(axis, axis, indexing="ij")
    col = {f.name: getattr(pose, f.name)[:, None, None] for f in fields(Pose)}
    blend = (grid_y[None, None] + 1) / 2
    sky, ground = people.background[:, :, None, None], people.background_low[:, :, None, None]
    canvas = _Canvas((sky + (ground - sky) * blend).contiguous())
    cos, sin = col["roll"].cos(), col["roll"].sin()
    x0, y0 = grid_x[None] - col["x"], grid_y[None] - col["y"] - 0.06
    # The head turns about the neck, so that the shoulders stay.
    y1 = y0 - 0.7
    x, y = cos * x0 + sin * y1, -sin * x0 + cos * y1 + 0.7
    _draw_body(canvas, people, x0, y0)
    _draw_head(canvas, people, x, y)
    _draw_face(canvas, people, col, x - col["yaw"], y)
    _draw_hat(canvas, people, x, y)
    return canvas.pixels.clamp_(0, 1)


def _draw_body(canvas: _Canvas, people: People, x: Tensor, y: Tensor) -> None:
    """Shoulders and neck; they follow the head by half."""
    canvas.paint(_ellipse(x, y - 1.25, 0.95, 0.52), people.shirt)
    canvas.paint(torch.maximum(x.abs() - 0.2, (y - 0.7).abs() - 0.2), people.skin * 0.88)


def _draw_head(canvas: _Canvas, people: People, x: Tensor, y: Tensor) -> None:
    """Hair behind, ears, head, hair in front."""
    width, height = people.face_width[:, None, None], people.face_height[:, None, None]
    style = people.hair_style[:, None, None]
    long_hair = _capsule(y - 0.35, x, 0.45, 0.0).clamp_(max=9) - width - 0.10
    canvas.paint(
        torch.minimum(long_hair, _ellipse(x, y + 0.15, width + 0.12, height * 0.9)),
        people.hair,
        (style == 2).float(),
    )
    canvas.paint(_ellipse(x, y + 0.30, width + 0.22, 0.66), people.hair, (style == 3).float())
    ears = _ellipse(x.abs() - width, y - 0.02, 0.10, 0.14)
    canvas.paint(ears, people.skin * 0.93)
    rings = _ellipse(x.abs() - width - 0.03, y - 0.24, 0.075, 0.075)
    canvas.paint(rings, people.accent, people.earrings[:, None, None])
    head = _ellipse(x, y, width, height)
    canvas.paint(head, people.skin)
    line = y + 0.53 + people.fringe[:, None, None] * x
    canvas.paint(
        torch.maximum(_ellipse(x, y, width + 0.03, height + 0.04), line), people.hair, (style > 0).float()
    )


def _draw_face(canvas: _Canvas, people: People, col: dict[str, Tensor], x: Tensor, y: Tensor) -> None:
    """Eyes, brows, nose, mouth. The face is symmetric, so one signed side carries both eyes."""
    side = torch.where(x < 0, -1.0, 1.0)
    ex, ey = x.abs() - EYE_X, y - EYE_Y
    opening = (col["eye_open"] * (1 - col["blink"])).clamp(min=0.06)
    eye = _ellipse(ex, ey, 0.155, 0.12 * opening)
    # The distance to a flat ellipse is far too small beside it: a lid must not reach past the eye.
    canvas.paint(torch.maximum(eye - 0.028, _ellipse(ex, ey, 0.183, 0.20)), people.skin * 0.45)
    white = torch.full_like(people.skin, 0.97)
    canvas.paint(eye, white)
    gaze = ex - side * col["gaze"]
    canvas.paint(torch.maximum(_ellipse(gaze, ey, 0.085, 0.085), eye), people.iris)
    canvas.paint(torch.maximum(_ellipse(gaze, ey, 0.04, 0.04), eye), torch.full_like(people.skin, 0.05))
    frame = (_ellipse(ex, ey, 0.235, 0.21)).abs_() - 0.022
    canvas.paint(frame, people.accent * 0.6, people.glasses[:, None, None])
    tilt = col["brow_tilt"]
    bx, by = ex, y - BROW_Y - col["brow_height"]
    brow = _capsule(tilt.cos() * bx - tilt.sin() * by, tilt.sin() * bx + tilt.cos() * by, 0.15, 0.052)
    canvas.paint(brow, people.hair * 0.55)
    canvas.paint(_ellipse(x, y - 0.12, 0.06, 0.09), people.skin * 0.82)
    _draw_mouth(canvas, col, x, y - MOUTH_CENTRE)


def _draw_mouth(canvas: _Canvas, col: dict[str, Tensor], x: Tensor, y: Tensor) -> None:
    """Lips around a dark opening; the corners rise and fall with the expression."""
    half = 0.19 + 0.11 * col["mouth_wide"]
    across = (x / half).square()
    middle = y + col["corners"] * 0.11 * (across.clamp(max=1.4) - 0.45)
    arch = (1 - across).clamp(min=0).sqrt_()
    opening = 0.21 * col["mouth_open"] * arch
    beyond = (x.abs() - half).clamp_(min=0)
    distance = torch.sqrt((middle.abs() - opening).clamp(min=0).square_() + beyond.square_())
    lips = torch.tensor((0.80, 0.20, 0.26)).expand(x.shape[0], 3)
    dark = torch.tensor(MOUTH_DARK).expand(x.shape[0], 3)
    canvas.paint(distance - 0.05, lips)
    inside = torch.maximum(middle.abs() - opening, x.abs() - half)
    canvas.paint(inside + 0.25 * canvas.soft, dark, (col["mouth_open"] * 12).clamp(0, 1))


def _draw_hat(canvas: _Canvas, people: People, x: Tensor, y: Tensor) -> None:
    """A cap with a brim."""
    width, height = people.face_width[:, None, None], people.face_height[:, None, None]
    crown = torch.maximum(_ellipse(x, y, width + 0.07, height + 0.1), y + 0.54)
    brim = _capsule(x, y + 0.55, 0.55, 0.05)
    canvas.paint(torch.minimum(crown, brim), people.accent, people.cap[:, None, None])
