"""Two people in one picture, each with a voice of its own, by the command: who speaks moves the mouth, and
nothing else in the picture moves.

python -m demo.two_speakers
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .assets import BORDER, FACES, SIZE
from .meters import mouth_opening
from .speech import FPS, read_wav

FOLDER = Path(__file__).parent
PICTURE, VOICES = FOLDER / "two_people.png", (FOLDER / "speech.wav", FOLDER / "speech2.wav")
MARGIN = 0.25  # with it the crop is the portrait
SETTLED = 8  # frames that a mouth takes to close
MODEL_SIZE = 96


def render(folder: Path, steps: int) -> None:
    """Frames of the first one's sentence and then the other's, as the command writes them."""
    turn = len(read_wav(VOICES[0])) / 16_000
    speakers = [
        f"--speaker={','.join(map(str, face))}@{index * turn}={voice}"
        for index, (face, voice) in enumerate(zip(FACES, VOICES, strict=True))
    ]
    command = [sys.executable, str(FOLDER.parent / "teacache_memo.py"), "--image", str(PICTURE), *speakers]
    command += ["--face-crop", str(MARGIN), "--emotion", "happy", "--steps", str(steps)]
    subprocess.run([*command, "--output", str(folder / "%05d.png")], check=True)


def measure(folder: Path) -> dict[str, float]:
    """How much each mouth moves while its owner speaks and while the other one does, and what else moved."""
    frames = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))])
    picture = np.asarray(Image.open(PICTURE).convert("RGB"))
    outside = np.ones(picture.shape[:2], dtype=bool)
    mouths = []
    for index in range(2):
        left = BORDER + index * (SIZE + BORDER)
        outside[BORDER : BORDER + SIZE, left : left + SIZE] = False
        mouths.append(_opening(frames[:, BORDER : BORDER + SIZE, left : left + SIZE]))
    turn = len(frames) // 2
    first, second = (mouth[SETTLED:turn].std() for mouth in mouths)
    silent, speaking = (mouth[turn + SETTLED :].std() for mouth in mouths)
    return {
        "seconds": round(len(frames) / FPS, 2),
        "first_turn": round(float(first / second), 1),
        "second_turn": round(float(speaking / silent), 1),
        "changed_outside": int((frames[:, outside] != picture[outside]).sum()),
    }


def _opening(pixels: np.ndarray) -> Tensor:
    """(F, S, S, 3) of one person -> how far the mouth is open, (F,)."""
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    return mouth_opening(functional.interpolate(frames, (MODEL_SIZE, MODEL_SIZE), mode="area"))


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description="Who speaks moves the mouth, and nothing else moves.")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps per clip (default: %(default)s)")
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames"
        render(frames, parser.parse_args().steps)
        print(json.dumps(measure(frames)))


if __name__ == "__main__":
    main()
