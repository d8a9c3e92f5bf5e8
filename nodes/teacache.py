"""TeaCache for MEMO: a MODEL that computes fewer steps, a report of it, and calibrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import is_link

from ..memo_avatar.files.disk import write_new
from ..memo_avatar.files.json_file import read_json
from ..memo_avatar.files.names import alternatives, portable_name
from ..memo_avatar.video.drift_picture import add_curve
from ..teacache_core import (
    PRESET_DECIBELS,
    PRESETS,
    CacheSettings,
    Calibration,
    CalibrationError,
    StepCacheConfig,
)
from ..teacache_core.picture import draw, to_tensor
from .boundary.checks import check_values, checked, refusal_of
from .boundary.graph import links_of, model_before, sampler_behind, typed
from .boundary.words import plain_errors, without_folders
from .host.cached_sampling import attach
from .host.folders import CALIBRATIONS, FOLDER, find_calibrations, save_folder
from .host.schema import ADVANCED, schema, show_text
from .host.sockets import MemoReport, VideoReport
from .host.video_inputs import one_step

AUTOMATIC = "automatic"
SPEEDUP, THRESHOLD, CALIBRATE = "target speed-up", "threshold", "calibrate"
NAMED = {f"{name} {speedup:g}x": speedup for name, speedup in PRESETS.items()}


class TeaCacheNode(io.ComfyNode):
    """MODEL -> MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_TeaCache",
            "TeaCache for MEMO",
            "Computes some of the sampler's steps and forecasts the others. Faster, nearly the same video. "
            "Bypassed, or at threshold 0, the model is exactly what it was.",
            inputs=[
                io.Model.Input("model", tooltip="From Load MEMO."),
                io.Combo.Input(
                    "mode",
                    options=[SPEEDUP, *NAMED, THRESHOLD, CALIBRATE],
                    default=SPEEDUP,
                    tooltip="careful, fast, fastest: so many times fewer steps; the best ones are chosen. "
                    f"PSNR to the video of all 20 steps, on the demo: {_decibels()} dB. "
                    "target speed-up: the same by number. threshold: TeaCache's rule. "
                    "calibrate: compute everything and learn, for TeaCache Calibrate.",
                ),
                io.Float.Input(
                    "target_speedup",
                    default=2.0,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How many times fewer steps are computed, in mode target speed-up. 1: off.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.15,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Change of the watched signal below which steps are skipped, in mode "
                    "threshold. 0: off; 0.09, 0.15 and 0.25 give about 1.5, 2 and 2.5 times fewer steps.",
                ),
                *_advanced_inputs(),
            ],
            outputs=[io.Model.Output(display_name="model")],
            search_aliases=["teacache", "cache", "speed up", "faster", "step cache"],
        )

    @classmethod
    def fingerprint_inputs(cls, calibration: str = AUTOMATIC, **_inputs: Any) -> Any:
        path = find_calibrations().get(calibration)
        return None if path is None else path.stat().st_mtime_ns

    @classmethod
    def validate_inputs(
        cls, start_percent: float | None = None, end_percent: float | None = None
    ) -> bool | str:
        return refusal_of(cls, StepCacheConfig, start_percent=start_percent, end_percent=end_percent)

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        mode: str,
        target_speedup: float,
        threshold: float,
        calibration: str = AUTOMATIC,
        on_skip: str = "forecast",
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        max_consecutive_skips: int = 0,
        compute_last: bool = False,
        target: str = "same",
    ) -> io.NodeOutput:
        speedup = target_speedup if mode == SPEEDUP else NAMED.get(mode)
        if (speedup == 1 and target == "same") or (mode == THRESHOLD and threshold == 0):
            return io.NodeOutput(model)
        learned = _load_calibration(calibration, model) if mode != CALIBRATE else None
        config = StepCacheConfig(
            rel_l1_thresh=threshold if mode == THRESHOLD else 0.0,
            target_speedup=speedup,
            calibrate=mode == CALIBRATE,
            start_percent=start_percent,
            end_percent=end_percent,
            max_consecutive_skips=max_consecutive_skips or None,
            compute_last=compute_last,
            on_skip=on_skip,  # pyright: ignore[reportArgumentType]
            target=target,  # pyright: ignore[reportArgumentType]
        )
        return io.NodeOutput(attach(model, CacheSettings(config, learned)))


def _decibels() -> str:
    return ", ".join(str(decibels) for decibels in PRESET_DECIBELS.values())


def _advanced_inputs() -> list[Any]:
    percent = {"min": 0.0, "max": 1.0, "step": 0.01, "extra_dict": ADVANCED}
    return [
        io.Combo.Input(
            "calibration",
            options=[AUTOMATIC, *find_calibrations()],
            default=AUTOMATIC,
            tooltip="What is known about this checkpoint. automatic: its own calibration.json, else the "
            "video's first clip is computed in full and teaches the rest.",
            extra_dict=ADVANCED,
        ),
        io.Combo.Input(
            "on_skip",
            options=["forecast", "reuse"],
            default="forecast",
            tooltip="What a skipped step gets. forecast: calibrated weights of all computed ones, or the "
            "line through the last two. reuse: the last one again.",
            extra_dict=ADVANCED,
        ),
        io.Float.Input(
            "start_percent",
            default=0.0,
            tooltip="Skip nothing before this share of the denoising (0: pure noise, 1: clean).",
            **percent,
        ),
        io.Float.Input(
            "end_percent", default=1.0, tooltip="Skip nothing after this share of the denoising.", **percent
        ),
        io.Int.Input(
            "max_consecutive_skips",
            default=0,
            min=0,
            max=100,
            tooltip="Compute at least one step after this many skipped ones. 0: no limit.",
            extra_dict=ADVANCED,
        ),
        io.Boolean.Input(
            "compute_last",
            default=False,
            tooltip="Never skip the last step. In MEMO's schedule it hardly counts.",
            extra_dict=ADVANCED,
        ),
        io.Combo.Input(
            "target",
            options=["same", "converged"],
            default="same",
            optional=True,
            tooltip="What the video should be near to. same: the one without this node. converged: the one "
            "that many more steps would give. With sampler euler.",
        ),
    ]


