"""Training in several single-threaded processes that average their gradients once per step.

On a CPU shared with others this is far faster than one process with several threads, which wait
for each other after every small operation. On a GPU use one worker.
"""

import ctypes
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import distributed, nn


def keep_memory() -> None:
    """Tell glibc to keep freed memory: fresh pages for every large tensor cost more than the arithmetic."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(-8, 1)  # M_ARENA_MAX: backward's thread allocates from the same heap
    mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large block
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _pin(rank: int, workers: int) -> None:
    """One core for each worker, where the system can and there are enough: they would at times share one."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) >= workers:
            os.sched_setaffinity(0, {cores[rank]})


def _worker(
    rank: int, function: Callable[..., None], workers: int, port: int, arguments: tuple[Any, ...]
) -> None:
    keep_memory()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    _pin(rank, workers)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=workers)
    try:
        function(rank, workers, *arguments)
    finally:
        distributed.destroy_process_group()


def run_workers(function: Callable[..., None], workers: int, *arguments: Any) -> None:
    """Call `function(rank, workers, *arguments)` in `workers` processes; with one worker, in this process."""
    if workers == 1:
        keep_memory()
        function(0, 1, *arguments)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_worker, (function, workers, port, arguments), nprocs=workers)


def average_gradients(parameters: Iterable[nn.Parameter], workers: int) -> None:
    """Replace every gradient by its mean over the workers, in one message."""
    if workers == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= workers
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def agree(value: float, workers: int) -> float:
    """The first worker's value in every worker; clocks differ, schedules must not."""
    if workers == 1:
        return value
    message = torch.tensor([value], dtype=torch.float64)
    distributed.broadcast(message, 0)
    return float(message)
