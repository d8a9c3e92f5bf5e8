"""Voices inside ComfyUI: vocals, emotions over time and as heard, long and odd sounds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.inside.world import value

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1600)]

HAPPY, SAD = 3, 6


def test_emotions_over_time(inside: dict[str, Any]) -> None:
    found = value(inside, "emotions_over_time")
    assert found["plan"] == [HAPPY] * 45 + [SAD] * 19
    assert found["plain"] == [HAPPY]
    assert "Expected an emotion but got merry (emotions)." in found["bad"]


def test_emotions_as_heard(inside: dict[str, Any]) -> None:
    found = value(inside, "emotions_as_heard")
    assert "Expected emotion2vec for emotion auto but got no " in found["missing"]
    assert found["frames"] == 64
    assert found["classes"] and set(found["classes"]) <= set(range(9))


def test_vocals(inside: dict[str, Any]) -> None:
    found = value(inside, "vocals_of_another_node")
    assert found["same"] and not found["other"] and found["sound"]
    assert "Expected vocals of 2.00 s, as long as the voice, but got 1.00 s." in found["short"]
    assert "Expected the vocal separator but got no such file" in found["no model"]


def test_the_hosts_folder_of_audio_encoders_is_looked_in(inside: dict[str, Any]) -> None:
    found = value(inside, "encoder_of_the_hosts_folder")
    assert "Expected a wav2vec2 but got neither a connected one nor one of the" in found["none"]
    assert "models/audio_encoders" in found["none"] and found["opened"] == "wav2vec2-base-960h.safetensors"


def test_a_voice_in_the_centre_of_five_channels_is_in_the_video(inside: dict[str, Any]) -> None:
    assert 0.2 < value(inside, "surround")["peak"] < 0.3


def test_long_voices_come_in_windows(inside: dict[str, Any]) -> None:
    found = value(inside, "long_voices")
    assert found["kind"] == "StoredStates"
    assert 0 < found["relative"] < 0.4, "random weights listen far"
    assert found["clip"] == [16, 5]
    assert found["frames of its file"] == 420


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one sample", "Expected 0.1 to 36000 s of sound but got 6.25e-05 s"),
        ("no sample", "Expected 0.1 to 36000 s of sound but got 0 s"),
        ("NaN", "Expected finite samples but got NaN or infinity (audio)"),
        ("beyond the end", "Expected 0.1 to 36000 s of sound but got 0 s of 2 s (audio, start 9 s"),
        ("silence", "none"),
        ("8 kHz", "none"),
        ("192 kHz", "none"),
        ("5.1", "none"),
        ("clipped", "none"),
        ("batch", "none"),
        ("eight channels", "none"),
        ("no batch", "none"),
        ("16 bit", "none"),
        ("1 Hz", "Expected 1000 to 768000 samples a second but got 1 (audio)"),
        ("17 channels", "Expected 1 to 16 channels of sound but got 17 (audio)"),
        ("sparse", "Expected sound, a waveform and its sample rate, but got one that can't be read (audio)"),
        (
            "no sound",
            "Expected sound, a waveform and its sample rate, but got numbers of shape (1, 1, 16000) (audio)",
        ),
        (
            "a hundredth of a second",
            "Expected 0.1 to 36000 s of sound but got 0.01 s of 2 s (audio",
        ),
        ("NaN start", "Expected a finite number but got nan (start)"),
        ("no time", "Expected a finite number but got inf (duration)"),
        ("both vocals", "Expected vocals or their separation but got both (vocals)"),
    ],
)
def test_odd_sounds(inside: dict[str, Any], name: str, text: str) -> None:
    assert text in value(inside, "odd_sounds")[name]
