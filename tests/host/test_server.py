"""The pack in a real ComfyUI server: installed as a user does it, driven through /prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.messages import Messages
from tests.helpers.comfy.prompts import (
    FRAMES,
    SAMPLER,
    SECONDS,
    portrait_prompt,
    with_cache,
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
    "MEMO_TeaCacheCalibrate": ["STRING"],
    "MEMO_Save": ["STRING"],
    "MEMO_PasteBack": ["IMAGE"],
}
LOADING = {"1", "3", "5"}
QUEUED = 50
GROWTH = 16 * 2**20


def frames_of(server: ComfyServer, outputs: dict[str, Any]) -> list[bytes]:
    """The pixels of the saved frames; the files themselves hold the prompt, too."""
    from PIL import Image

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


def test_a_long_video_goes_to_a_file(server: ComfyServer) -> None:
    prompt = portrait_prompt("MEMO_SamplerToFile", filename_prefix="video/long", steps=1)
    (saved,) = server.run(prompt)[SAMPLER]["images"]
    frames, seconds, sound = probe(server.file(saved))
    assert frames == FRAMES
    assert seconds == pytest.approx(SECONDS) and sound == pytest.approx(SECONDS, abs=0.1)
    assert not (server.user / "output" / "memo_unfinished").exists()


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
