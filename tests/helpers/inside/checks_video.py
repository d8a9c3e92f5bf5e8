"""Checks inside ComfyUI: videos that go to a file, are stopped, killed and continued, and what they take."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from checks_cache import free_memory, live_bytes, replaced, stopping_at
from world import World

CLIPS = 3


def resumed_from_a_state(world: World) -> dict[str, bool]:
    """A run continued from the state after the first clip equals the whole run."""
    import torch

    video = world.module("nodes.host.video")
    first = next(video.generate_video(world.job))
    rest = [clip.frames for clip in video.generate_video(world.job, state=first.state)]
    return {"equal": bool(torch.cat([first.frames, *rest]).equal(world.plain))}


def file_and_frames(world: World) -> dict[str, Any]:
    """The file holds the frames of the other sampler, to the codec's loss."""
    path = make_file(world, world.job, "plain")
    decoded = read_video(path).astype(float) / 255
    frames = world.plain.movedim(1, -1).numpy()
    return {"frames": len(decoded), "error": float(abs(decoded - frames).mean())}


def stopped_and_continued(world: World) -> dict[str, Any]:
    """Cancelled in the last clip: the finished clips are a video; queued again, the file is the whole one."""
    import comfy.model_management as management

    progress, job, whole = world.module("nodes.host.video").Progress, long_job(world), whole_file(world)
    interrupted, told = False, list[str]()
    with (
        replaced(progress, "on_step", stopping_at(progress.on_step, 1, clip=CLIPS - 1)),
        texts_on_nodes(world, told),
    ):
        try:
            make_file(world, job, "stopped")
        except management.InterruptProcessingException:
            interrupted = True
    so_far = read_video(work_folder(world, "stopped") / "so_far.mp4")
    state = saved_state(world, "stopped")
    reports: list[Any] = []
    with loaded_memory(world) as alive, texts_on_nodes(world, told):
        again = make_file(world, job, "stopped", reports)
    return {
        "interrupted": interrupted,
        "frames so far": len(so_far),
        "continued after clip": state["clip"],
        "learned": state["learned"],
        "loaded memory gone": bool(alive) and not any(alive),
        "same file": again.read_bytes() == whole.read_bytes(),
        "told": told,
        "report": reports[0].text().splitlines()[:2],
        "nothing left": not work_folder(world, "stopped").parent.exists(),
    }


@contextmanager
def texts_on_nodes(world: World, told: list[str]) -> Iterator[None]:
    """What the node that writes files shows on itself."""
    node = world.module("nodes.sampler_to_file")
    with replaced(node, "show_text", lambda _node, text: told.append(text)):
        yield


def saved_state(world: World, name: str) -> dict[str, Any]:
    """After which clip a video would go on, and whether with what its cache has learned."""
    unfinished, notes = world.module("memo_avatar.video.unfinished"), {}
    delivery = world.module("nodes.host.video_inputs").make_delivery(long_job(world), "30")
    with unfinished.Unfinished.open(work_folder(world, name).parent, name) as work:
        state = work.load(delivery, notes.update)
    carried = json.loads(notes.get("cache", "{}"))
    return {
        "clip": None if state is None else state.clip_index,
        "learned": carried.get("calibration") is not None,
    }


@contextmanager
def loaded_memory(world: World) -> Iterator[list[bool]]:
    """Whether the memory that a continued video loads is still there, at every step and for every tensor."""
    unfinished_video = world.module("memo_avatar.video.unfinished").Unfinished
    progress = world.module("nodes.host.video").Progress
    load, on_step = unfinished_video.load, progress.on_step
    tensors: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def loading(self: Any, *arguments: Any) -> Any:
        state = load(self, *arguments)
        tensors.extend(weakref.ref(tensor) for tensor in state.memory.tensors().values())
        return state

    def watching(self: Any, clip_index: int) -> Any:
        inner = on_step(self, clip_index)

        def callback(*arguments: Any) -> None:
            inner(*arguments)
            alive.extend(tensor() is not None for tensor in tensors)

        return callback

    with replaced(unfinished_video, "load", loading), replaced(progress, "on_step", watching):
        yield alive


