"""The drift demo's videos grow part by part, and are those of one go."""

from pathlib import Path

import pytest
import torch

from demo import drift
from demo.drift import Job, frames_of, grow, parts_of


def test_a_video_that_grows_in_parts_is_the_one_made_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(person=0, guard=True, minutes=0.015, target_speedup=5.0)
    made = []
    for clips, root in ((2, tmp_path / "whole"), (1, tmp_path / "parts")):
        monkeypatch.setattr(drift, "PART_CLIPS", clips)
        while grow(job, root):
            pass
        made.append(frames_of(job, root))
    assert len(parts_of(job, tmp_path / "parts")) == 2
    assert made[0].shape == (27, 3, 96, 96)
    assert torch.equal(made[0], made[1])
