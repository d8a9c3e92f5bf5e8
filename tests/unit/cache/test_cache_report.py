"""The report: round trip, numbers, text, picture, files."""

import json

import pytest
import torch

from teacache_core import RunReport, StepCache, StepCacheConfig, StepRecord
from teacache_core.picture import draw, to_tensor
from tests.helpers.toy_denoiser import SmoothDenoiser, sample


@pytest.fixture(scope="module")
def report() -> RunReport:
    net = SmoothDenoiser()
    cache = StepCache(StepCacheConfig(rel_l1_thresh=0.15, calibrate_online=True))
    for clip in range(3):
        noise = torch.randn(4, 8, generator=torch.Generator().manual_seed(clip))
        sample(cache, net, noise, clip_index=clip)
    return cache.report


def made_report() -> RunReport:
    records = [
        StepRecord(0, 0, 0, 1.0, True, "nothing stored yet", seconds=2.0),
        StepRecord(0, 1, 1, 0.5, False, "change below threshold", rel_l1=0.1, seconds=0.1),
        StepRecord(1, 0, 0, 1.0, True, "nothing stored yet", seconds=4.0),
        StepRecord(1, 1, 1, 0.5, True, "threshold reached", rel_l1=0.3, replay_error=0.04, seconds=3.0),
    ]
    return RunReport(StepCacheConfig(rel_l1_thresh=0.2), records=records, cache_bytes=2**20)


def test_json_round_trip(report: RunReport) -> None:
    again = RunReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report
    assert json.loads(json.dumps(report.to_json()))["step_mask"] == list(report.masks())


def test_totals_count_and_time_what_was_saved() -> None:
    totals = made_report().totals()
    assert (totals.evaluations, totals.computed, totals.skipped) == (4, 3, 1)
    assert totals.speedup == pytest.approx(4 / 3)
    assert totals.seconds == pytest.approx(9.1)
    assert totals.seconds_saved == pytest.approx(3.0 - 0.1)
    assert made_report().masks() == ("10", "11")
    assert made_report().percentiles("rel_l1") == {0: 0.1, 25: 0.1, 50: 0.1, 75: 0.3, 95: 0.3, 100: 0.3}


def test_every_evaluation_has_a_reason_and_its_numbers(report: RunReport) -> None:
    assert len(report.records) == 60
    first, *others = report.clips()[1]
    assert first.reason == "nothing stored yet" and first.rel_l1 is None
    for record in others:
        assert record.rel_l1 and record.accumulated_rel_l1 is not None
        assert record.output_change is not None
        assert (record.replay_error is not None) is record.computed
    assert all(record.rel_l1 and record.output_change for record in report.clips()[0][1:])


def test_text_is_for_people() -> None:
    text = made_report().to_text(details=True)
    assert "computed 3 of 4 steps (1.33x fewer)" in text
    assert "clip    0  #.  1 of 2 computed, 2.10 s" in text
    assert "Cache memory: 1.00 MiB" in text
    assert "change below threshold" in text
    assert RunReport(StepCacheConfig()).summary() == "TeaCache is off: every step was computed."


@pytest.mark.parametrize("clips", [0, 1, 3, 90])
def test_a_picture_is_drawn_for_any_length(clips: int) -> None:
    record = made_report().records
    records = [
        StepRecord(**{**vars(entry), "clip_index": clip}) for clip in range(clips) for entry in record[2:]
    ]
    picture = draw(RunReport(StepCacheConfig(rel_l1_thresh=0.2), records=records))
    pixels = to_tensor(picture)
    assert pixels.dtype == torch.uint8 and pixels.shape == (picture.height, 960, 3)
    assert pixels.float().std() > 5


def test_the_picture_shows_each_decision() -> None:
    pixels = to_tensor(draw(made_report()))
    row = pixels[96 + 11]
    computed, skipped = row[88 + 100].tolist(), row[88 + 424 + 100].tolist()
    assert computed != skipped
    assert pixels[96 + 22 + 11][88 + 424 + 100].tolist() == computed


def test_files_by_suffix(tmp_path, report: RunReport) -> None:
    for name in ("report.json", "report.png", "report.txt"):
        report.save(tmp_path / name)
    assert RunReport.from_json(json.loads((tmp_path / "report.json").read_text())) == report
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "clip" in (tmp_path / "report.txt").read_text()