def killed_at_any_moment(world: World) -> dict[str, Any]:
    """What lies on the disk around every write, with half-written files beside it, leads to the same file."""
    unfinished = world.module("memo_avatar.video.unfinished")
    whole, job, folder = whole_file(world), long_job(world), work_folder(world, "watched")
    moments: list[Path] = []

    def keep() -> None:
        moments.append(world.user / "moments" / str(len(moments)))
        shutil.copytree(folder, moments[-1])
        (moments[-1] / ".1234.part").write_bytes(b"half")

    with ExitStack() as stack:
        stack.enter_context(replaced(unfinished, "SAVE_SHARE", 1e9))  # after every clip
        stack.enter_context(replaced(unfinished, "write_segment", around(unfinished.write_segment, keep)))
        save = around(unfinished.Unfinished._save, keep, before=False)
        stack.enter_context(replaced(unfinished.Unfinished, "_save", save))
        make_file(world, job, "watched")
    after, same = [], []
    for moment in moments:
        shutil.copytree(moment, folder)
        after.append(saved_state(world, "watched")["clip"])
        same.append(make_file(world, job, "watched").read_bytes() == whole.read_bytes())
    return {"continued after": after, "same file": same}


def killed_process(world: World) -> dict[str, Any]:
    """A real kill -9 while the second clip is made."""
    if not hasattr(os, "fork"):
        return {"skipped": "this system has no fork"}
    whole, job = whole_file(world), long_job(world)
    unfinished = world.module("memo_avatar.video.unfinished")
    folder = work_folder(world, "killed")
    child = os.fork()
    if child == 0:
        try:
            make_file(world, job, "killed")
        finally:
            os._exit(0)
    deadline = time.monotonic() + 300
    while not (folder / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    state = saved_state(world, "killed")
    made = []
    with replaced(unfinished, "write_segment", around(unfinished.write_segment, lambda: made.append(1))):
        again = make_file(world, job, "killed")
    return {
        "killed": os.WIFSIGNALED(status),
        "continued after clip": state["clip"],
        "clips made again": len(made) // 2,
        "same file": again.read_bytes() == whole.read_bytes(),
    }


def memory_over_length(world: World) -> dict[str, Any]:
    """Bytes of all tensors after every clip of a long video to a file; the memories of the past that exist
    while a clip is sampled."""
    stream, video = world.module("memo_avatar.video.unfinished"), world.module("nodes.host.video")
    kind, seen, memories = world.module("memo_avatar.model.memory").MemoryState, [], []
    job = world.longer(6, steps=1)

    def count() -> None:
        gc.collect()
        states = (thing for thing in gc.get_objects() if type(thing) is kind)
        memories.append(sum(not state.is_handed_over for state in states))

    with ExitStack() as stack:
        stack.enter_context(replaced(stream, "SAVE_SHARE", 1e9))  # after every clip
        census = around(stream.write_segment, lambda: seen.append(live_bytes()), before=False)
        stack.enter_context(replaced(stream, "write_segment", census))
        sample = around(video.sample_clip, count, before=False)
        stack.enter_context(replaced(video, "sample_clip", sample))
        make_file(world, job, "long")
    return {"bytes": seen, "memories": memories}


def cancelled_frames_are_kept(world: World) -> dict[str, Any]:
    """The sampler that returns frames, cancelled in its second clip."""
    import comfy.model_management as management

    progress, interrupted = world.module("nodes.host.video").Progress, False
    with replaced(progress, "on_step", stopping_at(progress.on_step, 1)):
        try:
            world.nodes.SamplerNode.execute(**vars(world.job))
        except management.InterruptProcessingException:
            interrupted = True
    files = sorted((world.user / "output" / "video").glob("memo_unfinished*"))
    decoded = read_video(files[0]).astype(float) / 255
    frames = world.plain[: len(decoded)].movedim(1, -1).numpy()
    return {
        "interrupted": interrupted,
        "files": [path.name for path in files],
        "frames": len(decoded),
        "error": float(abs(decoded - frames).mean()),
    }


def guarded_videos(world: World) -> dict[str, bool]:
    """Both nodes with `guard_drift`: the first clip as ever, and then what the guarded loop gives."""
    job = replace(world.job, guard_drift=True)
    images = world.nodes.SamplerNode.execute(**vars(job)).args[0].movedim(-1, 1)
    files = [read_video(make_file(world, one, "guard")) for one in (world.job, job)]
    same = [(plain == held).all() for plain, held in zip(*files, strict=True)]
    return {
        "the loop's frames": images.equal(world.frames(job)),
        "first clip": images[:16].equal(world.plain[:16]) and all(same[:16]),
        "second clip": images[16:].equal(world.plain[16:]) or all(same[16:]),
    }


def previews_of_every_method(world: World) -> dict[str, Any]:
    """Whether the frames are the same under each of the host's preview methods, and how wide the pictures are
    that came: one of every step, and one of every finished clip."""
    import comfy.taesd.taesd
    import comfy.utils
    import latent_preview
    from safetensors.torch import save_file

    folder = world.user / "models" / "vae_approx"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(comfy.taesd.taesd.Decoder(4).state_dict(), folder / "taesd_decoder.safetensors")
    found, plain = {}, world.plain
    for method in ("none", "auto", "latent2rgb", "taesd"):
        pictures: list[Any] = []
        wanted = latent_preview.LatentPreviewMethod.from_string(method)
        with replaced(latent_preview.args, "preview_method", wanted), progress_hook(pictures.append):
            same = world.frames(world.job).equal(plain)
        found[method] = [bool(same), *sorted(picture[1].width for picture in pictures if picture)]
    return found


def decorations_that_fail(world: World) -> dict[str, Any]:
    """A preview or a progress bar that fails does not stop a run; the cancel that comes through it does."""
    import comfy.model_management as management
    import latent_preview

    def fail(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("a decoration")

    def cancel(_preview: Any) -> None:
        raise management.InterruptProcessingException

    class Previewer:
        decode_latent_to_preview_image = fail

    found = {}
    for name, previewer in (("loading", fail), ("decoding", lambda *_: Previewer())):
        with replaced(latent_preview, "get_previewer", previewer):
            found[name] = bool(world.frames(world.job).equal(world.plain))
    with progress_hook(fail):
        found["progress"] = bool(world.frames(world.job).equal(world.plain))
    with progress_hook(cancel):
        try:
            world.frames(world.job)
        except management.InterruptProcessingException:
            found["cancelled"] = True
    return found


@contextmanager
def progress_hook(watch: Callable[[Any], Any]) -> Iterator[None]:
    """What is called with the preview, or None, at every step of a progress bar."""
    import comfy.utils

    hook = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda _done, _total, preview, **_options: watch(preview))
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)


