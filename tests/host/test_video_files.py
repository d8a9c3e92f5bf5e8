"""Video files of a running ComfyUI: what they are called, what they carry, and that none is ever lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comfy.messages import Messages
from tests.helpers.comfy.pack import make_user_folder
from tests.helpers.comfy.prompts import FRAMES, SAMPLER, node, portrait_prompt, with_images
from tests.helpers.comfy.server import ComfyServer, Prompt, PromptFailedError

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]

WORKFLOW = {
    "nodes": [{"id": 5, "type": "MEMO_Voice", "properties": {"Node name for S&R": "the voice"}}],
    "extra": {"note": "说话"},
}
ALL_FRAMES = 33  # of the whole voice: three clips
SECONDS = 120


def to_file(**changes: Any) -> Prompt:
    return portrait_prompt("MEMO_SamplerToFile", **{"steps": 1, **changes})


def long_to_file(name: str, seed: int) -> Prompt:
    """Three clips that take a while."""
    return to_file(seconds=0.0, steps=60, filename_prefix=name, seed=seed)


def tags(path: Path) -> dict[str, Any]:
    import av

    with av.open(str(path)) as container:
        found = {name: json.loads(container.metadata[name]) for name in ("workflow", "prompt")}
    for one in found["prompt"].values():
        one.pop("is_changed", None)  # the host's own note
    return found


def check_bare(path: Path) -> None:
    """A video of some frames that tells nothing of how it was made."""
    import av

    with av.open(str(path)) as container:
        assert not {"workflow", "prompt"} & set(container.metadata)
    assert b"MEMO_Voice" not in path.read_bytes()
    assert pictures(path) in (16, 32, ALL_FRAMES)


def pictures(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def files(server: ComfyServer, pattern: str) -> list[Path]:
    return sorted((server.user / "output").glob(pattern))


def wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@contextmanager
def interrupted_after_the_first_clip(server: ComfyServer, prompt: Prompt, **extra: Any) -> Iterator[None]:
    """The block runs when the first clip is there; then the user cancels."""
    before = set(files(server, "memo_unfinished/*/clip_000000.mp4"))
    prompt_id = server.queue(prompt, **extra)
    wait_until(lambda: bool(set(files(server, "memo_unfinished/*/clip_000000.mp4")) - before))
    yield
    server.interrupt()
    with pytest.raises(PromptFailedError, match="interrupt"):
        server.wait(prompt_id)


def test_every_file_carries_the_workflow_it_was_made_with(any_server: ComfyServer) -> None:
    server, extra = any_server, {"extra_pnginfo": {"workflow": WORKFLOW}}
    prompt = to_file(filename_prefix="tags/whole", seed=71)
    (saved,) = server.wait(server.queue(prompt, **extra))["outputs"][SAMPLER]["images"]
    assert tags(server.file(saved)) == {"workflow": WORKFLOW, "prompt": prompt}
    prompt = long_to_file("tags/stopped", 72)
    with interrupted_after_the_first_clip(server, prompt, **extra):
        pass
    (so_far,) = files(server, "memo_unfinished/*/so_far.mp4")
    assert tags(so_far) == {"workflow": WORKFLOW, "prompt": prompt}
    server.wait(server.queue(prompt, **extra))
    assert not files(server, "memo_unfinished")


def test_a_cancelled_sampler_leaves_a_file_with_its_workflow(server: ComfyServer) -> None:
    prompt = with_images(portrait_prompt(seconds=0.0, steps=60, seed=73))
    with Messages(server.port, "tests") as messages:
        prompt_id = server.queue(prompt, extra_pnginfo={"workflow": WORKFLOW})
        wait_until(lambda: any(data["value"] > 60 for data in messages.of("progress", SAMPLER)))
        server.interrupt()
        with pytest.raises(PromptFailedError, match="interrupt"):
            server.wait(prompt_id)
        wait_until(lambda: any(text.startswith("Stopped after ") for _, text in messages.node_texts))
    (kept,) = files(server, "video/memo_unfinished_*.mp4")
    assert tags(kept) == {"workflow": WORKFLOW, "prompt": prompt}
    assert pictures(kept) in (16, 32)
    text = [text for where, text in messages.node_texts if where == SAMPLER][-1]
    assert text.startswith("Stopped after ") and kept.name in text and "MEMO Sampler to File" in text


def test_without_metadata_the_files_carry_none_and_the_log_tells_what_is_left_over(
    comfyui: Path, tmp_path: Path
) -> None:
    user = make_user_folder(tmp_path)
    forgotten = user / "output" / "memo_unfinished" / "0123456789abcdef" / "clip_000000.mp4"
    forgotten.parent.mkdir(parents=True)
    forgotten.write_bytes(bytes(3_000_000))
    os.utime(forgotten, (0, 0))
    with ComfyServer(comfyui, user, "--disable-metadata") as server:
        prompt = long_to_file("bare", 74)
        extra = {"extra_pnginfo": {"workflow": WORKFLOW}}
        with interrupted_after_the_first_clip(server, prompt, **extra):
            pass
        (so_far,) = files(server, "memo_unfinished/*/so_far.mp4")
        check_bare(so_far)
        (saved,) = server.wait(server.queue(prompt, **extra))["outputs"][SAMPLER]["images"]
        check_bare(server.file(saved))
        said = server.log_text()
    assert "Unfinished videos older than 7 days: 1, 3 MB of output/memo_unfinished." in said
    assert forgotten.exists(), "nobody but the user removes it"


def test_names_take_the_date_and_the_values_of_other_nodes(any_server: ComfyServer) -> None:
    prompt = to_file(seed=74)
    prompt["3"]["_meta"] = {"title": "My portrait"}
    day = time.strftime("%Y-%m-%d")
    for prefix, expected in (
        ("%date:yyyy-MM-dd%/%MEMO_Portrait.fit%_%width%", f"{day}/crop_32_00001_.mp4"),
        ("names/%My portrait.fit%-%MEMO_SamplerToFile.seed%", "names/crop-74_00001_.mp4"),
        ("names/%the voice.emotion%", "names/happy_00001_.mp4"),
        ("names/%LoadImage.image%", "names/portrait.png_00001_.mp4"),
        ("names/%nobody.image%-%date:yy%", f"names/%nobody.image%-{day[2:4]}_00001_.mp4"),
    ):
        prompt[SAMPLER]["inputs"]["filename_prefix"] = prefix
        entry = any_server.wait(any_server.queue(prompt, extra_pnginfo={"workflow": WORKFLOW}))
        (saved,) = entry["outputs"][SAMPLER]["images"]
        assert (Path(saved["subfolder"]) / saved["filename"]).as_posix() == expected


REFUSED = [
    ("w" * 251, "one of 262 bytes where 255 is the most"),
    ("说" * 82, "one of 257 bytes where 255 is the most"),
    ("a\0b", "control characters"),
    ("../outside", "outside"),
    ("/tmp/outside", "outside"),
    ("video/..", "one outside it|got none"),
    ("", "got none"),
    ("//", "got none"),
]


@pytest.mark.parametrize(("prefix", "said"), REFUSED, ids=[str(index) for index in range(len(REFUSED))])
def test_a_name_that_no_file_can_have_is_refused_before_the_first_step(
    any_server: ComfyServer, prefix: str, said: str
) -> None:
    with (
        Messages(any_server.port, "tests") as messages,
        pytest.raises(PromptFailedError, match=said) as failed,
    ):
        any_server.run(to_file(filename_prefix=prefix))
    message = failed.value.details["exception_message"].strip()
    assert "\n" not in message and len(message) < 600 and str(any_server.user) not in message
    assert not messages.of("progress", SAMPLER)
    assert not files(any_server, "memo_unfinished")


def test_the_longest_names_give_files(any_server: ComfyServer) -> None:
    for prefix in ("w" * 240, "说" * 80):
        (saved,) = any_server.run(to_file(filename_prefix=prefix))[SAMPLER]["images"]
        assert pictures(any_server.file(saved)) == FRAMES


def test_a_folder_that_cannot_be_written_to_is_found_before_the_first_step(server: ComfyServer) -> None:
    (server.user / "output" / "taken").write_text("a file")
    with Messages(server.port, "tests") as messages, pytest.raises(PromptFailedError, match="taken"):
        server.run(to_file(filename_prefix="taken/v"))
    assert not messages.of("progress", SAMPLER) and not files(server, "memo_unfinished")


def test_a_file_that_another_process_wrote_meanwhile_is_not_replaced(server: ComfyServer) -> None:
    prompt_id = server.queue(long_to_file("race", 75))
    wait_until(lambda: bool(files(server, "memo_unfinished/*/clip_000000.mp4")))
    other = server.user / "output" / "race_00001_.mp4"
    other.write_bytes(b"another process's")
    (saved,) = server.wait(prompt_id)["outputs"][SAMPLER]["images"]
    assert saved["filename"] == "race_00002_.mp4" and pictures(server.file(saved)) == ALL_FRAMES
    assert other.read_bytes() == b"another process's"


def test_a_damaged_clip_is_made_anew_and_the_node_says_what_was_kept(server: ComfyServer) -> None:
    whole = long_to_file("damaged", 76)
    with Messages(server.port, "tests") as messages:
        with interrupted_after_the_first_clip(server, whole):
            pass
        wait_until(lambda: any(text.startswith("Stopped after ") for _, text in messages.node_texts))
    (clip,) = files(server, "memo_unfinished/*/clip_000000.mp4")
    os.truncate(clip, 1500)
    (saved,) = server.run(whole)[SAMPLER]["images"]
    assert pictures(server.file(saved)) == ALL_FRAMES
    assert "is made anew: clip 1 is not what was written" in server.log_text()
    assert not files(server, "memo_unfinished")


def test_the_report_tells_old_frames_from_new_ones(server: ComfyServer) -> None:
    prompt = long_to_file("told", 77)
    prompt["report"] = node("MEMO_TeaCacheReport", report=[SAMPLER, 2], details=False)
    with interrupted_after_the_first_clip(server, prompt):
        pass
    with Messages(server.port, "tests") as messages:
        text = server.run(prompt)["report"]["text"][0]
        first, second = text.splitlines()[:2]
        assert first.startswith("33 frames: ") and " from an earlier run, " in first
        assert second.startswith("What follows is about the ")
        wait_until(lambda: (SAMPLER, first) in messages.node_texts)
