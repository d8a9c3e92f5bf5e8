"""Would it pay to compute the uncond branch at fewer steps than cond? Priced on recordings of the demo model.

    python -m benchmarks.branches

Weights as in `teacache_core.multistep`, but with values of their own for each branch: cond of all computed
steps, uncond of some of them: the first, and those that lose least. Fitted on two people's clips, priced on a
third's, at two guidances.
Prints, for each division, the error of the latents' end against computing both branches at the same steps,
and against computing both at as many steps as cost the same; the last line is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from benchmarks.caching_methods import STEPS
from benchmarks.flops import measure
from benchmarks.rivals import Counter, Trace, Tracer
from demo.evaluate import OTHERS_FROM, DemoModel, held_out_cases
from memo_avatar.clips.solvers import flow_sigmas
from teacache_core import StepCacheConfig
from teacache_core.multistep import Search, spread_of, target_weights

PEOPLE, CLIPS = 3, 2
GUIDANCES = (1.5, 3.5)
DIVISIONS = ((8, 4), (6, 3), (5, 3))
"""Steps with cond, and those of them with uncond as well."""
RIDGE = 1e-6


def record(demo: DemoModel, guidance_scale: float) -> list[Tensor]:
    """Per person, the (2N, 2N) inner products of all cond and then all uncond velocities."""
    grams = []
    for case in held_out_cases(OTHERS_FROM + PEOPLE, CLIPS, demo.size)[OTHERS_FROM:]:
        traces: list[Trace] = []
        demo.talk(
            case.portrait,
            case.waveform,
            case.emotion,
            guidance_scale=guidance_scale,
            wrap_denoiser=lambda denoiser, sigmas, clip, traces=traces: traced(denoiser, traces),
        )
        grams.append(torch.stack([gram(trace) for trace in traces]).mean(0))
    return grams


@contextmanager
def traced(denoiser: Any, traces: list[Trace]) -> Iterator[Tracer]:
    """Computes everything and keeps it."""
    traces.append(Trace())
    yield Tracer(denoiser, Counter(), STEPS, traces[-1])


def gram(trace: Trace) -> Tensor:
    """Each branch about its own mean: the weights of an error sum to zero in each of them."""
    rows = [
        torch.stack([velocities[branch].flatten().double() for velocities in trace.velocities])
        for branch in ("cond", "uncond")
    ]
    rows = torch.cat([part - part.mean(0) for part in rows])
    return rows @ rows.T / rows.shape[1]


def guided_gram(gram: Tensor, scale: float) -> Tensor:
    """(N, N) of uncond + scale * (cond - uncond)."""
    mix = torch.cat([scale * torch.eye(STEPS), (1 - scale) * torch.eye(STEPS)], dim=1).double()
    return mix @ gram @ mix.T


def loss(fit: Tensor, price: Tensor, wanted: Tensor, cond: list[int], uncond: list[int]) -> float:
    """Error of the latents' end on `price`, with weights fitted on `fit`."""
    basis = []
    for first, steps in ((0, cond), (STEPS, uncond)):
        for step in steps[1:]:
            row = torch.zeros(2 * STEPS, dtype=torch.float64)
            row[first + step], row[first + steps[0]] = 1.0, -1.0
            basis.append(row)
    start = torch.zeros(2 * STEPS, dtype=torch.float64)
    start[cond[0]], start[STEPS + uncond[0]] = wanted[:STEPS].sum(), wanted[STEPS:].sum()
    rest, rows = wanted - start, torch.stack(basis)
    inner = rows @ fit @ rows.T
    inner += RIDGE * inner.diagonal().mean() * torch.eye(len(basis), dtype=torch.float64)
    error = rest - torch.linalg.solve(inner, rows @ fit @ rest) @ rows
    return float((error @ price @ error).clamp_min(0).sqrt())


def fewer(fit: Tensor, wanted: Tensor, cond: list[int], count: int) -> list[int]:
    """The steps of `cond`, the first among them, at which to compute uncond as well: no other choice of so
    many comes nearer on `fit`."""
    choices = ([cond[0], *others] for others in combinations(cond[1:], count - 1))
    return min(choices, key=lambda uncond: loss(fit, fit, wanted, cond, uncond))


def make_rows(grams: list[Tensor], scale: float, share: float) -> list[dict[str, float]]:
    """share: of a step's work that cond alone takes. Each person is priced by the others' weights."""
    sigmas = flow_sigmas(STEPS).tolist()
    moves = target_weights(sigmas, "same")[:, -1]
    wanted = torch.cat([scale * moves, (1 - scale) * moves])
    rows = []
    for cond_steps, uncond_steps in DIVISIONS:
        cost = share * cond_steps + (1 - share) * uncond_steps
        losses = []
        for held in range(PEOPLE):
            others = [g for person, g in enumerate(grams) if person != held]
            fit = torch.stack(others).mean(0)
            spread = spread_of(torch.stack([guided_gram(g, scale) for g in others]))
            search = Search(guided_gram(fit, scale), sigmas, StepCacheConfig(), spread)
            apart, equal = search.best(cond_steps), search.best(round(cost))
            some = fewer(fit, wanted, apart, uncond_steps)
            sets = ((apart, some), (apart, apart), (equal, equal))
            losses.append([loss(fit, grams[held], wanted, *pair) for pair in sets])
        mean = torch.tensor(losses).mean(0).tolist()
        rows.append(
            {
                "guidance": scale,
                "cond": cond_steps,
                "uncond": uncond_steps,
                "cost": cost,
                "to_both": mean[0] / mean[1],
                "to_equal_cost": mean[0] / mean[2],
            }
        )
    return rows


@torch.no_grad()
def main() -> None:
    """Record, price, print."""
    counts, demo = measure(), DemoModel.load()
    share = counts["step_cond_only_tflop"] / counts["step_tflop"]
    rows = [row for scale in GUIDANCES for row in make_rows(record(demo, scale), scale, share)]
    print("| guidance | cond + uncond steps | cost in steps | error to both at these steps | to equal cost |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['guidance']:g} | {row['cond']} + {row['uncond']} | {row['cost']:.1f} "
            f"| x{row['to_both']:.2f} | x{row['to_equal_cost']:.2f} |"
        )
    print(f"\n{json.dumps({'rows': rows})}")


if __name__ == "__main__":
    main()
