"""What only ComfyUI's own process can see, on a tiny checkpoint: exactness, state, errors, other nodes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.helpers.inside.world import value

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1600)]

SHAPE = [18, 3, 32, 32]
ROUNDING = 1e-4  # of pixels in 0..1
ROOM = 4096  # bytes: a sampler's noise levels, a counter


def limit(name: str) -> float:
    """Of a stored tensor's error, as in `tests/parity/check.py`."""
    if name.endswith("video"):
        return 3e-3
    return 1e-5 if name.startswith(("clip0", "sigmas")) else 1e-4


class TestCache:
    """In the current ComfyUI; `TestCacheInTheOldest` runs the same."""

    @pytest.fixture
    def found(self, inside: dict[str, Any]) -> dict[str, Any]:
        return inside

    def test_a_video_has_the_voices_frames_and_repeats(self, found: dict[str, Any]) -> None:
        assert value(found, "frames_of_the_plain_run") == {"shape": SHAPE, "repeats": True}

    def test_the_hosts_model_computes_what_the_published_code_does(self, found: dict[str, Any]) -> None:
        errors = value(found, "published_numbers")
        assert len(errors) == 16
        assert {name: error for name, error in errors.items() if error > limit(name)} == {}

    def test_host_and_standalone_give_the_same_video(self, found: dict[str, Any]) -> None:
        distance = value(found, "distance_to_the_standalone_loop")
        assert distance["largest"] < ROUNDING and distance["mean"] < ROUNDING / 20

    def test_the_cache_gives_the_standalone_loops_frames_in_every_mode(self, found: dict[str, Any]) -> None:
        for name, mode in value(found, "frames_of_the_standalone_loop_in_every_mode").items():
            assert mode["masks"][0] == mode["masks"][1] and "0" in mode["masks"][0][-1], name
            assert mode["notes"][0] == mode["notes"][1] and mode["error"] < ROUNDING, (name, mode)

    def test_a_cache_that_skips_nothing_changes_nothing(self, found: dict[str, Any]) -> None:
        assert value(found, "cache_that_skips_nothing") == {"equal": True, "skipped": 0}

    def test_threshold_zero_and_speedup_one_return_the_model_itself(self, found: dict[str, Any]) -> None:
        assert value(found, "threshold_zero") == {"threshold 0": True, "speed-up 1": True}

    def test_the_cache_skips_repeats_and_leaves_the_model_alone(self, found: dict[str, Any]) -> None:
        cache = value(found, "cache_that_skips")
        assert cache["masks"][0] == "1111", "without a calibration the first clip teaches"
        assert [mask.count("1") for mask in cache["masks"][1:]] == [2]
        assert cache["same masks"] and cache["same frames"] and cache["plain untouched"]
        assert 0 < cache["error"] < 1

    def test_two_thresholds_in_any_order_give_their_fresh_results(self, found: dict[str, Any]) -> None:
        order = value(found, "thresholds_in_any_order")
        low, high, high_again, low_again = order["masks"]
        assert low == low_again and high == high_again
        assert sum(mask.count("1") for mask in high) < sum(mask.count("1") for mask in low)
        assert order["differ"] and order["same"] and order["fresh"]

    def test_clones_of_a_model_do_not_affect_each_other(self, found: dict[str, Any]) -> None:
        assert value(found, "clones_side_by_side") == {"plain": True, "1101": True, "1001": True}

    def test_branches_split_or_batched_decide_alike(self, found: dict[str, Any]) -> None:
        branches = value(found, "branches_split_or_batched")
        batched, split = branches["masks"]
        assert batched == split and any("0" in mask for mask in batched)
        assert branches["batches"] == [1]
        assert branches["plain"] < ROUNDING
        assert branches["cached"] < 10 * ROUNDING, "a forecast is a difference, which makes rounding larger"

    def test_interrupted_at_any_step_leaves_nothing(self, found: dict[str, Any]) -> None:
        stopped = value(found, "interrupted_at_every_step")
        assert stopped["interrupted"] == 4 and stopped["runs"] == 8
        assert stopped["alive"] == 0 and stopped["bytes left"] <= ROOM
        assert stopped["cached again"] and stopped["plain again"]

    def test_exceptions_leave_the_host_usable(self, found: dict[str, Any]) -> None:
        broken = value(found, "exceptions_leave_the_host_usable")
        assert broken["failed"] == {"vae": True, "sampler": True, "callback": True}
        assert broken["bytes left"] <= ROOM
        assert broken["cached again"] and broken["plain again"]

    def test_nothing_stays_after_unload(self, found: dict[str, Any]) -> None:
        unloaded = value(found, "nothing_stays_after_unload")
        assert unloaded["loaded"] == 0 and unloaded["held the weights"]
        assert unloaded["bytes left"] <= ROOM
        assert unloaded["plain again"]


