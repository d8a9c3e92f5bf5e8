"""Sounds, emotions and model files as users really have them: the right result or one clear line."""

import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from memo_avatar.files.foreign import CheckpointError
from memo_avatar.timing import SAMPLE_RATE, frame_count
from memo_avatar.video.writer import VideoWriter
from memo_avatar.voice.emotion_files import read_emotion2vec
from memo_avatar.voice.emotions import EMOTIONS, EmotionError, EmotionPlan, parse_plan
from memo_avatar.voice.listen import Sources, check_sources
from memo_avatar.voice.sound import MediaError, is_silent, to_speech
from memo_avatar.voice.sound_files import load_audio
from tests.helpers.media import tone, write_sound

Make = Callable[[Path], Path]


def sound(name: str, seconds: float, rate: int = 16_000, channels: int = 1, codec: str = "pcm_s16le") -> Make:
    return lambda folder: write_sound(folder / name, tone(seconds, rate, channels), rate, codec)


def samples(values: np.ndarray, codec: str = "pcm_f32le") -> Make:
    return lambda folder: write_sound(folder / "a.wav", values.astype(np.float32), codec=codec)


def content(name: str, data: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def truncated(make: Make, share: float) -> Make:
    def cut(folder: Path) -> Path:
        path = make(folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        return path

    return cut


def renamed(make: Make, name: str) -> Make:
    return lambda folder: make(folder).rename(folder / name)


def in_folder(make: Make, name: str) -> Make:
    def nested(folder: Path) -> Path:
        (folder / name).mkdir()
        return make(folder / name)

    return nested


def video(folder: Path) -> Path:
    """A video with a second of sound, ours."""
    voice = write_sound(folder / "voice.wav", tone(1.0))
    with VideoWriter(folder / "v.mp4", width=32, height=32, audio=voice) as writer:
        writer.write(torch.zeros(30, 3, 32, 32))
    return folder / "v.mp4"


def silent_video(folder: Path) -> Path:
    import av

    with av.open(str(folder / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 32
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    return folder / "v.mp4"


def wav_with_lying_header(folder: Path) -> Path:
    """A header that promises an hour, and half a second behind it."""
    path = write_sound(folder / "a.wav", tone(0.5))
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 16_000 * 3_600 * 2)
    path.write_bytes(bytes(data))
    return path


def eight_bit(folder: Path) -> Path:
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((1, 1, 8_000, 0, "NONE", ""))
        file.writeframes(bytes((128 + 100 * np.sin(np.arange(8_000) / 5)).astype(np.uint8)))
    return folder / "a.wav"


NOISE = np.random.default_rng(0).standard_normal((1, 16_000))

GOOD: dict[str, tuple[Make, float]] = {
    "8 kHz mono": (sound("a.wav", 1.0, 8_000), 1.0),
    "8 bit": (eight_bit, 1.0),
    "44.1 kHz stereo": (sound("a.wav", 1.0, 44_100, 2), 1.0),
    "192 kHz": (sound("a.wav", 0.5, 192_000), 0.5),
    "5.1": (sound("a.wav", 1.0, 48_000, 6), 1.0),
    "float": (sound("a.wav", 1.0, codec="pcm_f32le"), 1.0),
    "64-bit float": (sound("a.wav", 1.0, codec="pcm_f64le"), 1.0),
    "24 bit": (sound("a.wav", 1.0, 44_100, 2, "pcm_s24le"), 1.0),
    "mp3": (sound("a.mp3", 1.0, 44_100, 2, "libmp3lame"), 1.0),
    "flac": (sound("a.flac", 1.0, 44_100, 2, "flac"), 1.0),
    "m4a": (sound("a.m4a", 1.0, 44_100, 2, "aac"), 1.0),
    "opus": (sound("a.opus", 1.0, 48_000, 2, "libopus"), 1.0),
    "opus in ogg": (sound("a.ogg", 1.0, 48_000, 1, "libopus"), 1.0),
    "webm": (sound("a.webm", 1.0, 48_000, 1, "libopus"), 1.0),
    "video": (video, 1.0),
    "mp3 called wav": (renamed(sound("a.mp3", 1.0, 44_100, 2, "libmp3lame"), "b.wav"), 1.0),
    "no extension": (renamed(sound("a.wav", 1.0), "voice"), 1.0),
    "name in Chinese, blanks and quotes": (renamed(sound("a.wav", 1.0), "声音 'x' \"y\" %d.wav"), 1.0),
    "folder with a dash": (in_folder(sound("-i.wav", 1.0), "- odd [folder]"), 1.0),
    "louder than full scale": (samples(30 * NOISE), 1.0),
    "clipped": (samples(np.sign(NOISE)), 1.0),
    "constant": (samples(0.5 * np.ones((1, 16_000))), 1.0),
    "denormal": (samples(1e-40 * np.ones((1, 16_000))), 1.0),
    "header of an hour": (wav_with_lying_header, 0.5),
    "truncated wav": (truncated(sound("a.wav", 2.0), 0.5), 1.0),
    "truncated mp3": (truncated(sound("a.mp3", 2.0, 44_100, 2, "libmp3lame"), 0.5), 1.0),
    "shortest": (sound("a.wav", 0.1), 0.1),
}

BAD: dict[str, tuple[Make, str]] = {
    "no file": (lambda folder: folder / "a.wav", "expected a sound file but got no such file"),
    "folder": (lambda folder: folder, "expected a sound file but got a folder"),
    "empty file": (content("a.wav", b""), "expected a sound file but got an empty file of 0 bytes"),
    # FFmpeg 7.1 takes it for sound at first.
    "text": (content("a.wav", b"Hello.\n" * 500), "expected (a sound file|sound .* decoded) but got Invalid"),
    "zeros": (content("a.mp3", bytes(10_000)), "expected a sound file but got"),
    "web page": (content("a.mp3", b"<!doctype html>" * 99), "expected a sound file but got Invalid data"),
    "playlist": (
        content("a.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"),
        "expected a sound file but got",
    ),
    "wav header only": (truncated(sound("a.wav", 1.0), 0.001), "expected"),
    "truncated m4a": (truncated(sound("a.m4a", 2.0, 44_100, 2, "aac"), 0.5), "expected a sound file but got"),
    "one sample": (samples(np.ones((1, 1))), r"expected at least 0\.1 s of sound but got 6\.25e-05 s"),
    "too short": (sound("a.wav", 0.05), r"expected at least 0\.1 s of sound but got 0\.05 s"),
    "NaN": (samples(np.full((1, 16_000), np.nan)), "expected finite samples but got NaN or infinity"),
    "infinity": (samples(np.full((1, 16_000), np.inf)), "expected finite samples but got NaN or infinity"),
    "video without sound": (silent_video, "expected a file with sound but got one without an audio stream"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", GOOD)
def test_sounds_that_work(tmp_path: Path, name: str) -> None:
    make, seconds = GOOD[name]
    waveform = load_audio(make(tmp_path))
    assert waveform.dtype == torch.float32 and waveform.ndim == 1
    assert torch.isfinite(waveform).all()
    assert abs(frame_count(len(waveform)) - 30 * seconds) <= 3  # lossy formats pad to whole packets


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", BAD)
def test_sounds_that_do_not(tmp_path: Path, name: str) -> None:
    make, text = BAD[name]
    path = make(tmp_path)
    with pytest.raises(MediaError, match=text) as caught:
        load_audio(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    assert str(caught.value).endswith(".")


def test_silence_is_a_sound(tmp_path: Path) -> None:
    waveform = load_audio(samples(np.zeros((1, 16_000)))(tmp_path))
    assert is_silent(waveform) and frame_count(len(waveform)) == 30


@pytest.mark.parametrize(
    ("rate", "channels"), [(8_000, 1), (192_000, 1), (11_025, 2), (48_000, 6), (16_000, 3)]
)
def test_tensors_of_any_rate_and_channels(rate: int, channels: int) -> None:
    speech = to_speech(torch.from_numpy(tone(0.5, rate, channels)), rate)
    assert abs(speech.shape[0] - 8_000) <= 1
    assert 0.02 < speech.std() < 0.3


HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("happy", EmotionPlan(((0.0, HAPPY),))),
        (" HAPPY ", EmotionPlan(((0.0, HAPPY),))),
        ("3", EmotionPlan(((0.0, HAPPY),))),
        ("auto", EmotionPlan(auto=True)),
        ("0 happy, 3.5 sad", EmotionPlan(((0.0, HAPPY), (3.5, SAD)))),
        ("0s: happy; 3.5s: 6;", EmotionPlan(((0.0, HAPPY), (3.5, SAD)))),
        ("0 happy\n3.5 sad\n", EmotionPlan(((0.0, HAPPY), (3.5, SAD)))),
        ("0 s happy, 3.5 s sad", EmotionPlan(((0.0, HAPPY), (3.5, SAD)))),
        ("1 sec happy, 2 seconds: sad", EmotionPlan(((1.0, HAPPY), (2.0, SAD)))),
        ("0 happy, +3 sad", EmotionPlan(((0.0, HAPPY), (3.0, SAD)))),
        ("2 sad", EmotionPlan(((2.0, SAD),))),
        ("0=happy", EmotionPlan(((0.0, HAPPY),))),
        ("0:happy", EmotionPlan(((0.0, HAPPY),))),
        ("0:3, 1:6", EmotionPlan(((0.0, HAPPY), (1.0, SAD)))),
        ("0:00 happy, 1:30.5 sad", EmotionPlan(((0.0, HAPPY), (90.5, SAD)))),
        ("0:00: 3; 1:02:03 = sad", EmotionPlan(((0.0, HAPPY), (3723.0, SAD)))),
        ("0 happy、1 sad", EmotionPlan(((0.0, HAPPY), (1.0, SAD)))),
        ("０　ｈａｐｐｙ，３．５：ｓａｄ；", EmotionPlan(((0.0, HAPPY), (3.5, SAD)))),
    ],
)
def test_emotions_that_work(text: str, plan: EmotionPlan) -> None:
    assert parse_plan(text) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected an emotion but got ''.*Write something like 0 happy, 3\.5 sad, or leave it out"),
        (" , ;", r"expected an emotion but got ' , ;'.*Write something like 0 happy, 3\.5 sad, or leave"),
        ("0,5 happy", r"but got '0' \(emotion\)\. Write 0\.5 with a point: a comma begins the next emotion"),
        ("0:30,5 sad", r"but got '0:30' \(emotion\)\. Write 0:30\.5 with a point: a comma begins the next"),
        ("0 sad, 3,5 s happy", r"but got '3' \(emotion\)\. Write 3\.5 with a point"),
        ("9" * 5_000 + ",5 sad", r"but got '9{60,200}\.\.\.' \(emotion\)\. Write it like 0 happy, 3\.5 sad"),
        ("0 sad, 12,25s: happy", r"but got '12' \(emotion\)\. Write 12\.25 with a point"),
        ("0 happy, 2, 3 sad", r"but got '2' \(emotion\)\. Write it like 0 happy, 3\.5 sad"),
        ("0:75 happy", "but got '0:75 happy'"),
        ("0:3 happy", "but got '0:3 happy'"),
        ("0 sad, 0:30", r"but got '0:30' \(emotion\)\. Write it like 0 happy, 3\.5 sad"),
        ("999:00 happy", "expected a second up to 36000 and an emotion but got '999:00 happy'"),
        ("bored", r"expected an emotion but got bored \(emotion\)\. Use a name or number of: 0 angry"),
        ("9", "expected an emotion but got 9"),
        ("happy sad", "expected a second up to 36000 and an emotion but got 'happy sad'"),
        ("happy 3", "expected a second up to 36000 and an emotion but got 'happy 3'"),
        ("-1 happy", "expected a second up to 36000 and an emotion but got '-1 happy'"),
        ("nan happy", "expected a second up to 36000 and an emotion but got 'nan happy'"),
        ("inf happy", "expected a second up to 36000 and an emotion but got 'inf happy'"),
        ("0 happy 3 sad", "expected a second up to 36000 and an emotion but got '0 happy 3 sad'"),
        ("0 happy, 2", "expected a second up to 36000 and an emotion but got '2'"),
        ("3 happy, 1 sad", "expected times that rise but got 3, 1"),
        ("1 happy, 1 sad", "expected times that rise but got 1, 1"),
        ("0 happy, 1 auto", "expected an emotion but got auto"),
        ("1e308 happy", "expected a second up to 36000 and an emotion but got '1e308 happy'"),
        ("9" * 5_000, r"expected an emotion but got 9{60,200}\.\.\. \(emotion\)"),
        ("9" * 5_000 + " happy", r"expected a second up to 36000 and an emotion but got '9{60,200}\.\.\.'"),
        ("0 happy, " * 10**6, "expected at most 10000 letters of emotions but got 9000000"),
        ("\x1b[2J", r"expected an emotion but got \\x1b\[2J"),
    ],
)
def test_emotions_that_do_not(text: str, message: str) -> None:
    with pytest.raises(EmotionError, match=message) as caught:
        parse_plan(text)
    assert len(str(caught.value)) < 400


def test_an_error_names_the_input_that_it_is_about() -> None:
    for text in ("", "0 hapy", "0,5 happy", "1 sad, 0 happy", "0 happy," * 10_000):
        with pytest.raises(EmotionError, match=r"\(emotions\)"):
            parse_plan(text, "emotions")


def test_where_a_long_sound_ends_is_told_in_plain_seconds() -> None:
    speech = torch.ones(1).expand(1200 * SAMPLE_RATE + SAMPLE_RATE // 2)
    told, _weak = check_sources(Sources(speech, parse_plan("0 happy, 9999 sad"), folder=Path()))
    assert "than 9999: the sound ends at 1200.5 s, and" in told


def test_an_emotion_after_the_end_changes_nothing() -> None:
    assert parse_plan("0 happy, 99 sad").per_frame(30).unique().tolist() == [HAPPY]
    assert parse_plan("0 happy, 0.5 sad").per_frame(30).tolist() == [HAPPY] * 15 + [SAD] * 15


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (content("m.safetensors", b""), "got an empty file"),
        (content("m.safetensors", b"<html><body>Login"), "a web page"),
        (content("m.safetensors", b"version https://git-lfs.github.com/spec/v1\n" * 3), "Git LFS pointer"),
        (content("m.safetensors", b"PK\x03\x04" + bytes(100)), "a PyTorch pickle"),
        (content("m.pt", b"x"), "got a pickle, which can run code"),
        (lambda folder: folder / "m.safetensors", "expected a readable .safetensors file"),
    ],
    ids=["empty", "web page", "pointer", "pickle renamed", "pickle", "missing"],
)
def test_model_files_that_are_none(tmp_path: Path, make: Make, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_emotion2vec(make(tmp_path))