def too_little_memory(world: World) -> dict[str, str]:
    """What the nodes say before the first step."""
    import comfy.model_management as management

    progress = world.module("nodes.host.video").Progress
    inputs, said = vars(world.job), {}
    with replaced(progress, "on_step", stopping_at(progress.on_step, 0, clip=0)):
        with replaced(management, "get_free_memory", lambda *_device, **_options: 1000):
            said["frames"] = refusal(lambda: world.nodes.SamplerNode.execute(**inputs))
        with free_memory(world, 1000):
            said["clip"] = refusal(lambda: world.nodes.SamplerNode.execute(**inputs))
            node = world.nodes.SamplerToFileNode
            said["file"] = refusal(lambda: node.execute(filename_prefix="refused", **inputs))
    return said


def estimated_memory(world: World) -> dict[str, int]:
    """What the estimate says of the memory, and what there is."""
    estimate, video = world.module("nodes.host.estimate"), world.module("nodes.host.video")
    clip = next(video.generate_video(world.job))
    real = sum(tensor.nbytes for tensor in clip.state.memory.tensors().values())
    return {"estimated": sum(estimate.sizes_of(world.job).needs().memory), "real": real}


# Means


def long_job(world: World) -> Any:
    return world.cached(world.longer(CLIPS, steps=3), target_speedup=1.5)


def whole_file(world: World) -> Path:
    """The video of the long job, made without a stop the first time it is asked for."""
    found = sorted((world.user / "output" / "video").glob("whole_*.mp4"))
    return found[0] if found else make_file(world, long_job(world), "whole")


def make_file(world: World, job: Any, name: str, reports: list[Any] | None = None) -> Path:
    """What the node makes, with a work folder of our name."""
    stream = world.module("nodes.sampler_to_file")
    with replaced(stream, "job_key", lambda *_arguments: name):
        made = world.nodes.SamplerToFileNode.execute(filename_prefix=f"video/{name}", **vars(job)).args
    if reports is not None:
        reports.append(made[2])
    return Path(made[1])


def work_folder(world: World, name: str) -> Path:
    """Where a video lies while it is made."""
    return world.user / "output" / "memo_unfinished" / name


def around(
    function: Callable[..., Any], watch: Callable[[], Any], *, before: bool = True
) -> Callable[..., Any]:
    """The function with something before and after it."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        if before:
            watch()
        result = function(*args, **kwargs)
        watch()
        return result

    return watched


def refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except MemoryError as error:
        return str(error)
    return "nothing"


def read_video(path: Path) -> Any:
    """(F, H, W, 3) uint8."""
    import av
    import numpy as np

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


CHECKS = (
    resumed_from_a_state,
    file_and_frames,
    stopped_and_continued,
    killed_at_any_moment,
    killed_process,
    memory_over_length,
    cancelled_frames_are_kept,
    guarded_videos,
    previews_of_every_method,
    decorations_that_fail,
    too_little_memory,
    estimated_memory,
)