class TestCacheInTheOldest(TestCache):
    """ComfyUI 0.8.0."""

    @pytest.fixture
    def found(self, old_inside: dict[str, Any]) -> dict[str, Any]:
        return old_inside


# Videos that go to a file


def test_a_run_resumed_from_a_state_equals_the_whole_run(inside: dict[str, Any]) -> None:
    assert value(inside, "resumed_from_a_state") == {"equal": True}


def test_the_file_holds_the_frames(inside: dict[str, Any]) -> None:
    found = value(inside, "file_and_frames")
    assert found["frames"] == 18 and found["error"] < 0.1


def test_stopped_and_queued_again_the_file_is_that_of_an_uninterrupted_run(inside: dict[str, Any]) -> None:
    found = value(inside, "stopped_and_continued")
    assert found == {
        "interrupted": True,
        "frames so far": 32,
        "continued after clip": 1,
        "loaded memory gone": True,
        "learned": True,
        "same file": True,
        "told": [
            "Stopped after 2 of 3 clips. Run continues; so far: memo_unfinished/stopped/so_far.mp4",
            found["told"][1],
        ],
        "report": [found["told"][1], "What follows is about the 16 that were made now."],
        "nothing left": True,
    }
    assert re.fullmatch(
        r"48 frames: 32 from an earlier run, 16 made in [\d.]+ s \([\d.]+ s per frame\)\.", found["told"][1]
    )


def test_whatever_moment_it_is_killed_at_the_file_is_the_same(inside: dict[str, Any]) -> None:
    found = value(inside, "killed_at_any_moment")
    assert found["continued after"] == [None, None, 0, 0, 0, 1, 1, 1, 2], "before and after each write"
    assert all(found["same file"])


def test_after_kill_9_it_continues_after_the_last_finished_clip(inside: dict[str, Any]) -> None:
    found = value(inside, "killed_process")
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert found["killed"] and found["same file"]
    assert found["clips made again"] == 2 - found["continued after clip"]


def test_memory_is_flat_over_the_length_of_a_file(inside: dict[str, Any]) -> None:
    found = value(inside, "memory_over_length")
    sizes = found["bytes"]
    assert len(sizes) == 6
    assert max(sizes[1:]) - min(sizes[1:]) <= ROOM
    assert found["memories"] == [1] * 6, "the memory before a clip is gone when the clip is sampled"


def test_cancelled_the_frames_of_finished_clips_are_a_file(inside: dict[str, Any]) -> None:
    found = value(inside, "cancelled_frames_are_kept")
    assert found["interrupted"] and found["files"] == ["memo_unfinished_00001_.mp4"]
    assert found["frames"] == 16 and found["error"] < 0.1


def test_the_guard_holds_what_follows_the_first_clip_in_both_nodes(inside: dict[str, Any]) -> None:
    expected = {"the loop's frames": True, "first clip": True, "second clip": False}
    assert value(inside, "guarded_videos") == expected


def test_every_preview_method_shows_the_steps_and_changes_no_frame(inside: dict[str, Any]) -> None:
    found = value(inside, "previews_of_every_method")
    steps, clips = 8, [32, 32]
    assert found["none"] == [True, *clips]
    assert found["auto"] == found["latent2rgb"] == [True, *[4] * steps, *clips], "a point per latent"
    assert found["taesd"] == [True, *[32] * steps, *clips], "whole pictures"


