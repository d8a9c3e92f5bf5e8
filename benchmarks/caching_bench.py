"""The work of `benchmarks.caching`: videos of the demo model, measured one by one in several processes.

Every reference video and every measurement is kept in a folder, so a run that was stopped goes on where it
was. References outlive changes of the caches; measurements outlive changes of what they do not use.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.caching_methods import STEPS, Learned, Lessons, Method, euler, methods
from benchmarks.fidelity import psnr, ssim
from benchmarks.rivals import Trace
from demo.calibrate import CLIPS as CALIBRATION_CLIPS
from demo.calibrate import VIDEOS as CALIBRATION_VIDEOS
from demo.calibrate import learn_pull, record_others, recording_cache
from demo.evaluate import FRAMES, Case, DemoModel, held_out_cases
from demo.meters import correlation, mouth_opening
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.files.disk import replacing
from memo_avatar.inputs import Portrait, Voice
from teacache_core import Calibration, Fingerprint

CONVERGED_STEPS = 100
ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = Path("diffusion_net") / "diffusion_pytorch_model.safetensors"
MODEL_CODE = ("memo_avatar/model", "memo_avatar/clips", "memo_avatar/voice")
CACHE_CODE = ("teacache_core",)
"""A changed rival needs its rows deleted by hand: adding one must not throw away all the others."""


@dataclass(frozen=True)
class Run:
    """What is measured, and where finished work is kept."""

    checkpoint: Path
    videos: int
    clips: int
    guidance_scale: float
    folder: Path

    def references(self) -> Path:
        """The folder of plain videos: named by checkpoint, length, guidance and the code that makes them."""
        weights = Fingerprint.of(load_file(self.checkpoint / WEIGHTS))
        made_of = [weights.to_json(), self.clips, self.guidance_scale]
        return self.folder / digest("references", made_of, MODEL_CODE)

    def rows(self) -> Path:
        """The folder of measurements: the caches' code counts as well."""
        return self.references() / digest("rows", [], CACHE_CODE)


def digest(name: str, values: list[Any], code: Sequence[str]) -> str:
    """A folder's name that changes with values and with any line of code."""
    found = hashlib.sha256(json.dumps(values).encode())
    for part in code:
        for source in sorted((ROOT / part).rglob("*.py")):
            found.update(source.read_bytes())
    return f"{name}_{found.hexdigest()[:10]}"


def save(path: Path, value: Any) -> None:
    """For `torch.load`; a reader never finds half of it."""
    with replacing(path) as part:
        torch.save(value, part)


@dataclass(frozen=True)
class Subject:
    """A held-out video to make, its audio already encoded."""

    case: Case
    portrait: Portrait
    voice: Voice
    seed: int


