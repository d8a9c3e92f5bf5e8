"""Faces inside ComfyUI: pictures of every kind, the crop, paste back, other rates, streaming."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.comfy.pack import ROOT
from tests.helpers.comfy.prompts import node
from tests.helpers.comfy.server import ComfyServer
from tests.helpers.inside.world import value
from tests.helpers.scene import FACE_BOX, HEIGHT, MARGIN, WIDTH, read_pasted, write_mp3, write_photo

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1600)]


def test_every_kind_of_image(inside: dict[str, Any]) -> None:
    found = value(inside, "kinds_of_image")
    assert found["shape"] == [1, 32, 32, 3]
    assert found["first of a batch"] and found["grey"]
    assert found["transparent"] < 1 / 255
    assert "Expected finite pixel values but got NaN" in found["NaN"]
    assert "but got numbers of shape (1, 151, 200, 2) (image)" in found["two channels"]
    assert "but got numbers of shape (0, 151, 200, 3) (image)" in found["no picture"]
    assert all(found[kind] for kind in ("no batch", "bytes", "array", "gradient"))
    assert "but got a text (image)" in found["a text"] and "but got a mask (image)" in found["a mask"]
    assert "but got numbers of shape (1, 0, 200, 3) (image)" in found["no size"]
    assert "0 to 4096 but got 40000 (width)" in found["linked size"]
    assert "Expected a listed value but got '../../secret' (fit)" in found["linked fit"]


def test_the_bundled_files_and_no_other(inside: dict[str, Any]) -> None:
    found = value(inside, "demo_inputs")
    assert all(answer.startswith("Choose voice from its list. ") for answer in found["answers"])
    assert found["fits"] == [[1, 384, 384, 3], 16_000]


def test_boxes_of_a_detector(inside: dict[str, Any]) -> None:
    found = value(inside, "boxes_of_a_detector")
    assert found["same"] and found["none"] == [24, 0, 174, 150]
    assert "Expected boxes of faces, with x, y, width and height, but got a text" in found["bad"]


def test_where_the_face_is(inside: dict[str, Any]) -> None:
    found = value(inside, "places_of_the_face")
    assert found["written"] == found["painted"]
    left, top, right, bottom = found["written"]
    assert right - left == bottom - top == 100
    assert found["middle"] == [24, 0, 174, 150]
    assert found["mask"] == (right - max(0, left)) * (bottom - max(0, top))
    assert "Expected a face of at least 16x16 pixels" in found["beyond"]
    assert "Expected four whole numbers but got '60,40'" in found["no box"]


def test_embeddings(inside: dict[str, Any]) -> None:
    found = value(inside, "embeddings_of_other_packs")
    assert found["given"] and found["auto"] == 0
    assert "scrfd_10g_bnkps.onnx and glintr100.onnx" in found["require"]
    assert "Expected 512 finite numbers but got numbers of shape (3,)" in found["wrong"]


def test_frames_whose_sides_an_upscaler_rounded_are_pasted_back(inside: dict[str, Any]) -> None:
    """Up, down or to the nearest multiple of up to 64; not those of another portrait."""
    found = value(inside, "shapes_of_frames")
    assert {name for name, taken in found.items() if not taken} == {
        "512x512 as 512x576",
        "512x512 as 1024x1152",
        "360x640 as 640x360",
        "32x32 as 100x70",
        "360x640 as 640x960",
    }
    assert len(found) == 11


def test_paste_back(inside: dict[str, Any]) -> None:
    found = value(inside, "pasted_back")
    assert found["shape"] == [3, 151, 200, 3] and found["upscaled"] < 0.03
    assert found["defaults"], "optional inputs through which nothing came"
    assert found["outside"] and found["inside differs"] and found["bytes"]
    assert "Choose fit face in MEMO Portrait" in found["not cut"]
    assert found["two faces"] == {"outside": True, "first kept": True, "second moves": True}
    assert "one for each of 3 images, but got 2 (original)" in found["other length"]
    assert "Expected the picture that was cropped, 200x151" in found["another size"]


def test_other_rates(inside: dict[str, Any]) -> None:
    found = value(inside, "other_rates")
    assert {fps: found[fps]["frames"] for fps in found} == {"24": 15, "30": 18, "60": 36}
    assert all(rate["same"] and rate["rate"] == float(fps) for fps, rate in found.items())
    assert all(rate["sound"] == pytest.approx(rate["frames"], abs=0.01) for rate in found.values())


def test_streaming_pastes_back_at_another_rate_and_continues(inside: dict[str, Any]) -> None:
    expected = {"frames": 15, "size": [200, 152], "rate": 24.0, "same": True}
    assert value(inside, "streamed_back") == expected


@pytest.mark.skipif(not (ROOT / "demo" / "checkpoint" / "diffusion_net").is_dir(), reason="no demo model")
def test_a_photo_and_an_mp3_through_the_demo_model(server: ComfyServer) -> None:
    """The graph of the documents: Portrait with fit face, Sampler, Paste Back, Create Video."""
    scene = write_photo(server.user / "input" / "photo.jpg")
    write_mp3(server.user / "input" / "voice.mp3", ROOT / "demo" / "speech.wav")
    face = {"fit": "face", "margin": MARGIN, "face_box": ",".join(map(str, FACE_BOX))}
    sampling = {
        "seed": 42,
        "steps": 4,
        "cfg": 1.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "fps": "25",
    }
    shared = {"model": ["load", 0], "memo": ["load", 1], "vae": ["load", 2]}
    prompt = {
        "load": node("MEMO_Load", checkpoint="demo (comes with the pack)", weight_dtype="auto"),
        "image": node("LoadImage", image="photo.jpg"),
        "audio": node("LoadAudio", audio="voice.mp3"),
        "face": node("MEMO_Portrait", image=["image", 0], memo=["load", 1], width=0, height=0, **face),
        "voice": node(
            "MEMO_Voice", audio=["audio", 0], memo=["load", 1], emotion="neutral", start=0.0, duration=0.52
        ),
        "talk": node("MEMO_Sampler", portrait=["face", 0], voice=["voice", 0], **shared, **sampling),
        "whole": node("MEMO_PasteBack", images=["talk", 0], portrait=["face", 0]),
        "video": node("CreateVideo", images=["whole", 0], fps=["talk", 2], audio=["talk", 1]),
        "saved": node("SaveVideo", video=["video", 0], filename_prefix="pasted", format="mp4", codec="h264"),
    }
    (saved,) = server.run(prompt)["saved"]["images"]
    found = read_pasted(server.file(saved), scene)
    assert (found.num_frames, found.size) == (13, (WIDTH, HEIGHT))
    assert found.outside < 8 and found.edge < 12, found  # the host's own encoder
    assert found.motion > 8, found