def _load_calibration(name: str, model: Any) -> Calibration | None:
    """The calibration of a combo's name; None where the first clip has to teach."""
    if name == AUTOMATIC:
        path = getattr(model.model, "calibration_path", None)
        return None if path is None else read_calibration(Path(path))
    path = find_calibrations().get(name)
    if path is None:
        raise CalibrationError(
            f"expected a calibration but got {name!r}, which is not there (models/{FOLDER}/{CALIBRATIONS}). "
            "Choose automatic, or make one with TeaCache Calibrate."
        )
    return read_calibration(path)


def read_calibration(path: Path) -> Calibration:
    """What a file says, which somebody may have changed."""
    return Calibration.from_json(read_json(path, advice="Calibrate again."), str(path))


class ReportNode(io.ComfyNode):
    """Report -> picture and text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_TeaCacheReport",
            "TeaCache Report",
            "Shows which steps were computed and which were skipped, clip by clip, what that saved, and how "
            "far the face has drifted.",
            inputs=[
                MemoReport.Input("report", tooltip="From MEMO Sampler."),
                io.Boolean.Input(
                    "details",
                    default=False,
                    tooltip="Add a line for every step to the text: what was decided, and why. Draw what was "
                    "measured.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="What was saved. A row per clip: dark steps computed, light ones skipped. "
                    "Below: how far the face has drifted.",
                ),
                io.String.Output(display_name="text"),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            search_aliases=["teacache", "statistics", "speed", "skipped steps"],
        )

    @classmethod
    @checked
    def execute(cls, report: VideoReport, details: bool) -> io.NodeOutput:
        drawn = draw(report.cache, curves=details)
        picture = to_tensor(add_curve(drawn, report.drift))[None].float() / 255
        text = report.text(details)
        show_text(cls, text if details else report.sentences())
        return io.NodeOutput(picture, text, ui={"text": (text,)})


class CalibrateNode(io.ComfyNode):
    """A calibrating run's report -> a file that the TeaCache node lists."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_TeaCacheCalibrate",
            "TeaCache Calibrate",
            "Saves what a run in mode calibrate has learned about a checkpoint, for the TeaCache node's "
            "calibration.",
            inputs=[
                MemoReport.Input(
                    "report",
                    lazy=True,
                    tooltip="From a MEMO Sampler whose TeaCache node is in mode calibrate.",
                ),
                io.String.Input(
                    "name",
                    default="my calibration",
                    tooltip=f"File name without ending; it is written to models/{FOLDER}/{CALIBRATIONS}.",
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            is_output_node=True,
            is_experimental=True,
            search_aliases=["teacache", "calibration", "coefficients"],
        )

    @classmethod
    def check_lazy_status(cls, report: Any = None, **others: Any) -> list[str]:
        """A run that can teach nothing is refused before it, where the graph itself tells its mode."""
        with plain_errors():
            check_values(cls.define_schema().inputs, others)
            graph = cls.hidden.dynprompt
            sampler = sampler_behind(links_of(cls).get("report"), graph)
            mode = _mode_of_run(sampler.get("model"), graph)
            if mode not in (None, CALIBRATE):
                raise _teaches_nothing(mode)
            if typed(sampler, "steps") == 1:
                raise one_step()
        return ["report"] if report is None else []

    @classmethod
    @checked
    def execute(cls, report: VideoReport, name: str) -> io.NodeOutput:
        if report.unlearned:
            raise CalibrationError(report.unlearned)
        if report.calibration is None:
            raise _teaches_nothing(report.cache.config.mode)
        wanted = save_folder(CALIBRATIONS) / f"{portable_name(name, 'calibration')}.json"
        text = report.calibration.to_text()
        path = write_new(alternatives(wanted), lambda part: part.write_text(text, encoding="utf-8"))
        taken = f"{wanted.name} was there already. " if path != wanted else ""
        show_text(
            cls, f"{taken}Saved {without_folders(str(path))}. Press R to refresh the TeaCache node's list."
        )
        return io.NodeOutput(str(path), ui={"text": (str(path),)})


def _teaches_nothing(mode: str) -> CalibrationError:
    return CalibrationError(
        f"expected the report of a calibrating run but got one in mode {mode} (report). Set mode to "
        "calibrate in TeaCache for MEMO."
    )


def _mode_of_run(link: Any, graph: Any) -> str | None:
    """What a run on the MODEL of a link does with its steps; None where the graph does not tell."""
    while is_link(link):
        found = graph.get_node(link[0])
        if found["class_type"] == "MEMO_TeaCache":
            return typed(found["inputs"], "mode")
        if found["class_type"] == "MEMO_Load":
            return "off"
        link = model_before(link, graph)
    return None