class Bench:
    """The demo model, its subjects, and the folder where finished work is kept."""

    def __init__(self, run: Run) -> None:
        self.demo = replace(DemoModel.load(run.checkpoint), guidance_scale=run.guidance_scale)
        cases = held_out_cases(run.videos, run.clips, self.demo.size)
        self.subjects = [make_subject(self.demo, case, seed) for seed, case in enumerate(cases)]
        self.references, self.rows = run.references(), run.rows()
        for folder in (self.references, self.rows):
            folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def learned(self) -> Learned:
        """What other people's videos teach; recorded once."""
        path = self.references / "learned.pt"
        if not path.exists():
            learned = learn(self.demo)
            traces = [vars(trace) for trace in learned.traces]
            save(path, (learned.calibration.to_json(), traces))
            return learned
        calibration, traces = torch.load(path, weights_only=True)
        return Learned(Calibration.from_json(calibration), [Trace(**trace) for trace in traces])

    @cached_property
    def methods(self) -> list[Method]:
        """Every row."""
        return methods(self.learned)

    def video(self, subject: Subject, method: Method) -> tuple[Tensor, int, int, float]:
        """(frames, evaluations asked for, computed, seconds of the processor) of one video."""
        wrap, counted = method.start()
        settings = SamplingSettings(
            steps=method.steps, guidance_scale=self.demo.guidance_scale, solver=method.solver
        )
        began = time.process_time()
        clips = generate_clips(
            self.demo.models,
            self.demo.vae,
            subject.portrait,
            subject.voice,
            settings,
            seed=subject.seed,
            wrap_denoiser=wrap,
        )
        frames = torch.cat([clip.frames for clip in clips])
        return frames, *counted(), time.process_time() - began

    def reference(self, subject: Subject, steps: int) -> tuple[Tensor, float]:
        """(frames, seconds) of a plain Euler video, made once."""
        path = self.references / f"euler_{steps}_{subject.seed}.pt"
        if not path.exists():
            frames, _, _, seconds = self.video(subject, euler(steps))
            save(path, (frames, seconds))
        return torch.load(path, weights_only=True)

    def measure(self, method: Method, subject: Subject) -> dict[str, float]:
        """One video against both references; evaluations per clip. From the folder if it is there."""
        path = self.rows / f"{slug(method.name)}_{subject.seed}.json"
        if not path.exists():
            measured = json.dumps(self._measure(method, subject))
            with replacing(path) as part:
                part.write_text(measured, encoding="utf-8")
        return json.loads(path.read_text())

    def _measure(self, method: Method, subject: Subject) -> dict[str, float]:
        reference, seconds = self.reference(subject, STEPS)
        converged, _ = self.reference(subject, CONVERGED_STEPS)
        clips = -(-len(reference) // FRAMES)
        frames, asked, computed = reference, 0, STEPS * clips
        if method.name != euler(STEPS).name:
            frames, asked, computed, seconds = self.video(subject, method)
        mouth = subject.case.mouth[: len(frames)]
        return {
            "asked": asked / clips,
            "computed": computed / clips,
            "seconds": seconds,
            "psnr": psnr(frames, reference),
            "psnr_converged": psnr(frames, converged),
            "ssim": ssim(frames, reference),
            "lip_sync_loss": correlation(mouth_opening(reference), mouth)
            - correlation(mouth_opening(frames), mouth),
        }


def make_subject(demo: DemoModel, case: Case, seed: int) -> Subject:
    """Encode the audio of a case."""
    portrait, voice = demo.inputs(case.portrait, case.waveform, case.emotion)
    return Subject(case, portrait, voice, seed)


def slug(name: str) -> str:
    """A name for files."""
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")


def learn(demo: DemoModel) -> Learned:
    """Record other people's videos in full; then what skipped steps show of the net."""
    lessons = Lessons(recording_cache(demo))
    record_others(demo, CALIBRATION_VIDEOS, CALIBRATION_CLIPS, lessons.wrap)
    learned = lessons.learned()
    taught = learn_pull(demo, learned.calibration, CALIBRATION_VIDEOS, CALIBRATION_CLIPS)
    return replace(learned, calibration=taught)


_worker: Bench | None = None


def start_worker(run: Run) -> None:
    """A process of one thread: threads of one process wait for each other after every small operation."""
    global _worker
    torch.set_num_threads(1)
    _worker = Bench(run)


def worker() -> Bench:
    """This process's bench."""
    if _worker is None:
        raise RuntimeError("expected start_worker first but got a task (benchmark). Use it as initializer.")
    return _worker


def make_reference(task: tuple[int, int]) -> None:
    """(subject, steps): the plain video is in the folder afterwards."""
    subject, steps = task
    worker().reference(worker().subjects[subject], steps)


def method_names() -> list[str]:
    """The rows; thresholds and schedules are learned if they are not there yet."""
    return [method.name for method in worker().methods]


def measure(task: tuple[int, int]) -> dict[str, float]:
    """(method, subject), as numbers of their lists."""
    method, subject = task
    return worker().measure(worker().methods[method], worker().subjects[subject])
