"""Prompts for the tests, in the API's form."""

from __future__ import annotations

from typing import Any

from tests.helpers.comfy.pack import CHECKPOINT
from tests.helpers.comfy.server import Prompt

SAMPLER = "6"
SECONDS = 0.6  # 18 frames: two clips
FRAMES = 18


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def portrait_prompt(kind: str = "MEMO_Sampler", seconds: float = SECONDS, **changes: Any) -> Prompt:
    """Load, portrait, voice, sampler; nothing is shown or saved yet. `changes` are inputs of the sampler."""
    sampler = {
        "model": ["1", 0],
        "memo": ["1", 1],
        "vae": ["1", 2],
        "portrait": ["3", 0],
        "voice": ["5", 0],
        "seed": 7,
        "steps": 2,
        "cfg": 2.0,
        "sampler_name": "euler",
        "scheduler": "normal",
    }
    return {
        "1": node("MEMO_Load", checkpoint=CHECKPOINT, weight_dtype="auto"),
        "2": node("LoadImage", image="portrait.png"),
        "3": node("MEMO_Portrait", image=["2", 0], memo=["1", 1], width=32, height=32, fit="crop"),
        "4": node("LoadAudio", audio="voice.wav"),
        "5": node("MEMO_Voice", audio=["4", 0], memo=["1", 1], emotion="happy", start=0.0, duration=seconds),
        SAMPLER: node(kind, **{**sampler, **changes}),
    }


def with_images(prompt: Prompt) -> Prompt:
    """Every frame as a PNG file."""
    return {**prompt, "images": node("SaveImage", images=[SAMPLER, 0], filename_prefix="frame")}


def with_video(prompt: Prompt) -> Prompt:
    """Frames and sound as a video file."""
    video = node("CreateVideo", images=[SAMPLER, 0], fps=[SAMPLER, 2], audio=[SAMPLER, 1])
    saved = node("SaveVideo", video=["video", 0], filename_prefix="talk", format="auto", codec="auto")
    return {**prompt, "video": video, "saved": saved}


def with_cache(prompt: Prompt, **settings: Any) -> Prompt:
    """The step cache between the model and the sampler, and its report."""
    inputs = {
        "mode": "target speed-up",
        "target_speedup": 2.0,
        "threshold": 0.15,
        "calibration": "automatic",
        "on_skip": "forecast",
        "start_percent": 0.0,
        "end_percent": 1.0,
        "max_consecutive_skips": 0,
        "compute_last": False,
        **settings,
    }
    sampler = {**prompt[SAMPLER], "inputs": {**prompt[SAMPLER]["inputs"], "model": ["cache", 0]}}
    return {
        **prompt,
        SAMPLER: sampler,
        "cache": node("MEMO_TeaCache", model=["1", 0], **inputs),
        "report": node("MEMO_TeaCacheReport", report=[SAMPLER, 3], details=False),
    }


def linked(prompt: Prompt, target: str, name: str, value: Any) -> Prompt:
    """The prompt with a text or number node in front of one input, and a switch, which fits every socket."""
    kind = {str: "PrimitiveString", int: "PrimitiveInt", float: "PrimitiveFloat"}[type(value)]
    switch = node("ComfySwitchNode", switch=True, on_true=["given", 0], on_false=["given", 0])
    changed = {**prompt[target], "inputs": {**prompt[target]["inputs"], name: ["switch", 0]}}
    return {**prompt, target: changed, "given": node(kind, value=value), "switch": switch}


def with_pasted(prompt: Prompt, **inputs: Any) -> Prompt:
    """The face cut out, its frames pasted back and saved. `inputs` are those of Paste Back."""
    cut = {**prompt["3"], "inputs": {**prompt["3"]["inputs"], "fit": "face", "face_box": "8,8,40,40"}}
    pasted = node("MEMO_PasteBack", **{"images": [SAMPLER, 0], "portrait": ["3", 0], **inputs})
    saved = node("SaveImage", images=["pasted", 0], filename_prefix="frame")
    return {**prompt, "3": cut, "pasted": pasted, "images": saved}


def with_another_speaker(prompt: Prompt, **changes: Any) -> Prompt:
    """A second face in what `with_pasted` gives. `changes` are inputs of its sampler."""
    face = {**prompt["3"], "inputs": {**prompt["3"]["inputs"], "face_box": "30,30,60,60"}}
    sampler = {**prompt[SAMPLER], "inputs": {**prompt[SAMPLER]["inputs"], "portrait": ["3b", 0], **changes}}
    pasted = node("MEMO_PasteBack", images=["6b", 0], portrait=["3b", 0], original=["pasted", 0])
    saved = {**prompt["images"], "inputs": {**prompt["images"]["inputs"], "images": ["both", 0]}}
    return {**prompt, "3b": face, "6b": sampler, "both": pasted, "images": saved}


def with_compared(prompt: Prompt, **changes: Any) -> Prompt:
    """The sampler with the cache compared with one without it. `changes` are inputs of the first."""
    prompt = with_cache(prompt, target_speedup=2.0)
    full = {**prompt[SAMPLER], "inputs": {**prompt[SAMPLER]["inputs"], "model": ["1", 0]}}
    cached = {**prompt[SAMPLER], "inputs": {**prompt[SAMPLER]["inputs"], **changes}}
    both = {"full": ["full", 0], "cached": [SAMPLER, 0]}
    reports = {"full_report": ["full", 3], "cached_report": [SAMPLER, 3]}
    return {
        **prompt,
        SAMPLER: cached,
        "full": full,
        "compared": node("MEMO_TeaCacheCompare", **both, **reports),
        "verdict": node("PreviewAny", source=["compared", 2]),
        "worst": node("SaveImage", images=["compared", 1], filename_prefix="worst"),
    }
