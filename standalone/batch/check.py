"""Every row looked at before anything is made: its options, its files, what it takes. No model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from memo_avatar.checkpoint.companions import home
from memo_avatar.checkpoint.load import open_checkpoint
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.files.published_models import SEPARATOR
from memo_avatar.inputs import VAE_STRIDE
from memo_avatar.portrait.images import open_image
from memo_avatar.portrait.prepare import FaceOptions, prepare_portrait
from memo_avatar.timing import clip_spans
from memo_avatar.video.delivery import Delivery
from memo_avatar.video.streams import expected_bytes
from memo_avatar.voice.emotion_files import find_emotion_files
from memo_avatar.voice.sound import fit_length
from memo_avatar.voice.sound_files import load_audio

from ..arguments import CommandError, VideoOptions
from ..caching import plan_cache
from ..face_inputs import load_face_embedding
from ..failures import fault_of, message_of
from ..models import ModelFiles
from ..video.job_key import JobKeys
from .arguments import RowParser
from .manifest import ENDING, Problem, Row

CLIP = SamplingSettings().frames_per_clip


@dataclass(frozen=True)
class Price:
    """What a video takes: its frames, the clips and evaluations of the net behind them, bytes on the disk."""

    frames: int
    clips: int
    evaluations: int
    nbytes: int
    cost: float  # in pixels of latents that are denoised, skipped steps left out


@dataclass(frozen=True)
class Job:
    """A row that can be made. ``key`` is what its video is to have in it."""

    row: Row
    options: VideoOptions
    key: str
    price: Price


@dataclass
class Checked:
    """A manifest's rows: those that can be made, those whose files won't do, and what is wrong as written."""

    jobs: list[Job] = field(default_factory=list[Job])
    unusable: list[Problem] = field(default_factory=list[Problem])
    problems: list[Problem] = field(default_factory=list[Problem])


@dataclass(frozen=True)
class _Model:
    files: ModelFiles
    embedding: int  # numbers in a face's embedding


class Checker:
    """Looks at row after row; what many of them share is read once."""

    def __init__(self) -> None:
        self._keys = JobKeys()
        self._models: dict[tuple[Path | None, ...], _Model] = {}
        self._sounds: dict[tuple[Path, float | None], int] = {}

    def job(self, row: Row, options: VideoOptions) -> Job:
        """The row's job, or what is wrong with its files, in any of the command's errors."""
        model = self._model(options)
        size = options.size or (model.files.settings.size, model.files.settings.size)
        plan_cache(options, model.files)
        delivered = self._portrait(options, size, model.embedding)
        samples = self._voice(options)
        delivery = Delivery.of_voice(samples, options.fps)
        price = _price(options, model.files, size, delivered, delivery)
        return Job(row, options, self._keys.key(options, model.files), price)

    def _model(self, options: VideoOptions) -> _Model:
        name = (options.checkpoint, options.vae, options.wav2vec2)
        if name not in self._models:
            files = ModelFiles.find(*name)
            self._models[name] = _Model(
                files, open_checkpoint(files.checkpoint).config.image_proj.embedding_dim
            )
        return self._models[name]

    def _portrait(self, options: VideoOptions, size: tuple[int, int], width: int) -> tuple[int, int]:
        """(width, height) of the video's frames."""
        image = open_image(options.image)
        embedding = load_face_embedding(options.face_embedding, width)
        is_cut = options.paste_back or options.face_crop is not None
        fit = "face" if is_cut and options.face_box else options.fit
        face = FaceOptions(mode="none", box=options.face_box, embedding=embedding)
        prepare_portrait(image, size, fit, face, width, str(options.image))
        return image.size if options.paste_back else size

    def _voice(self, options: VideoOptions) -> int:
        """Samples of the recording that counts."""
        (audio, _start), *_ = options.recordings  # the only one: rows have no speakers
        samples = self._sound(audio, options.max_seconds)
        folder = home(options.checkpoint)
        if options.vocals is not None and options.separate_vocals:
            raise CommandError("expected --vocals or --separate-vocals but got both. Leave one out.")
        if options.vocals is not None:
            fit_length(load_audio(options.vocals, max_seconds=options.max_seconds), samples, "vocals")
        if options.separate_vocals and not (folder / SEPARATOR).is_file():
            raise CommandError(
                f"expected the vocal separator but got no such file ({folder / SEPARATOR}). "
                "Run: python teacache_memo.py models download vocals"
            )
        if options.emotion.auto:
            find_emotion_files(folder)
        return samples

    def _sound(self, path: Path, max_seconds: float | None) -> int:
        name = (path, max_seconds)
        if name not in self._sounds:
            self._sounds[name] = load_audio(path, max_seconds=max_seconds).shape[0]
        return self._sounds[name]


def check_rows(
    rows: Iterable[Row], given: RowParser, folder: Path, on_row: Callable[[], None] = lambda: None
) -> Checked:
    """All rows. ``folder`` is where the videos go."""
    checked, checker = Checked(), Checker()
    parsed: list[tuple[Row, VideoOptions]] = []
    for row in rows:
        try:
            options = given.parse(row.cells, folder / (row.id + ENDING))
        except CommandError as error:
            checked.problems.append(Problem(row.line, row.id, str(error)))
            continue
        parsed.append((row, options))
        try:
            checked.jobs.append(checker.job(row, options))
        except Exception as error:
            if fault_of(error) == "ours":
                raise
            checked.unusable.append(Problem(row.line, row.id, message_of(error)))
        on_row()
    checked.problems += _clashes(parsed)
    return checked


def _clashes(rows: Sequence[tuple[Row, VideoOptions]]) -> list[Problem]:
    """Outputs that are written twice, or that are an input of any row, be it one that can't be made."""
    inputs = {path.resolve() for _, options in rows for path in options.inputs}
    written: dict[Path, str] = {}
    problems: list[Problem] = []
    for row, options in rows:
        for path in _outputs(options):
            what = "an input" if path.resolve() in inputs else written.get(path.resolve())
            if what is not None:
                message = f"expected an output of its own but got {what} ({path}). Choose another name."
                problems.append(Problem(row.line, row.id, message))
            written.setdefault(path.resolve(), f"that of {row.id!a:.100}")
    return problems


def _outputs(options: VideoOptions) -> list[Path]:
    return [path for path in (options.output, options.cache_report, options.calibrate) if path is not None]


def _price(
    options: VideoOptions,
    files: ModelFiles,
    size: tuple[int, int],
    delivered: tuple[int, int],
    delivery: Delivery,
) -> Price:
    clips = len(clip_spans(delivery.generated, CLIP))
    evaluations = clips * options.steps
    given = options.guidance_scale
    guidance = files.settings.guidance_scale if given is None else given
    area = size[0] * size[1] // VAE_STRIDE**2
    cost = evaluations * (2 if guidance > 1 else 1) * area / (options.target_speedup or 1)
    return Price(delivery.total, clips, evaluations, expected_bytes(delivery.total, *delivered), cost)
