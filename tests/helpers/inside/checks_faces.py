"""Checks inside ComfyUI: portraits of every kind, faces cut out and pasted back, other frame rates."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from checks_cache import error_of
from world import SIZE, World

WIDE, TALL = 200, 151  # an odd height: H.264 repeats the last row
BOX = "60,40,110,90"


def picture(world: World, channels: int = 3) -> Any:
    """(1, H, W, C) of noise in 8 bits; a fourth channel hides the left half."""
    import torch

    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, TALL, WIDE, channels), generator=random) / 255
    if channels == 4:
        image[..., 3] = 1.0
        image[:, :, : WIDE // 2, 3] = 0.0
    return image


def portrait(world: World, image: Any, fit: str = "face", **options: Any) -> Any:
    """What the node gives: portrait, what the model sees, where that was."""
    options = {"face_box": BOX} | options
    return world.nodes.PortraitNode.execute(image, world.job.memo, SIZE, SIZE, fit, **options).args


def kinds_of_image(world: World) -> dict[str, Any]:
    """Every channel count and batch gives a portrait; what is no picture is told."""
    import torch

    rgb = picture(world)
    plain = portrait(world, rgb, "crop")[1]
    grey = portrait(world, rgb[..., :1], "crop")[1]
    clear = portrait(world, picture(world, 4), "crop")[1]
    broken, execute = torch.full_like(rgb, torch.nan), world.nodes.PortraitNode.execute
    return {
        "shape": list(plain.shape),
        "first of a batch": bool(portrait(world, torch.cat([rgb, 1 - rgb]), "crop")[1].equal(plain)),
        "grey": bool(grey[..., 0].equal(grey[..., 2])),
        "transparent": float((clear[:, :, : SIZE // 2 - 2] - 128 / 255).abs().max()),
        "NaN": error_of(lambda: portrait(world, broken)),
        "two channels": error_of(lambda: portrait(world, rgb[..., :2])),
        "no picture": error_of(lambda: portrait(world, rgb[:0])),
        "no batch": bool(portrait(world, rgb[0], "crop")[1].equal(plain)),
        "bytes": bool(portrait(world, (rgb * 255).round().byte(), "crop")[1].equal(plain)),
        "array": bool(portrait(world, rgb.numpy(), "crop")[1].equal(plain)),
        "gradient": bool(portrait(world, rgb.clone().requires_grad_(), "crop")[1].equal(plain)),
        "a text": error_of(lambda: portrait(world, "photo.png")),
        "a mask": error_of(lambda: portrait(world, rgb[..., 0])),
        "no size": error_of(lambda: portrait(world, rgb[:, :0])),
        "linked size": error_of(lambda: execute(rgb, world.job.memo, 40_000, 32, "crop")),
        "linked fit": error_of(lambda: portrait(world, rgb, "../../secret")),
    }


def demo_inputs(world: World) -> dict[str, Any]:
    """The bundled files are offered and no other, whatever a link says."""
    outside = str(world.user / "input" / "voice.wav")
    names = ("portrait.png", "../README.md", outside, "/etc/passwd", "")
    execute = world.nodes.DemoNode.execute
    return {
        "answers": sorted({error_of(lambda name=name: execute("portrait.png", name)) for name in names}),
        "fits": [list(value.shape) if hasattr(value, "shape") else value["sample_rate"]
                 for value in execute("portrait.png", "speech.wav").args],
    }  # fmt: skip


def boxes_of_a_detector(world: World) -> dict[str, Any]:
    """The host's MediaPipe node gives a list per picture; the largest face is cut out."""
    image = picture(world)
    face = {"x": 60.0, "y": 40.0, "width": 50.0, "height": 50.0, "label": "face", "score": 0.9}
    other = {**face, "x": 5.0, "y": 5.0, "width": 20.0, "height": 20.0}
    by_box, none = ({"face_box": "", "face_boxes": boxes} for boxes in ([[other, face]], [[]]))
    return {
        "same": bool(portrait(world, image, **by_box)[1].equal(portrait(world, image)[1])),
        "none": portrait(world, image, **none)[0].crop.box,
        "bad": error_of(lambda: portrait(world, image, face_box="", face_boxes=["60,40,110,90"])),
    }


