"""The work of `benchmarks.caching`: videos of the demo model, measured one by one in several processes.

Every finished video and measurement is kept in a folder, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.caching_methods import STEPS, Learned, Lessons, Method, euler, methods
from benchmarks.fidelity import psnr, ssim
from demo.calibrate import CLIPS as CALIBRATION_CLIPS
from demo.calibrate import VIDEOS as CALIBRATION_VIDEOS
from demo.calibrate import record_others, recording_cache
from demo.evaluate import FRAMES, Case, DemoModel, held_out_cases
from demo.meters import correlation, mouth_opening
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import Portrait, Voice
from teacache_core import Calibration

CONVERGED_STEPS = 100


@dataclass(frozen=True)
class Subject:
    """A held-out video to make, its audio already encoded."""

    case: Case
    portrait: Portrait
    voice: Voice
    seed: int


class Bench:
    """The demo model, its subjects, and the folder where finished work is kept."""

    def __init__(self, checkpoint: Path, videos: int, clips: int, folder: Path) -> None:
        self.demo, self.folder = DemoModel.load(checkpoint), folder
        cases = held_out_cases(videos, clips, self.demo.size)
        self.subjects = [make_subject(self.demo, case, seed) for seed, case in enumerate(cases)]
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def learned(self) -> Learned:
        """What other people's videos teach; recorded once."""
        path = self.folder / "learned.pt"
        if not path.exists():
            learned = learn(self.demo)
            torch.save((learned.calibration.to_json(), learned.traces), path)
            return learned
        calibration, traces = torch.load(path, weights_only=False)  # this program's own file
        return Learned(Calibration.from_json(calibration), traces)

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
        path = self.folder / f"euler_{steps}_{subject.seed}.pt"
        if not path.exists():
            frames, _, _, seconds = self.video(subject, euler(steps))
            torch.save((frames, seconds), path)
        return torch.load(path)

    def measure(self, method: Method, subject: Subject) -> dict[str, float]:
        """One video against both references; evaluations per clip. From the folder if it is there."""
        path = self.folder / f"{slug(method.name)}_{subject.seed}.json"
        if not path.exists():
            path.write_text(json.dumps(self._measure(method, subject)))
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
    """Record other people's videos in full."""
    lessons = Lessons(recording_cache(demo))
    record_others(demo, CALIBRATION_VIDEOS, CALIBRATION_CLIPS, lessons.wrap)
    return lessons.learned()


_worker: Bench | None = None


def start_worker(checkpoint: Path, videos: int, clips: int, folder: Path) -> None:
    """A process of one thread: threads of one process wait for each other after every small operation."""
    global _worker
    torch.set_num_threads(1)
    _worker = Bench(checkpoint, videos, clips, folder)


def worker() -> Bench:
    """This process's bench."""
    if _worker is None:
        raise RuntimeError("Expected start_worker first but got a task (benchmark). Use it as initializer.")
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
