"""The report: round trip, numbers, text, picture, files."""

import json
from dataclasses import replace

import pytest
import torch

from teacache_core import CacheReport, StepCache, StepCacheConfig, StepRecord
from teacache_core.picture import draw, to_tensor
from tests.helpers.toy_denoiser import SmoothDenoiser, sample


@pytest.fixture(scope="module")
def report() -> CacheReport:
    net = SmoothDenoiser()
    cache = StepCache(StepCacheConfig(rel_l1_thresh=0.15, calibrate_online=True), observe=True)
    for clip in range(3):
        noise = torch.randn(4, 8, generator=torch.Generator().manual_seed(clip))
        sample(cache, net, noise, clip_index=clip)
    return cache.report


def made_report() -> CacheReport:
    records = [
        StepRecord(0, 0, 0, 1.0, True, "nothing stored yet", seconds=2.0),
        StepRecord(0, 1, 1, 0.5, False, "change below threshold", rel_l1=0.1, seconds=0.1),
        StepRecord(1, 0, 0, 1.0, True, "nothing stored yet", seconds=4.0),
        StepRecord(1, 1, 1, 0.5, True, "threshold reached", rel_l1=0.3, replay_error=0.04, seconds=3.0),
    ]
    return CacheReport(StepCacheConfig(rel_l1_thresh=0.2), records=records, cache_bytes=2**20)


def test_json_has_every_record_and_the_totals(report: CacheReport) -> None:
    values = json.loads(json.dumps(report.to_json()))
    assert [StepRecord(**record) for record in values["records"]] == report.records
    assert values["step_mask"] == list(report.masks())
    assert values["totals"]["computed"] == report.totals().computed


def test_totals_count_and_time_what_was_saved() -> None:
    totals = made_report().totals()
    assert (totals.evaluations, totals.computed, totals.skipped) == (4, 3, 1)
    assert totals.speedup == pytest.approx(4 / 3)
    assert totals.seconds == pytest.approx(9.1)
    assert totals.seconds_saved == pytest.approx(3.0 - 0.1)
    assert made_report().masks() == ("10", "11")
    assert made_report().percentiles("rel_l1") == {0: 0.1, 25: 0.1, 50: 0.1, 75: 0.3, 95: 0.3, 100: 0.3}


def test_every_evaluation_has_a_reason_and_its_numbers(report: CacheReport) -> None:
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
    assert CacheReport(StepCacheConfig()).summary() == "TeaCache is off: every step was computed."


@pytest.mark.parametrize("clips", [0, 1, 3, 90])
def test_a_picture_is_drawn_for_any_length(clips: int) -> None:
    record = made_report().records
    records = [
        StepRecord(**{**vars(entry), "clip_index": clip}) for clip in range(clips) for entry in record[2:]
    ]
    picture = draw(CacheReport(StepCacheConfig(rel_l1_thresh=0.2), records=records))
    pixels = to_tensor(picture)
    assert pixels.dtype == torch.uint8 and pixels.shape == (picture.height, 720, 3)
    assert pixels.float().std() > 5


def test_the_picture_shows_each_decision() -> None:
    pixels = to_tensor(draw(made_report()))
    row = pixels[96 + 13]
    computed, skipped = row[112 + 100].tolist(), row[112 + 292 + 100].tolist()
    assert computed != skipped
    assert pixels[96 + 26 + 13][112 + 292 + 100].tolist() == computed


def test_a_picture_begins_with_what_was_saved() -> None:
    assert made_report().headline() == "1 of 4 steps skipped, about 2.9 s saved of 12.0 s"
    half = replace(made_report(), records=made_report().records[:2])
    assert half.headline().startswith("Half the steps skipped, about ")
    assert CacheReport(StepCacheConfig()).headline() == "TeaCache is off: every step was computed."


def test_what_was_measured_is_drawn_where_it_is_asked_for() -> None:
    """The grid stays where it is; the curves have their own colours."""
    plain, measured = to_tensor(draw(made_report())), to_tensor(draw(made_report(), curves=True))
    assert torch.equal(plain[96:140], measured[96:140])
    for colour in ((207, 92, 36), (40, 140, 96)):
        drawn = [int((pixels == torch.tensor(colour)).all(-1).sum()) for pixels in (plain, measured)]
        assert drawn[0] == 0 and drawn[1] > 300


def test_without_an_observer_decisions_and_answers_are_the_same_and_nothing_is_measured() -> None:
    net, noise = SmoothDenoiser(), torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    config = StepCacheConfig(rel_l1_thresh=0.15)
    seen, unseen = StepCache(config, observe=True), StepCache(config)
    assert torch.equal(sample(seen, net, noise), sample(unseen, net, noise))
    assert unseen.report.masks() == seen.report.masks()
    assert any(record.replay_error for record in seen.report.records)
    for record in unseen.report.records:
        assert record.replay_error is None
        assert record.output_change is None or not record.computed
        assert record.seconds > 0


def test_the_factor_of_the_whole_stands_beside_the_steps() -> None:
    """2.9 s saved by one skipped evaluation, in 10 s."""
    text = made_report().whole(10.0)
    assert text.startswith("Steps: 1.33 times fewer.") and "about 1.29 times faster" in text
    assert CacheReport(StepCacheConfig()).whole(10.0) == ""


def test_a_note_is_said_once() -> None:
    report = CacheReport(StepCacheConfig(rel_l1_thresh=0.1))
    for text in ("the line", "the line", ""):
        report.note(text)
    assert report.notes == ["the line"]
