"""The command line as values: every option checked where it is read, before anything heavy is imported."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from memo_avatar.clips.placement import MEMORY_PLACES
from memo_avatar.clips.solvers import SOLVERS
from memo_avatar.clips.values import PASTS, Past
from memo_avatar.files.foreign import shown
from memo_avatar.files.limits import MAX_MESSAGE
from memo_avatar.inputs import GUIDANCE_SCALE, SIZE, Box
from memo_avatar.portrait.face_crop import DEFAULT_MARGIN, check_margin, parse_box
from memo_avatar.portrait.faces import FACE_MODES, FaceMode
from memo_avatar.portrait.images import Fit, check_size
from memo_avatar.timing import FPS
from memo_avatar.video.retime import RATES
from memo_avatar.voice.emotions import AUTO, EMOTIONS, EmotionPlan, parse_plan
from teacache_core.config import PRESET_DECIBELS, PRESETS, Target

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = ROOT.parent.parent if ROOT.parent.name == "custom_nodes" else None
"""The ComfyUI that the pack lies in."""

DEMO_CHECKPOINT = ROOT / "demo" / "checkpoint"
DTYPES = ("float32", "bfloat16", "float16")
MAX_STEPS = 1000
EPILOG = """\
Where no face is found the zero vector stands in for its embedding, as upstream does.
`teacache_memo.py models` lists the model files, `models download` fetches them; `convert SRC DST` writes a
checkpoint folder as one file, `convert-emotion model.pt` emotion2vec's. Ctrl-C keeps every finished
clip, and the same command again goes on after it; `unfinished` lists what nobody went on with. `batch` makes
many videos, `doctor` says what a bug report needs.
"""

Value = TypeVar("Value")


class CommandError(ValueError):
    """A user's input that the command can't work with. The text is the whole message."""


@dataclass(frozen=True)
class Speaker:
    """One of several in the picture: the face, by number or place, what it says, and from which second on."""

    face: int | Box
    audio: Path
    start: float = 0.0


@dataclass(frozen=True)
class VideoOptions:
    """What one video was asked for. None: the checkpoint's or the machine's default."""

    image: Path
    audio: Path | None  # None where several speak
    output: Path
    checkpoint: Path
    vae: Path | None
    wav2vec2: Path | None
    face_embedding: Path | None
    steps: int
    solver: str
    guidance_scale: float | None
    seed: int
    emotion: EmotionPlan
    device: str | None
    dtype: str | None
    memory: str
    size: tuple[int, int] | None
    fit: Fit
    max_seconds: float | None
    rel_l1_thresh: float
    target_speedup: float | None
    target: Target
    calibrate: Path | None
    calibration: Path | None
    cache_report: Path | None
    vocals: Path | None
    separate_vocals: bool
    face: FaceMode | None
    face_index: int
    face_models: Path | None
    face_box: Box | None
    face_crop: float | None
    paste_back: bool
    fps: int
    guard_drift: bool
    past: Past
    restart: bool
    codec: str = "h264"
    speakers: tuple[Speaker, ...] = ()

    def __post_init__(self) -> None:
        if self.past == "latents" and self.guard_drift:
            raise CommandError(
                "expected frames for --guard-drift to hold but got --past latents. Leave one of them out."
            )

    @property
    def recordings(self) -> list[tuple[Path, float]]:
        """What is heard in the video, and each from which second on."""
        if self.audio is not None:
            return [(self.audio, 0.0)]
        return [(speaker.audio, speaker.start) for speaker in self.speakers]

    @property
    def inputs(self) -> list[Path]:
        """The user's files that are read, and that no output may replace."""
        voices = [path for path, _ in self.recordings]
        given = (self.image, *voices, self.vocals, self.face_embedding, self.calibration)
        return [path for path in given if path is not None]


