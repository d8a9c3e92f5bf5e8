"""The demo's calibration on clips unlike those it was made of: whoever is too far from it gets more steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from demo.evaluate import CHECKPOINT, FRAMES, DemoModel, held_out_cases, held_out_speech
from demo.speech import FPS, SAMPLE_RATE
from memo_avatar.voice.emotions import EMOTIONS
from teacache_core import CacheReport, Calibration, StepCache, StepCacheConfig

pytestmark = pytest.mark.slow  # the demo's nets, three clips
FAST = 6  # computed of 20 steps
SECONDS = FRAMES / FPS


def shouted(seconds: float) -> Tensor:
    """Held-out speech, three times as fast and far too loud."""
    calm = held_out_speech(2 * SAMPLE_RATE, 3 * seconds)
    return (30 * calm[::3]).clamp(-1, 1)[: int(seconds * SAMPLE_RATE)]


def checkerboard(size: int) -> Tensor:
    """(3, S, S): no face that anybody was trained on."""
    rows, columns = torch.arange(size)[:, None] // 6, torch.arange(size)[None] // 6
    return ((rows + columns) % 2).float().expand(3, -1, -1)


def talk(portrait: Tensor | None, clips: int) -> CacheReport:
    """The report of an angry, shouting video at `fast`; None: of a held-out person."""
    demo, known = DemoModel.load(), Calibration.load(CHECKPOINT / "calibration.json")
    cache = StepCache(StepCacheConfig(target_speedup=3.3), known, guidance_scale=demo.guidance_scale)
    portrait = held_out_cases(1, 1, demo.size)[0].portrait if portrait is None else portrait
    angry = EMOTIONS.index("angry")
    demo.talk(portrait, shouted(clips * SECONDS), angry, wrap_denoiser=cache.wrap)
    return cache.report


def test_a_shouting_person_who_was_never_seen_keeps_to_the_calibration() -> None:
    report = talk(None, clips=1)
    assert [mask.count("1") for mask in report.masks()] == [FAST]
    assert not any("from the calibration's forecasts" in note for note in report.notes)


def test_a_shouting_picture_that_is_no_face_gets_more_steps_from_the_second_clip_on() -> None:
    report = talk(checkerboard(DemoModel.load().size), clips=2)
    first, second = (mask.count("1") for mask in report.masks())
    assert first == FAST < second
    (note,) = [note for note in report.notes if note.startswith("Clip 0 was ")]
    assert note.endswith(f"the clips after it compute {second} of 20 steps.")