def test_a_preview_or_progress_that_fails_ends_no_run_and_a_cancel_does(inside: dict[str, Any]) -> None:
    expected = {"loading": True, "decoding": True, "progress": True, "cancelled": True}
    assert value(inside, "decorations_that_fail") == expected


def test_too_little_memory_is_said_before_the_first_step(inside: dict[str, Any]) -> None:
    said = value(inside, "too_little_memory")
    assert "free RAM for 18 frames of 32x32" in said["frames"] and "MEMO Sampler to File" in said["frames"]
    for name in ("clip", "file"):
        assert "for a clip of 32x32" in said[name] and "Use a device with more memory" in said[name]


def test_the_estimate_of_a_clips_memory_is_what_it_takes(inside: dict[str, Any]) -> None:
    found = value(inside, "estimated_memory")
    assert found["estimated"] == found["real"]


def test_only_the_same_job_continues_a_file(inside: dict[str, Any]) -> None:
    assert value(inside, "keys_of_jobs") == {"same": True, "twice": [], "versions of a pack": 1}


def test_what_other_packs_do_to_a_model_is_known_by_their_nodes(inside: dict[str, Any]) -> None:
    assert value(inside, "keys_of_graphs") == {
        "different": 5,
        "ids and our own nodes do not count": True,
        "other checkpoint name": True,
    }


# Samplers, other nodes, files


def test_the_pack_imports_quickly_brings_nothing_and_calls_nobody(inside: dict[str, Any]) -> None:
    found = value(inside, "pack_import")
    assert found["seconds"] < 0.5
    assert found["new packages"] == [] and found["connections"] == []


def test_every_weight_can_be_offloaded(inside: dict[str, Any]) -> None:
    found = value(inside, "weights_that_cannot_be_offloaded")
    assert len(found) == 6 and not any(found.values()), found


def test_every_sampler_of_the_host_works_or_is_refused(inside: dict[str, Any]) -> None:
    found = value(inside, "every_sampler")
    assert len(found) >= 40
    miscounted = {name: row for name, row in found.items() if row[0] != row[1]}
    assert not miscounted
    keeps_to_the_flow = {name for name, row in found.items() if row[2] < 0.2 and row[3] < 0.05}
    refused = {name for name, row in found.items() if len(row) > 4 and "Use euler" in row[4]}
    assert refused == set(found) - keeps_to_the_flow
    calls = {name: found[name][0] for name in ("euler", "heun", "dpm_2")}
    assert calls == {"euler": 8, "heun": 15, "dpm_2": 15}


def test_samplers_of_two_evaluations_per_step_skip_evaluations(inside: dict[str, Any]) -> None:
    for found in value(inside, "skipping_between_steps").values():
        assert found["evaluations"] == 11 and found["calls"] == found["computed"] < 11
        assert found["carried"]


def test_a_known_schedule_waits_for_no_number_and_a_threshold_for_one_a_step(inside: dict[str, Any]) -> None:
    """`heun` evaluates more than once a step; its levels cannot be counted, and each may be waited for."""
    found = value(inside, "numbers_read_while_sampling")
    two_a_step = found.pop("heun")
    assert max(two_a_step.values()) <= 15
    for added in found.values():
        assert added["schedule"] == 0 and added["threshold"] <= 8, found


@pytest.mark.parametrize("host", ["inside", "old_inside"])
def test_samplers_whose_levels_are_counted_evaluate_each_level_once(
    host: str, request: pytest.FixtureRequest
) -> None:
    found = value(request.getfixturevalue(host), "levels_of_samplers_that_are_counted")
    assert {"euler", "deis", "dpmpp_2m"} <= set(found) and all(found.values()), found


def test_lora_files_act_add_up_and_go(inside: dict[str, Any]) -> None:
    found = value(inside, "lora_files")
    assert found.pop("patched") == [3, 3, 3]
    assert all(found.values()), found