@dataclass(frozen=True)
class ConvertOptions:
    """What one conversion was asked for."""

    src: Path
    dst: Path
    dtype: str


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and ours to print."""

    def error(self, message: str) -> NoReturn:
        text = shown(message, MAX_MESSAGE)
        raise CommandError(f"{text} See --help." if text.endswith(".") else f"{text}. See --help.")


def parse_video(arguments: Sequence[str]) -> VideoOptions:
    """`--image P --audio A --output V.mp4` and all that goes with it."""
    values = vars(_video_parser().parse_args(arguments))
    values["speakers"] = tuple(values["speakers"])
    options = VideoOptions(**values)
    if options.speakers:
        _check_alone(options)
    return options


def parse_convert(arguments: Sequence[str]) -> ConvertOptions:
    """`SRC DST --dtype bfloat16`."""
    parser = Parser(
        prog="teacache_memo.py convert",
        allow_abbrev=False,
        description="Write a MEMO checkpoint folder as one .safetensors file.",
    )
    parser.add_argument("src", type=Path, metavar="SRC", help="folder in upstream's layout, or a single file")
    parser.add_argument("dst", type=Path, metavar="DST", help="the .safetensors file to write")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="default: %(default)s")
    return ConvertOptions(**vars(parser.parse_args(arguments)))


def _video_parser() -> Parser:
    parser = Parser(
        prog="teacache_memo.py",
        allow_abbrev=False,
        description="A portrait and a voice in, a talking video out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_video_options(parser)
    return parser


def add_video_options(parser: argparse.ArgumentParser, *, for_batch: bool = False) -> None:
    """Every option of a video. For a batch they are defaults: none is required, and rows name the outputs."""
    add = parser.add_argument
    add("--image", type=Path, required=not for_batch, metavar="P", help="portrait, any picture format")
    voices = parser.add_mutually_exclusive_group(required=not for_batch)
    voices.add_argument("--audio", type=Path, metavar="A", help="voice, any sound or video format")
    if not for_batch:
        voices.add_argument("--speaker", dest="speakers", action="append", type=checked(parse_speaker),
            default=[], metavar="FACE=A", help="instead, once for each of several in the picture: a face as "
            "in --face-index or --face-box, and its voice, which FACE@S=A begins at second S")  # fmt: skip
        add("--output", type=Path, required=True, metavar="V.mp4",
            help="video to write: .mp4, .mov or .mkv; .gif, .webp, .apng or frames/%%05d.png with the sound "
            "in a .wav beside it")  # fmt: skip
        add("--codec", choices=("h264", "prores"), default="h264",
            help="prores: for editors, in a .mov (default: %(default)s)")  # fmt: skip
    add("--steps", type=checked(_steps), default=20, help="sampling steps per clip (default: %(default)s)")
    add("--solver", choices=tuple(SOLVERS), default="euler",
        help="euler as upstream, or second order, nearer to many steps (default: %(default)s)")  # fmt: skip
    add("--guidance-scale", type=checked(_guidance), metavar="G",
        help=f"1 or less halves the work (default: the checkpoint's, else {GUIDANCE_SCALE})")  # fmt: skip
    add("--seed", type=checked(_seed), default=42, help="of the noise (default: %(default)s)")
    add("--size", type=checked(_size), metavar="N|WxH",
        help=f"of the video, divisible by 8 (default: the checkpoint's, else {SIZE})")  # fmt: skip
    add("--fit", choices=("crop", "letterbox"), default="crop",
        help="how a picture of another shape fits (default: %(default)s)")  # fmt: skip
    add("--max-seconds", type=checked(_positive), metavar="S", help="stop after this much of the voice")
    add("--fps", type=int, choices=RATES, default=FPS,
        help="frames per second of the video (default: %(default)s, MEMO's own)")  # fmt: skip
    add("--guard-drift", action="store_true",
        help="for long videos: hold what each clip takes over from the one before to the portrait's colours "
        "and sharpness (off: as published)")  # fmt: skip
    add("--past", choices=PASTS, default="frames",
        help="what a clip begins from: the frames of the one before, encoded again as published, or their "
        "latents, which is less work and another video (default: %(default)s)")  # fmt: skip
    add("--restart", action="store_true", help="begin anew where an earlier run was stopped")
    _add_face_options(parser.add_argument_group("face"))
    _add_voice_options(parser.add_argument_group("voice"))
    _add_model_options(parser.add_argument_group("models"))
    _add_cache_options(parser.add_argument_group("step cache (off by default)"))


def _add_face_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--face-crop", nargs="?", type=checked(_margin), const=DEFAULT_MARGIN, metavar="MARGIN",
        help="show the model a square around the face, with a margin on each side in faces "
        f"({DEFAULT_MARGIN} if left out)")  # fmt: skip
    add("--paste-back", action="store_true",
        help="blend the moving face back into the whole picture (implies --face-crop)")  # fmt: skip
    add("--face-box", type=checked(parse_box), metavar="L,T,R,B",
        help="where the face is, in pixels (default: detected, else the middle)")  # fmt: skip
    add("--face", choices=FACE_MODES,
        help="auto warns where it finds none, require stops (default: auto; none with the demo)")  # fmt: skip
    add("--face-index", type=checked(_face_index), default=0, metavar="N",
        help="which face, counted from the largest (default: %(default)s)")  # fmt: skip
    add("--face-models", type=Path, metavar="DIR",
        help="folder of SCRFD and ArcFace (default: face_analysis/ of the checkpoint)")  # fmt: skip
    add("--face-embedding", type=Path, metavar="FILE",
        help=".safetensors with the face's embedding, instead of looking for one")  # fmt: skip


def _add_voice_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--emotion", type=checked(parse_plan), default="neutral", metavar="NAME",
        help=f"{', '.join(EMOTIONS)}, or 0 to {len(EMOTIONS) - 1}; over time: '0 happy, 3.5 sad'; {AUTO}: "
        "as heard. The published preview model follows emotions weakly (default: %(default)s)")  # fmt: skip
    add("--vocals", type=Path, metavar="FILE",
        help="the same voice without music: the model listens to it, the video keeps --audio")  # fmt: skip
    add("--separate-vocals", action="store_true",
        help="take the vocals out of --audio with Kim_Vocal_2.onnx; needs onnxruntime")  # fmt: skip


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--checkpoint", type=Path, default=DEMO_CHECKPOINT, metavar="PATH",
        help="MEMO folder or single file (default: the bundled demo model)")  # fmt: skip
    add("--vae", type=Path, metavar="DIR", help="diffusers VAE folder (default: vae/ of the checkpoint)")
    add("--wav2vec2", type=Path, metavar="DIR",
        help="Hugging Face wav2vec2 folder (default: wav2vec2/ of the checkpoint)")  # fmt: skip
    add("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add("--dtype", choices=DTYPES, help="of the computation (default: bfloat16 on a GPU, else float32)")
    add("--memory", choices=MEMORY_PLACES, default="auto",
        help="where the memory of past frames lives: on the device or, slower, in RAM "
        "(default: auto, as much as fits on the device)")  # fmt: skip


def _add_cache_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--rel-l1-thresh", "--rel_l1_thresh", type=checked(_not_negative), default=0.0, metavar="T",
        help="TeaCache's: 0.09, 0.15, 0.25 compute 1.5, 2, 2.5 times fewer steps; 0 is off")  # fmt: skip
    add("--target-speedup", type=checked(_speedup), metavar="N",
        help="compute N times fewer steps, those that matter most; or by name, with the PSNR to the "
        "video of all 20 steps on the demo: "
        + ", ".join(f"{name} ({PRESETS[name]:g}x, {near} dB)" for name, near in PRESET_DECIBELS.items()),
    )  # fmt: skip
    add("--target", choices=("same", "converged"), default="same",
        help="what the faster video should be near to: the same video without a cache, or the one of many "
        "more steps (default: %(default)s)")  # fmt: skip
    add("--calibrate", type=Path, metavar="FILE", help="compute every step and write what they teach to FILE")
    add("--calibration", type=Path, metavar="FILE",
        help="what --calibrate wrote (default: calibration.json of the checkpoint, if any)")  # fmt: skip
    add("--cache-report", type=Path, metavar="FILE", help="what was skipped and why: .json, .png or .txt")


def checked(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """Let argparse show a reader's own message, after the option's name."""

    def convert(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def whole(text: str, low: int, high: int, advice: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"expected a whole number from {low} to {high} but got {text}. {advice}")
    return value


def number(text: str, is_valid: Callable[[float], bool], expected: str, advice: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and is_valid(value)):
        raise ValueError(f"expected {expected} but got {text}. {advice}")
    return value


def parse_speaker(text: str) -> Speaker:
    """`FACE=AUDIO` or `FACE@SECONDS=AUDIO`, the face as a number or `left,top,right,bottom`."""
    where, equals, audio = text.partition("=")
    face, at, start = where.partition("@")
    if not equals or not audio:
        raise ValueError(
            f"expected FACE=AUDIO but got {text}. Write 0=speech.wav, or 400,300,700,640=speech.wav."
        )
    return Speaker(
        parse_box(face) if "," in face else _face_index(face),
        Path(audio),
        number(start, lambda value: value >= 0, "a start of 0 or more seconds", "Use 4.5.") if at else 0.0,
    )


def _check_alone(options: VideoOptions) -> None:
    """Several speakers leave no place for what is about the only one."""
    given = {
        "--face-index": options.face_index != 0,
        "--face-box": options.face_box is not None,
        "--face-embedding": options.face_embedding is not None,
        "--face none": options.face == "none" and any(isinstance(one.face, int) for one in options.speakers),
        "--vocals": options.vocals is not None,
        "--separate-vocals": options.separate_vocals,
        "--calibrate": options.calibrate is not None,
        "--cache-report": options.cache_report is not None,
    }
    for name, is_given in given.items():
        if is_given:
            raise CommandError(
                f"expected no {name} with --speaker but got one: it is about one. Leave it out."
            )


def _steps(text: str) -> int:
    return whole(text, 1, MAX_STEPS, "Use 20, as upstream does.")


def _seed(text: str) -> int:
    return whole(text, 0, 2**63 - 1, "Use any number, such as 42.")


def _face_index(text: str) -> int:
    return whole(text, 0, 999, "0 is the largest face.")


def _margin(text: str) -> float:
    margin = number(text, lambda value: value >= 0, "a margin of 0 or more", f"Use {DEFAULT_MARGIN}.")
    check_margin(margin)
    return margin


def _guidance(text: str) -> float:
    return number(
        text, lambda value: value >= 0, "a number of 0 or more", f"Use {GUIDANCE_SCALE}, as upstream does."
    )


def _positive(text: str) -> float:
    return number(text, lambda value: value > 0, "seconds above 0", "Leave it out for the whole voice.")


def _not_negative(text: str) -> float:
    return number(text, lambda value: value >= 0, "a threshold of 0 or more", "Use 0.15 for a start.")


def _speedup(text: str) -> float:
    if text in PRESETS:
        return PRESETS[text]
    names = ", ".join(PRESETS)
    return number(text, lambda value: value >= 1, f"a factor of 1 or more, or {names}", "Use 2 for a start.")


def _size(text: str) -> tuple[int, int]:
    """`N` or `WxH` -> (width, height)."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise ValueError(f"expected N or WxH in pixels but got {text}. Use {SIZE} or 640x384.")
    width, height = int(sides[0]), int(sides[-1])
    check_size(width, height)
    return width, height
