"""The pack in a real ComfyUI server: installed as a user does it, driven through /prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.comfy.messages import Messages
from tests.helpers.comfy.prompts import (
    FRAMES,
    SAMPLER,
    SECONDS,
    linked,
    portrait_prompt,
    with_cache,
    with_compared,
    with_images,
    with_video,
)
from tests.helpers.comfy.server import ComfyServer, PromptFailedError, PromptRefusedError, cached_nodes

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1200)]

OUTPUTS = {
    "MEMO_Load": ["MODEL", "MEMO", "VAE"],
    "MEMO_Portrait": ["MEMO_PORTRAIT", "IMAGE"],
    "MEMO_Voice": ["MEMO_VOICE", "INT"],
    "MEMO_Sampler": ["IMAGE", "AUDIO", "FLOAT", "MEMO_REPORT"],
    "MEMO_SamplerToFile": ["VIDEO", "STRING", "MEMO_REPORT"],
    "MEMO_DemoInputs": ["IMAGE", "AUDIO"],
    "MEMO_TeaCache": ["MODEL"],
    "MEMO_TeaCacheReport": ["IMAGE", "STRING"],
    "MEMO_TeaCacheCompare": ["IMAGE", "IMAGE", "STRING"],
    "MEMO_TeaCacheCalibrate": ["STRING"],
    "MEMO_Save": ["STRING"],
    "MEMO_PasteBack": ["IMAGE"],
}
VERDICT = (
    r"(\d+\.\d times faster|Not faster): [\d.]+ s instead of [\d.]+ s\. The pictures differ by [\d.]+ of "
    r"255 levels on average, at most by \d+; most of all in frame \d+\."
)
LOADING = {"1", "3", "5"}
QUEUED = 50
GROWTH = 16 * 2**20


def frames_of(server: ComfyServer, outputs: dict[str, Any]) -> list[bytes]:
    """The pixels of the saved frames; the files themselves hold the prompt, too."""
    return [Image.open(server.file(saved)).tobytes() for saved in outputs["images"]["images"]]


def probe(path: Path) -> tuple[int, float, float]:
    """Frames, seconds of video and seconds of sound of a file."""
    import av

    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        rate = float(container.streams.video[0].average_rate or 0)
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
        sound = samples / container.streams.audio[0].rate
    return frames, frames / rate, sound


@pytest.mark.parametrize("node_id", OUTPUTS)
def test_node_ids_and_their_outputs_stay(server: ComfyServer, node_id: str) -> None:
    found = server.get(f"/object_info/{node_id}")[node_id]
    assert found["output"][: len(OUTPUTS[node_id])] == OUTPUTS[node_id]


def test_every_node_is_explained(server: ComfyServer) -> None:
    nodes = {name: info for name, info in server.get("/object_info").items() if name.startswith("MEMO_")}
    assert nodes.keys() >= OUTPUTS.keys()
    for name, info in nodes.items():
        assert info["category"].startswith("MEMO") and info["description"], name
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        without = [key for key, spec in inputs.items() if not (spec[1:] or [{}])[0].get("tooltip")]
        assert not without, f"inputs of {name} without a tooltip: {without}"


def test_the_pack_loads_without_a_word_of_failure(server: ComfyServer) -> None:
    log = server.log_text()
    assert "IMPORT FAILED" not in log
    (line,) = re.findall(r"([\d.]+) seconds: .*teacache-memo", log)
    assert float(line) < 30, "ComfyUI's own figure, in seconds of a machine that may be busy"


def test_a_talking_portrait_becomes_a_video_and_says_how_far_it_is(server: ComfyServer) -> None:
    with Messages(server.port, "tests") as messages:
        outputs = server.run(with_video(portrait_prompt(seed=31)))
    progress = [data["value"] for data in messages.of("progress", SAMPLER)]
    assert progress == sorted(progress) and progress[-1] == 4, "two clips of two steps, one bar"
    assert {data["max"] for data in messages.of("progress", SAMPLER)} == {4}
    assert messages.previews > 0, "the newest frame"
    (saved,) = outputs["saved"]["images"]
    frames, seconds, sound = probe(server.file(saved))
    assert frames == FRAMES
    assert seconds == pytest.approx(SECONDS) and sound == pytest.approx(SECONDS, abs=0.1)


def test_the_voice_says_how_much_will_be_made_before_it_is(server: ComfyServer) -> None:
    with Messages(server.port, "tests") as messages:
        server.run(with_video(portrait_prompt(seconds=0.9, seed=55, steps=1)))
    assert [text for where, text in messages.node_texts if where == "5"] == ["0.9 s = 27 frames in 2 clips"]
    first, *_ = [text for where, text in messages.node_texts if where == SAMPLER]
    assert first == "Clip 1 of 2"
    assert messages.node_texts.index(("5", "0.9 s = 27 frames in 2 clips")) == 0


def test_the_voice_says_which_emotions_never_show(server: ComfyServer) -> None:
    prompt = with_video(portrait_prompt(seconds=0.2, seed=56, steps=1))
    prompt["5"]["inputs"]["emotions"] = "0 happy, 99 sad"
    with Messages(server.port, "tests") as messages:
        server.run(prompt)
    (said,) = [text for where, text in messages.node_texts if where == "5"]
    assert said.startswith("Write an earlier second than 99: the sound ends at 0.2 s, and what begins there")
    assert "0.2 s = 6 frames in 1 clip\n" in said


def test_a_long_video_goes_to_a_file(server: ComfyServer) -> None:
    prompt = portrait_prompt("MEMO_SamplerToFile", filename_prefix="video/long", steps=1)
    (saved,) = server.run(prompt)[SAMPLER]["images"]
    frames, seconds, sound = probe(server.file(saved))
    assert frames == FRAMES
    assert seconds == pytest.approx(SECONDS) and sound == pytest.approx(SECONDS, abs=0.1)
    assert not (server.user / "output" / "memo_unfinished").exists()


def test_a_long_video_plays_on_its_node_while_it_grows(any_server: ComfyServer) -> None:
    """Three clips: what is finished after the first and the second, then the whole; one is left to play."""
    with Messages(any_server.port, "tests") as messages:
        prompt = portrait_prompt("MEMO_SamplerToFile", 0.0, filename_prefix="video/grown", seed=53, steps=1)
        outputs = any_server.run(prompt)
        shown = [data["output"]["images"][0] for data in messages.of("executed", SAMPLER)]
    assert [saved["type"] for saved in shown] == ["temp", "temp", "output"]
    assert outputs[SAMPLER]["images"] == [shown[-1]]
    assert not any_server.file(shown[0]).exists()
    frames, seconds, sound = probe(any_server.file(shown[1]))
    assert frames == 32 and sound == pytest.approx(seconds, abs=0.1)
    assert messages.previews < 3, "pictures of the steps end where the video begins"
    assert any(text.startswith("33 frames in ") for _, text in messages.node_texts)


def test_two_runs_are_compared_in_a_sentence_and_in_pictures(any_server: ComfyServer) -> None:
    outputs = any_server.run(with_compared(portrait_prompt(seed=54, steps=4)))
    (verdict,) = outputs["verdict"]["text"]
    assert re.fullmatch(VERDICT, verdict)
    (worst,) = outputs["worst"]["images"]
    assert Image.open(any_server.file(worst)).size == (96, 32)


def test_two_seeds_are_told_before_the_runs_and_in_the_verdict(any_server: ComfyServer) -> None:
    """What a page does whose seeds go on after every run."""
    advice = "Give both samplers the same seed: 54 and 55 make two videos, and most differs by that."
    with Messages(any_server.port, "tests") as messages:
        outputs = any_server.run(with_compared(portrait_prompt(seed=54, steps=2), seed=55))
    assert re.fullmatch(f"{advice} {VERDICT}", outputs["verdict"]["text"][0])
    texts = [(where, text) for where, text in messages.node_texts if where in ("compared", "full", SAMPLER)]
    assert texts[0] == ("compared", advice), "before a step"


def test_a_seed_that_both_samplers_get_through_a_link_is_one(server: ComfyServer) -> None:
    prompt = linked(with_compared(portrait_prompt(seed=54, steps=2)), "full", "seed", 7)
    prompt[SAMPLER]["inputs"]["seed"] = prompt["full"]["inputs"]["seed"]
    assert re.fullmatch(VERDICT, server.run(prompt)["verdict"]["text"][0])


def test_queued_again_nothing_runs_and_a_new_seed_reloads_nothing(server: ComfyServer) -> None:
    prompt = with_images(portrait_prompt(seed=11, steps=1))
    first = server.wait(server.queue(prompt))
    assert {*LOADING, SAMPLER, "images"} <= cached_nodes(server.wait(server.queue(prompt)))
    other = server.wait(server.queue(with_images(portrait_prompt(seed=12, steps=1))))
    assert cached_nodes(other) >= LOADING and SAMPLER not in cached_nodes(other)
    assert frames_of(server, first["outputs"]) != frames_of(server, other["outputs"])


def test_without_the_node_with_it_off_and_without_it_again_the_frames_are_the_same(
    server: ComfyServer,
) -> None:
    plain = frames_of(server, server.run(with_images(portrait_prompt(seed=41))))
    off = with_images(with_cache(portrait_prompt(seed=41), mode="threshold", threshold=0.0))
    assert frames_of(server, server.run(off)) == plain
    skipping = with_images(with_cache(portrait_prompt(seed=41, steps=4)))
    text = server.run(skipping)["report"]["text"][0]
    assert re.search(r"computed 6 of 8 steps", text), text
    server.post("/free", {"unload_models": True, "free_memory": True})
    assert frames_of(server, server.run(with_images(portrait_prompt(seed=41)))) == plain


def test_interrupted_then_queued_again_it_is_the_fresh_result(server: ComfyServer) -> None:
    prompt = with_images(with_cache(portrait_prompt(steps=4, seed=21)))
    fresh = frames_of(server, server.run(prompt))
    with Messages(server.port, "tests") as messages:
        prompt_id = server.queue(with_images(with_cache(portrait_prompt(steps=200, seed=22))))
        messages.wait_for("progress", SAMPLER)
        server.interrupt()
        with pytest.raises(PromptFailedError, match="interrupt"):
            server.wait(prompt_id)
    server.post("/free", {"unload_models": True, "free_memory": True})
    assert frames_of(server, server.run(prompt)) == fresh


def test_many_prompts_leave_memory_flat(server: ComfyServer) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from /proc")
    prompts = [
        with_cache(portrait_prompt(seconds=0.3, steps=2, seed=seed), mode="threshold", threshold=0.2)
        for seed in range(100, 100 + QUEUED)
    ]
    sizes = []
    for prompt_id in [server.queue(prompt) for prompt in prompts]:
        server.wait(prompt_id)
        sizes.append(server.resident_bytes())
    warm = sizes[QUEUED // 5]
    assert sizes[-1] - warm < GROWTH, [round(size / 2**20) for size in sizes[::5]]


def test_a_start_past_the_end_is_said(server: ComfyServer) -> None:
    prompt = with_images(portrait_prompt())
    prompt["5"]["inputs"]["start"] = 9.0
    with pytest.raises(PromptFailedError, match="Choose another part or recording"):
        server.run(prompt)


def test_a_missing_checkpoint_is_refused(server: ComfyServer) -> None:
    prompt = with_images(portrait_prompt())
    prompt["1"]["inputs"]["checkpoint"] = "gone"
    with pytest.raises(PromptRefusedError, match="gone"):
        server.run(prompt)