def places_of_the_face(world: World) -> dict[str, Any]:
    """Written, painted in a mask of another size, or the middle; a bad one is told."""
    import torch

    image = picture(world)
    painted = torch.zeros(1, 2 * TALL, 2 * WIDE)
    painted[:, 80:180, 120:220] = 1
    written, *_, mask = portrait(world, image)
    by_mask = portrait(world, image, face_box="", face_mask=painted)[0]
    middle = portrait(world, image, face_box="", face_mask=torch.zeros(1, 64, 64))[0]
    return {
        "written": written.crop.box,
        "painted": by_mask.crop.box,
        "middle": middle.crop.box,
        "mask": int(mask.sum()),
        "beyond": error_of(lambda: portrait(world, image, face_box="900,900,950,950")),
        "no box": error_of(lambda: portrait(world, image, face_box="60,40")),
    }


def embeddings_of_other_packs(world: World) -> dict[str, Any]:
    """A face model with an embedding is taken; without insightface, auto goes on and require does not."""
    import torch

    image, numbers = picture(world), torch.arange(512.0)
    known = portrait(world, image, "crop", face_embedding={"embedding": numbers.numpy()})[0]
    unknown = portrait(world, image, "crop")[0]
    return {
        "given": bool(known.face_embedding[0].equal(numbers)),
        "auto": float(unknown.face_embedding.abs().sum()),
        "require": error_of(lambda: portrait(world, image, "crop", face="require")),
        "wrong": error_of(lambda: portrait(world, image, "crop", face_embedding=torch.zeros(3))),
    }


