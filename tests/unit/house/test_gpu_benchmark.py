"""The benchmark for a card, where there is none: every phase runs, what is found is kept, time is kept to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import measure
from benchmarks.gpu.clips import Bench, Phases, compile_regions, kinds, measure_clip
from benchmarks.gpu.meter import Meter, Values
from benchmarks.gpu.results import Results
from benchmarks.gpu.workload import make_nets, make_vae, rehearsal

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
CARD = {"name": "NVIDIA GeForce RTX 4090", "gib": 23.6, "torch": "2.11.0"}
CLIP = {"seconds": 4.0, "frames_per_second": 4.0, "evaluations": 20, "peak_gib": 13.4, "expected_gib": 14.0}


@pytest.fixture
def bench() -> Bench:
    scale = rehearsal()
    nets, vae = make_nets(scale, CPU, torch.float32), make_vae(scale, CPU, torch.float32)
    return Bench(scale, nets, vae, Meter(CPU))


@torch.inference_mode()
def test_every_phase_of_a_clip_is_timed(bench: Bench) -> None:
    found = {name: work() for name, work in Phases(bench).measurements().items()}
    by_kind = found.pop("evaluation, by kind of layer")["seconds_by_kind"]
    assert all(values["seconds"] > 0 for values in found.values())
    assert set(by_kind) == {*kinds(bench.models.diffusion_net), "rest"}
    assert min(by_kind.values()) > 0


@torch.inference_mode()
def test_timing_by_kind_leaves_the_net_as_it_was(bench: Bench) -> None:
    phases = Phases(bench)
    before = phases.evaluate()
    phases.by_kind()
    assert all("forward" not in vars(module) for module in bench.models.diffusion_net.modules())
    assert torch.equal(phases.evaluate()["cond"], before["cond"])


@torch.inference_mode()
def test_a_clip_computes_as_many_steps_as_asked_for_though_its_weights_are_random(bench: Bench) -> None:
    found = measure_clip(bench, bench.scale.settings(), computed=6)
    assert found["evaluations"] == 6 and found["frames_per_second"] > 0


@pytest.mark.slow  # a minute: every layer is traced
@torch.inference_mode()
def test_compiled_layer_by_layer_the_net_gives_the_same(bench: Bench) -> None:
    before = Phases(bench).evaluate()
    torch.compiler.reset()
    compile_regions(bench.models, bench.vae, "eager")
    after = Phases(bench).evaluate()
    torch.testing.assert_close(after["cond"], before["cond"], rtol=0, atol=1e-4)


def test_random_weights_are_the_same_whatever_the_dtype() -> None:
    nets = [make_nets(rehearsal(), CPU, dtype) for dtype in (torch.float32, torch.bfloat16)]
    exact, rounded = (net.diffusion_net.state_dict() for net in nets)
    for name, tensor in exact.items():
        assert torch.equal(tensor.bfloat16(), rounded[name]), name


def test_a_measurement_that_fails_is_said_and_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def too_large() -> Values:
        raise torch.OutOfMemoryError("tried to allocate")

    def unsupported() -> Values:
        raise RuntimeError("no kernel\nfor this")

    left = measure.run({"a": too_large, "b": unsupported, "c": lambda: {"seconds": 1.0}})
    said = [json.loads(line)["values"] for line in capsys.readouterr().out.splitlines()]
    assert said == [{"failed": "out of memory"}, {"failed": "RuntimeError: no kernel"}, {"seconds": 1.0}]
    assert left == []


def test_what_is_done_is_not_measured_again_and_what_would_not_end_in_time_is_left() -> None:
    ran: list[str] = []

    def work(name: str) -> Callable[[], Values]:
        return lambda: (time.sleep(0.2), ran.append(name), {})[-1]

    works = {name: work(name) for name in ("done", "first", "second")}
    assert measure.run(works, done=["done"], until=time.time() + 0.3) == ["second"]
    assert ran == ["first"]


def says(*lines: dict[str, Any], then: str = "") -> list[str]:
    """The command of a process that says these lines."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return [sys.executable, "-c", f"import time; print({text!r}, end='', flush=True); {then}"]