def test_cores_caches_work_alone_and_under_ours(inside: dict[str, Any]) -> None:
    found = value(inside, "easycache_and_lazycache")
    assert found.pop("plain again")
    for name, cache in found.items():
        assert cache["finite"] and cache["calls"] < 8, (name, cache)
        assert 0 < cache["error"] < 1 and cache["computed"] <= 6, (name, cache)


def test_attention_of_other_packs_is_asked(inside: dict[str, Any]) -> None:
    found = value(inside, "attention_override")
    assert found["asked"] > 100 and found["same"] and found["counts"]


def test_cores_torch_compile_works_alone_and_under_ours(inside: dict[str, Any]) -> None:
    found = value(inside, "torch_compile")
    assert found["alone"] < ROUNDING and found["cached"] < ROUNDING


def test_saved_checkpoints_are_the_same_model(inside: dict[str, Any]) -> None:
    found = value(inside, "saved_checkpoints")
    assert found["fp32"]["file"] == "my_ fp32.safetensors" and found["fp32"]["error"] == 0
    assert found["merged"] < 1e-5
    for name in ("bf16", "fp16"):
        assert found[name]["bytes"] < 0.6 * found["fp32"]["bytes"] and found[name]["error"] < 0.1


def test_saving_replaces_nothing_and_works_under_windows_rules(inside: dict[str, Any]) -> None:
    found = value(inside, "saving_over_a_checkpoint")
    assert found["names"] == ["taken (1).safetensors", "taken (2).safetensors"]
    assert found["refused"] == [] and found["kept"] and found["left"] == []
    assert found["readable"] == 0o444 and found["frames"]


def test_checkpoints_in_sub_folders_are_offered_and_their_parts_are_not(inside: dict[str, Any]) -> None:
    found = value(inside, "checkpoints_in_folders")
    assert found["listed"] == ["micro", "mine/two.safetensors", "mine/old/memo"]
    assert found["loads"] == [True, True]


def test_where_nothing_is_listed_every_name_is_answered_with_the_download(inside: dict[str, Any]) -> None:
    for name, said in value(inside, "no_checkpoint_at_all").items():
        asked = "MEMO" if name.startswith("put a MEMO checkpoint") else name
        assert said.startswith(f"{asked} is not in models/memo. In the pack's folder") and "11 GB" in said


def test_a_calibration_is_a_file_that_the_node_reads(inside: dict[str, Any]) -> None:
    found = value(inside, "calibration_and_report")
    assert found["calibrating changes nothing"] and found["inside the folder"] and found["listed"]
    assert [mask.count("1") for mask in found["masks"]] == [2, 2], "with it the first clip skips, too"
    assert found["picture"][0] == 1 and found["picture"][3] == 3
    assert "computed 4 of 8 steps" in found["text"]


def test_a_calibration_of_another_checkpoint_is_refused_in_words_where_it_is_chosen(
    inside: dict[str, Any],
) -> None:
    assert set(value(inside, "calibration_of_another_checkpoint").values()) == {
        "Choose another calibration, or make one of this checkpoint with TeaCache Calibrate. Expected a "
        "calibration of this checkpoint but got one of another checkpoint (calibration)."
    }


def test_what_was_saved_is_named_under_the_folder_that_users_know(inside: dict[str, Any]) -> None:
    assert value(inside, "told_of_saved_files") == {
        "teacache": [
            "Saved models/memo/calibrations/mine.json. Press R to refresh the TeaCache node's list.",
            "mine.json was there already. Saved models/memo/calibrations/mine (1).json. Press R to refresh "
            "the TeaCache node's list.",
        ],
        "save": [
            "Saved models/memo/mine.safetensors. Press R to refresh Load MEMO's list.",
            "mine.safetensors was there already. Saved models/memo/mine (1).safetensors. Press R to refresh "
            "Load MEMO's list.",
        ],
    }


def test_voices_of_any_rate_channels_and_encoder(inside: dict[str, Any]) -> None:
    found = value(inside, "voices")
    assert found["frames"] == [30, 15]
    assert found["channels are averaged"] < 1e-3
    assert found["host encoder"][0] == found["host encoder"][1] and found["finite"]