def pasted_back(world: World) -> dict[str, Any]:
    """The whole picture, bit for bit outside the face's square, whatever the frames' size."""
    import torch

    image = picture(world)
    cut = portrait(world, image)[0]
    frames = torch.rand(3, SIZE, SIZE, 3)
    execute = world.nodes.PasteBackNode.execute
    whole = execute(frames, cut).args[0]
    left, top, right, bottom = cut.crop.inside
    outside = torch.ones(TALL, WIDE, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    uncut = portrait(world, image, "crop")[0]
    of_bytes = (255 * frames).round().byte()
    return {
        "shape": list(whole.shape),
        "bytes": bool(execute(of_bytes, cut).args[0].equal(execute(of_bytes.float() / 255, cut).args[0])),
        "outside": bool((whole[:, outside] == image[0, outside]).all()),
        "inside differs": bool((whole[:, ~outside] != image[0, ~outside]).any()),
        "upscaled": upscaled(world, cut),
        "defaults": bool(execute(frames, cut, None, None, None).args[0].equal(whole)),
        "not cut": error_of(lambda: execute(frames, uncut)),
        "two faces": two_faces(world, image, frames),
        "other length": error_of(lambda: execute(frames, cut, original=image.expand(2, -1, -1, -1))),
        "another size": error_of(lambda: execute(frames, cut, original=image[:, :100])),
    }


def shapes_of_frames(world: World) -> dict[str, bool]:
    """Whether frames (width, height) are taken for a portrait (width, height)."""
    import torch

    cut = portrait(world, picture(world))[0]

    def taken(of: tuple[int, int], frames: tuple[int, int]) -> bool:
        shaped = replace(cut, pixel_values=torch.zeros(1, 3, of[1], of[0]))
        images = torch.zeros(1, frames[1], frames[0], 3)
        return error_of(lambda: world.nodes.PasteBackNode.execute(images, shaped)) == "none"

    pairs = [
        ((360, 640), (540, 960)),
        ((360, 640), (576, 960)),
        ((360, 640), (512, 960)),
        ((216, 384), (384, 640)),
        ((96, 96), (130, 134)),
        ((512, 512), (2048, 2048)),
        ((512, 512), (512, 576)),
        ((512, 512), (1024, 1152)),
        ((360, 640), (640, 360)),
        ((32, 32), (100, 70)),
        ((360, 640), (640, 960)),
    ]
    return {"{}x{} as {}x{}".format(*of, *frames): taken(of, frames) for of, frames in pairs}


def upscaled(world: World, cut: Any) -> float:
    """How far the pasted picture of frames four times as large is from theirs; what they show is smooth."""
    import torch
    from torch.nn.functional import interpolate

    execute = world.nodes.PasteBackNode.execute
    small = interpolate(torch.rand(2, 3, 4, 4), SIZE, mode="bicubic").clamp(0, 1)
    large = interpolate(small, 4 * SIZE, mode="bicubic")
    pasted, other = (execute(frames.movedim(1, -1), cut).args[0] for frames in (small, large))
    return float((pasted - other).abs().max())


def two_faces(world: World, image: Any, frames: Any) -> dict[str, bool]:
    """One speaker's video is the original of the other's: each moves in its own square, and nothing else."""
    import torch

    execute = world.nodes.PasteBackNode.execute
    left, right = (
        portrait(world, image, face_box=box, margin=0.1)[0] for box in ("10,40,60,90", "130,40,180,90")
    )
    first = execute(frames, left).args[0]
    both = execute(1 - frames, right, original=first).args[0]
    inside = torch.zeros(TALL, WIDE, dtype=torch.bool)
    for face in (left, right):
        x0, y0, x1, y1 = face.crop.inside
        inside[y0:y1, x0:x1] = True
    x0, y0, x1, y1 = left.crop.inside
    return {
        "outside": bool((both[:, ~inside] == image[0, ~inside]).all()),
        "first kept": bool(both[:, y0:y1, x0:x1].equal(first[:, y0:y1, x0:x1])),
        "second moves": bool((both[0] != first[0]).any()),
    }


def other_rates(world: World) -> dict[str, Any]:
    """The sampler's frames at another rate are those of 30, dropped or repeated; the sound is as long."""
    job = world.job
    inputs = [
        job.model,
        job.memo,
        job.portrait,
        job.voice,
        job.vae,
        42,
        job.steps,
        job.cfg,
        "euler",
        "normal",
    ]
    plain = world.plain.movedim(1, -1)
    found: dict[str, Any] = {}
    for fps in ("24", "30", "60"):
        images, audio, rate, _report = world.nodes.SamplerNode.execute(*inputs, fps=fps).args
        sources = world.module("memo_avatar.video.retime").delivered_frames(0, 18, int(fps), len(images))
        found[fps] = {
            "frames": len(images),
            "rate": rate,
            "same": bool(images.equal(plain[sources])),
            "sound": audio["waveform"].shape[-1] / audio["sample_rate"] * rate,
        }
    return found


def streamed(world: World, job: Any, key: str, stop: bool = False) -> bytes:
    """SamplerToFile's work at 24 frames a second, pasted back, stopped after the first clip or not."""
    store, host = world.module("memo_avatar.video.unfinished"), world.module("nodes.host.unfinished")
    inputs, write, calls = world.module("nodes.host.video_inputs"), store.write_segment, []
    model, video = world.module("nodes.host.cached_sampling").start_video(job.model, job.cfg)
    delivery = inputs.make_delivery(job, "24", inputs.make_paster(job.portrait, 0.12, True))

    def failing(*arguments: Any) -> None:
        if calls:
            raise RuntimeError("stopped")
        calls.append(write(*arguments))

    with host.open_work(key) as work:
        store.write_segment = failing if stop else write
        try:
            meter = world.module("memo_avatar.clips.drift_report").DriftMeter()
            host.make_clips(replace(job, model=model), video, work, delivery, meter, lambda _: None)
        except RuntimeError:
            return b"stopped"
        finally:
            store.write_segment = write
        path = work.folder / "whole.mp4"
        work.join(path, host.sound_of(job), delivery, whole=True)
        made = path.read_bytes()
        work.remove()
    return made


def streamed_back(world: World) -> dict[str, Any]:
    """Pasted into the whole picture while streaming; stopped and continued, the same file."""
    import av

    job = replace(world.job, portrait=portrait(world, picture(world))[0])
    whole = streamed(world, job, "a" * 16)
    assert streamed(world, job, "b" * 16, stop=True) == b"stopped"
    again = streamed(world, job, "b" * 16)
    with av.open(io.BytesIO(whole)) as container:
        pictures = [(frame.width, frame.height) for frame in container.decode(video=0)]
        rate = float(container.streams.video[0].average_rate)
    return {"frames": len(pictures), "size": pictures[0], "rate": rate, "same": whole == again}


CHECKS = [
    kinds_of_image,
    demo_inputs,
    boxes_of_a_detector,
    places_of_the_face,
    embeddings_of_other_packs,
    pasted_back,
    shapes_of_frames,
    other_rates,
    streamed_back,
]
