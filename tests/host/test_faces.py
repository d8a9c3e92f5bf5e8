"""Faces inside ComfyUI: pictures of every kind, the crop, paste back, other rates, streaming."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1600)]


def value(found: dict[str, Any], name: str) -> Any:
    """What a check found, or its traceback as this test's failure."""
    result = found.get(name, {"error": f"{name} did not run"})
    assert "error" not in result, result["error"]
    return result["value"]


def test_every_kind_of_image(inside: dict[str, Any]) -> None:
    found = value(inside, "kinds_of_image")
    assert found["shape"] == [1, 32, 32, 3]
    assert found["first of a batch"] and found["grey"]
    assert found["transparent"] < 1 / 255
    assert found["NaN"].startswith("expected finite pixel values but got NaN")
    assert "but got (1, 151, 200, 2) (image)" in found["two channels"]
    assert "but got (0, 151, 200, 3) (image)" in found["no picture"]


def test_where_the_face_is(inside: dict[str, Any]) -> None:
    found = value(inside, "places_of_the_face")
    assert found["written"] == found["painted"]
    left, top, right, bottom = found["written"]
    assert right - left == bottom - top == 100
    assert found["middle"] == [24, 0, 174, 150]
    assert found["mask"] == (right - max(0, left)) * (bottom - max(0, top))
    assert "expected a face of at least 16x16 pixels" in found["beyond"]
    assert "expected four whole numbers but got '60,40'" in found["no box"]


def test_embeddings(inside: dict[str, Any]) -> None:
    found = value(inside, "embeddings_of_other_packs")
    assert found["given"] and found["auto"] == 0
    assert "scrfd_10g_bnkps.onnx and glintr100.onnx" in found["require"]
    assert "expected 512 finite numbers but got (3,)" in found["wrong"]


def test_paste_back(inside: dict[str, Any]) -> None:
    found = value(inside, "pasted_back")
    assert found["shape"] == [3, 151, 200, 3] and found["upscaled"] == [1, 151, 200, 3]
    assert found["outside"] and found["inside differs"]
    assert "Choose fit face in MEMO Portrait" in found["not cut"]
    assert "expected the picture that was cropped, 200x151" in found["another size"]


def test_other_rates(inside: dict[str, Any]) -> None:
    found = value(inside, "other_rates")
    assert {fps: found[fps]["frames"] for fps in found} == {"24": 15, "30": 18, "60": 36}
    assert all(rate["same"] and rate["rate"] == float(fps) for fps, rate in found.items())
    assert all(rate["sound"] == pytest.approx(rate["frames"], abs=0.01) for rate in found.values())


def test_streaming_pastes_back_at_another_rate_and_continues(inside: dict[str, Any]) -> None:
    expected = {"frames": 15, "size": [200, 152], "rate": 24.0, "same": True}
    assert value(inside, "streamed_back") == expected