class Told(gpu.Run):
    """A run whose groups' processes are made up."""

    commands: dict[str, list[str]]
    asked: list[tuple[str, list[str]]]

    def command(self, group: str, done: Sequence[str]) -> list[str]:
        self.asked.append((group, list(done)))
        return self.commands[group]


def told(folder: Path, seconds: float, **commands: list[str]) -> Told:
    run = Told("measure", time.time() + seconds, folder)
    nothing = dict.fromkeys(gpu.GROUPS, says({"left": []}))
    card = {"card": says({"name": "card", "values": CARD})}
    run.__dict__.update(commands={**nothing, **card, **commands}, asked=[])
    return run


@pytest.fixture(autouse=True)
def no_published_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMO_UPSTREAM_PATH", raising=False)


def test_a_second_run_goes_on_where_the_first_one_had_to_stop(tmp_path: Path) -> None:
    first = told(tmp_path, 5, bf16=says({"name": "clip", "values": CLIP}, then="time.sleep(60)"))
    started = time.time()
    results, left = gpu.measure_all(first)
    assert time.time() - started < 10
    assert results.of("bf16") == {"clip": CLIP}
    assert left[0] == "bf16 (all that is not above)" and len(left) == len(first.groups)
    second = told(tmp_path, 60, bf16=says({"name": "decode", "values": {"seconds": 1.0}}, {"left": []}))
    results, left = gpu.measure_all(second)
    assert ("bf16", ["clip"]) in second.asked
    assert set(results.of("bf16")) == {"clip", "decode"} and left == []


def test_other_software_begins_anew(tmp_path: Path) -> None:
    Results.of_today(tmp_path, CARD).add("bf16", "clip", CLIP)
    assert Results.of_today(tmp_path, CARD).done("bf16") == ["clip"]
    assert Results.of_today(tmp_path, CARD | {"torch": "2.12.0"}).done("bf16") == []


def test_the_table_names_the_card_and_what_is_left(tmp_path: Path) -> None:
    results = Results.of_today(tmp_path, CARD)
    results.add("bf16", "clip, 20 evaluations", CLIP)
    results.add("bf16", "evaluation, by kind of layer", {"seconds_by_kind": {"stem": 0.0015}})
    results.add("precision", "bfloat16 against float32", {"relative_error": 0.012})
    results.add("fp16", "clip, 20 evaluations", {"failed": "out of memory"})
    page = results.write_table(("bf16", "precision", "fp16"), ["fp16: decode"], "python -m benchmarks.gpu")
    assert page.name.startswith("gpu_nvidia_geforce_rtx_4090_20")
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# MEMO on NVIDIA GeForce RTX 4090, phase by phase"
    for expected in (
        "| | seconds | frames/s | evaluations | peak GiB | expected GiB |",
        "| clip, 20 evaluations | 4.0000 | 4.00 | 20 | 13.40 | 14.00 |",
        "- evaluation, by kind of layer: stem 1.5 ms",
        "- bfloat16 against float32: relative error 0.012",
        "- clip, 20 evaluations: failed out of memory",
        "Not measured, the time was over: fp16: decode.",
    ):
        assert expected in lines


def test_without_a_card_it_says_what_can_be_done_here() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(SystemExit, match="Use --rehearse or --dry"):
        measure.open_device(dry=False, scale_name="real")


@pytest.mark.slow  # four processes, two of which trace every layer
@pytest.mark.timeout(900)
def test_a_rehearsal_leaves_nothing_out(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--results", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--minutes", "14"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "Everything was measured."
    (page,) = tmp_path.glob("gpu_cpu_*.md")
    text = page.read_text(encoding="utf-8")
    assert "failed" not in text and text.count("## ") == 5
