"""Options that can't be meant are told in one line, before anything is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from memo_avatar.voice.emotions import EMOTIONS, EmotionPlan, parse_emotion
from standalone.arguments import DEMO_CHECKPOINT, CommandError, parse_convert, parse_video
from standalone.command import main

FILES = ["--image", "p.png", "--audio", "a.wav", "--output", "v.mp4"]


def test_defaults_are_upstreams() -> None:
    options = parse_video(FILES)
    assert (options.image, options.audio, options.output) == (Path("p.png"), Path("a.wav"), Path("v.mp4"))
    assert (options.steps, options.seed) == (20, 42)
    assert options.emotion == EmotionPlan(((0.0, EMOTIONS.index("neutral")),))
    assert (options.guidance_scale, options.size, options.device, options.dtype) == (None,) * 4
    assert options.rel_l1_thresh == 0
    assert options.checkpoint == DEMO_CHECKPOINT


def test_both_spellings_of_the_threshold() -> None:
    assert parse_video([*FILES, "--rel-l1-thresh", "0.15"]).rel_l1_thresh == 0.15
    assert parse_video([*FILES, "--rel_l1_thresh", "0.15"]).rel_l1_thresh == 0.15


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("640x384", (640, 384)), ("96X128", (96, 128))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_video([*FILES, "--size", text]).size == size


@pytest.mark.parametrize(
    ("text", "number"), [("happy", 3), ("Angry", 0), ("8", 8), ("unknown", 8), ("neutral", 4)]
)
def test_emotions_by_name_and_number(text: str, number: int) -> None:
    assert parse_emotion(text) == number
    assert parse_video([*FILES, "--emotion", text]).emotion.labels == ((0.0, number),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "argument --steps: expected a whole number from 1 to 1000 but got 0. Use 20"),
        (["--steps", "ten"], "argument --steps: expected a whole number from 1 to 1000 but got ten."),
        (
            ["--emotion", "bored"],
            "expected an emotion but got bored (emotion). Use a name or number of: 0 angry,",
        ),
        (["--emotion", "9"], "expected an emotion but got 9 (emotion)."),
        (
            ["--size", "500"],
            "expected a width and height divisible by 8 but got 500x500 (size). Use 504x504.",
        ),
        (["--size", "512x100"], "divisible by 8 but got 512x100 (size). Use 512x104."),
        (["--size", "big"], "expected N or WxH in pixels but got big. Use 512 or 640x384."),
        (["--guidance-scale", "-1"], "expected a number of 0 or more but got -1."),
        (["--guidance-scale", "nan"], "expected a number of 0 or more but got nan."),
        (["--seed", "-1"], "argument --seed: expected a whole number from 0 to"),
        (["--max-seconds", "0"], "expected seconds above 0 but got 0."),
        (["--rel-l1-thresh", "-0.1"], "expected a threshold of 0 or more but got -0.1."),
        (
            ["--target-speedup", "0.5"],
            "expected a factor of 1 or more, or careful, fast, fastest but got 0.5.",
        ),
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILES, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ") and err.count("\n") == 1
    assert message in err


def test_nothing_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "the following arguments are required: --image, --output" in capsys.readouterr().err


@pytest.mark.parametrize("parse", [parse_video, parse_convert])
def test_help_fits_a_terminal(
    parse: Callable[[list[str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    assert stop.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 110


def test_past_latents_and_the_drift_guard_exclude_each_other() -> None:
    assert parse_video(FILES).past == "frames"
    with pytest.raises(CommandError, match="Leave one of them out"):
        parse_video([*FILES, "--past", "latents", "--guard-drift"])
