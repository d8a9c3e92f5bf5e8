"""Voices inside ComfyUI: vocals, emotions over time and as heard, long and odd sounds."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1600)]

HAPPY, SAD = 3, 6


def value(found: dict[str, Any], name: str) -> Any:
    """What a check found, or its traceback as this test's failure."""
    result = found.get(name, {"error": f"{name} did not run"})
    assert "error" not in result, result["error"]
    return result["value"]


def test_emotions_over_time(inside: dict[str, Any]) -> None:
    found = value(inside, "emotions_over_time")
    assert found["plan"] == [HAPPY] * 45 + [SAD] * 19
    assert found["plain"] == [HAPPY]
    assert found["bad"].startswith("expected an emotion but got merry (emotion).")


def test_emotions_as_heard(inside: dict[str, Any]) -> None:
    found = value(inside, "emotions_as_heard")
    assert found["missing"].startswith("expected emotion2vec for emotion auto but got no ")
    assert found["frames"] == 64
    assert found["classes"] and set(found["classes"]) <= set(range(9))


def test_vocals(inside: dict[str, Any]) -> None:
    found = value(inside, "vocals_of_another_node")
    assert found["same"] and not found["other"] and found["sound"]
    assert found["short"].startswith("expected vocals of 2.00 s, as long as the voice, but got 1.00 s.")
    assert found["no model"].startswith("expected the vocal separator but got no such file")


def test_the_hosts_folder_of_audio_encoders_is_looked_in(inside: dict[str, Any]) -> None:
    found = value(inside, "encoder_of_the_hosts_folder")
    assert found["none"].startswith("expected a wav2vec2 but got neither a connected one nor one of the")
    assert "models/audio_encoders" in found["none"] and found["opened"] == "wav2vec2-base-960h.safetensors"


def test_a_voice_in_the_centre_of_five_channels_is_in_the_video(inside: dict[str, Any]) -> None:
    assert 0.2 < value(inside, "surround")["peak"] < 0.3


def test_long_voices_come_in_windows(inside: dict[str, Any]) -> None:
    found = value(inside, "long_voices")
    assert found["kind"] == "StoredStates"
    assert 0 < found["relative"] < 0.4, "random weights listen far"
    assert found["clip"] == [16, 5]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one sample", "expected 0.1 to 36000 s of sound but got 6.25e-05 s"),
        ("no sample", "expected 0.1 to 36000 s of sound but got 0 s"),
        ("NaN", "expected finite samples but got NaN or infinity (audio)"),
        ("beyond the end", "expected 0.1 to 36000 s of sound but got 0 s of 2 s (audio, start 9 s"),
        ("silence", "none"),
        ("8 kHz", "none"),
        ("192 kHz", "none"),
        ("5.1", "none"),
        ("clipped", "none"),
        ("batch", "none"),
        ("eight channels", "none"),
        ("no batch", "none"),
        ("16 bit", "none"),
        ("1 Hz", "expected 1000 to 768000 samples a second but got 1 (audio)"),
        ("17 channels", "expected 1 to 16 channels of sound but got 17 (audio)"),
        ("no sound", "expected sound, a waveform and its sample rate, but got Tensor (audio)"),
        (
            "a hundredth of a second",
            "expected 0.1 to 36000 s of sound but got 0.01 s of 2 s (audio",
        ),
        ("NaN start", "expected 0 to 36000 seconds but got nan (start)"),
        ("no time", "expected 0 to 36000 seconds but got inf (duration)"),
        ("both vocals", "expected vocals or their separation but got both (vocals)"),
    ],
)
def test_odd_sounds(inside: dict[str, Any], name: str, text: str) -> None:
    assert value(inside, "odd_sounds")[name].startswith(text)
