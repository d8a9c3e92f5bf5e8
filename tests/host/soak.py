"""A day's work in minutes: one ComfyUI process under changing prompts, then a long speech to a file.

    python -m tests.host.soak --prompts 100 --minutes 30

Sizes, models, caches, samplers and interrupts change from prompt to prompt, by a fixed seed. What must not
grow or stay behind is read from /proc and from the disk, so this runs on Linux. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import find_comfyui
from tests.helpers.comfy.pack import make_user_folder, write_voice
from tests.helpers.comfy.prompts import SAMPLER, node, portrait_prompt, with_cache, with_images
from tests.helpers.comfy.server import ComfyServer, Prompt, PromptFailedError

SEED = 20260101
INTERRUPTED = 0.2  # share of the prompts
WARM_UP = 0.2  # share of the prompts after which the process has seen everything once
DEMO = "cartoons only: demo, 96x96"
PERIOD_SECONDS = 6
SIZES = (32, 48, 64)
CACHES: tuple[dict[str, Any], ...] = (
    {},
    {"mode": "target speed-up", "target_speedup": 2.0},
    {"mode": "threshold", "threshold": 0.2},
    {"mode": "calibrate"},
)


@dataclass(frozen=True)
class Census:
    """What a process holds."""

    resident_mib: int
    threads: int
    open_files: int

    @classmethod
    def of(cls, server: ComfyServer) -> Census:
        process = Path(f"/proc/{server.pid}")
        counts = (len(list((process / name).iterdir())) for name in ("task", "fd"))
        return cls(server.resident_bytes() // 2**20, *counts)


def draw_prompt(dice: random.Random, index: int) -> Prompt:
    """One of the many ways in which a person makes a video."""
    kind = dice.choice(("MEMO_Sampler", "MEMO_SamplerToFile"))
    changes: dict[str, Any] = {"seed": index, "steps": dice.choice((2, 3, 4)), "cfg": dice.choice((1.0, 2.0))}
    if kind == "MEMO_SamplerToFile":
        changes["filename_prefix"] = "soak"
    prompt = portrait_prompt(kind, seconds=dice.choice((0.3, 0.6, 1.1)), **changes)
    if dice.random() < 0.1:
        prompt["1"]["inputs"]["checkpoint"] = DEMO
    size = dice.choice(SIZES)
    prompt["3"]["inputs"].update(width=size, height=dice.choice(SIZES))
    settings = dice.choice(CACHES)
    if settings:
        prompt = with_cache(prompt, **settings)
        prompt["report"]["inputs"]["report"] = [SAMPLER, 3 if kind == "MEMO_Sampler" else 2]
    return with_images(prompt) if kind == "MEMO_Sampler" else prompt


def run_prompts(server: ComfyServer, count: int) -> tuple[list[Census], dict[str, int]]:
    """Queue one after the other; every fifth is interrupted somewhere on its way."""
    dice, seen, ends = random.Random(SEED), [], {"done": 0, "interrupted": 0}
    for index in range(count):
        prompt_id = server.queue(draw_prompt(dice, index))
        if dice.random() < INTERRUPTED:
            time.sleep(dice.uniform(0.0, 1.5))
            server.interrupt()
        try:
            server.wait(prompt_id)
            ends["done"] += 1
        except PromptFailedError as error:
            if error.status != "execution_interrupted":
                raise
            ends["interrupted"] += 1
        seen.append(Census.of(server))
        print(f"{index + 1} of {count}: {seen[-1]}", file=sys.stderr)
    return seen, ends


def long_speech(server: ComfyServer, minutes: float) -> list[Census]:
    """A speech to a file, watched every ten seconds."""
    write_long_voice(server.user / "input" / "long.wav", 60 * minutes)
    prompt = portrait_prompt("MEMO_SamplerToFile", seconds=0.0, steps=1, cfg=1.0, filename_prefix="long")
    prompt["4"] = node("LoadAudio", audio="long.wav")
    prompt_id, seen = server.queue(prompt), []
    while not server.get(f"/history/{prompt_id}"):
        seen.append(Census.of(server))
        print(f"long speech: {seen[-1]}", file=sys.stderr)
        time.sleep(10)
    server.wait(prompt_id)
    return [*seen, Census.of(server)]


def write_long_voice(path: Path, seconds: float) -> None:
    """A short voice, again and again."""
    write_voice(path, PERIOD_SECONDS)
    with wave.open(str(path), "rb") as short:
        parameters, sound = short.getparams(), short.readframes(short.getnframes())
    with wave.open(str(path), "wb") as long:
        long.setparams(parameters)
        for _ in range(round(seconds / PERIOD_SECONDS)):
            long.writeframes(sound)


def growth(seen: list[Census]) -> dict[str, int]:
    """From the end of the warm-up to the end."""
    warm, last = seen[int(len(seen) * WARM_UP)], seen[-1]
    return {name: getattr(last, name) - getattr(warm, name) for name in vars(last)}


def left_behind(user: Path) -> list[str]:
    """What lies in the user's folders that is no result."""
    patterns = ("output/**/*.part", "output/**/*.partial", "output/**/.*", "temp/**/*.part")
    return sorted(str(path.relative_to(user)) for pattern in patterns for path in user.glob(pattern))


def main() -> None:
    """Run both, print the figures."""
    parser = argparse.ArgumentParser(description="Many prompts and a long speech in one ComfyUI process.")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=30.0, help="of speech")
    options = parser.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("expected a ComfyUI but found none. Set COMFYUI_PATH to a checkout.")
    with tempfile.TemporaryDirectory() as folder:
        user = make_user_folder(Path(folder))
        with ComfyServer(comfyui, user) as server:
            prompts, ends = run_prompts(server, options.prompts)
            speech = long_speech(server, options.minutes)
        unfinished = list((user / "output").glob("memo_unfinished/*"))
        figures = {
            "prompts": ends,
            "growth_over_prompts": growth(prompts),
            "growth_over_speech": growth(speech),
            "unfinished_jobs": len(unfinished),
            "left_behind": left_behind(user),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
