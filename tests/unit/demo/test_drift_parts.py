"""The drift demo's videos grow part by part, and are those of one go."""

from pathlib import Path

import pytest
import torch

from demo import drift
from demo.drift import Job, Row, Stretch, frames_of, grow, parts_of, stretches_of, table


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


def test_the_last_ten_seconds_say_the_words_of_the_first() -> None:
    speech = Job(person=1, guard=False, minutes=0.5, target_speedup=4.0).speech()
    assert len(speech) == 30 * 16_000
    assert torch.equal(speech[:160_000], speech[-160_000:])
    assert not torch.equal(speech[:160_000], speech[160_000:320_000])


def test_a_trend_is_told_from_what_stretches_differ_by() -> None:
    errors = [0.2, 0.22, 0.2, 0.22, 0.2, 0.22]
    wavering, rising = (
        Row(
            0,
            False,
            1800,
            [Stretch(error + index * step, 1.0, 1.0) for index, error in enumerate(errors)],
            1.0,
        )
        for step in (0.0, 0.02)
    )
    assert wavering.changes()["identity_error"] == pytest.approx(0.1)
    assert abs(wavering.trend("identity_error")) < 0.06 < 0.4 < rising.trend("identity_error")
    assert wavering.spread("identity_error") == pytest.approx(0.052, abs=0.001)


def test_the_last_stretch_ends_with_the_video() -> None:
    frames = torch.arange(700)
    assert [(int(some[0]), int(some[-1])) for some in stretches_of(frames)] == [
        (0, 299),
        (300, 599),
        (400, 699),
    ]
    assert len(stretches_of(frames[:20])) == 1


def test_the_table_ends_with_the_mean_over_people_of_each_side() -> None:
    rows = [
        Row(person, guard, 600, [Stretch(0.2, 1.0, 1.0), Stretch(last, 1.0, 2.0)], 0.9)
        for person, last in enumerate((0.1, 0.4))
        for guard in (False, True)
    ]
    without, guarded = table(rows).splitlines()[-2:]
    assert without.startswith("| mean | without | 0.3 | 0.200 -> 0.250 (+25.0 %)")
    assert guarded.startswith("| mean | with |") and guarded.endswith("| 1.000 -> 2.000 (+100.0 %) | 0.900 |")
    assert len(table(rows[:1]).splitlines()) == 3, "one person is no mean"
