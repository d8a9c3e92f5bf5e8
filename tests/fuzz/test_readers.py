"""A value or one line of ours, in no time and no memory, whatever a file or a text says.

The seeds are fixed. `make fuzz` runs as many cases as FUZZ_CASES says over all readers, with new seeds.
"""

from __future__ import annotations

import math
import os
import resource
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.readers import READERS
from tests.fuzz.strategies import neighbours

CASES = int(os.environ.get("FUZZ_CASES", "0"))
NEIGHBOURS = 24  # cases near each drawn one
PER_DRAWN = {name: 1 + NEIGHBOURS if reader.has_neighbours else 5 for name, reader in READERS.items()}
EACH = math.ceil(CASES / sum(PER_DRAWN.values())) or 25
LONGEST_SECONDS = 1.0
LONGEST_MESSAGE = 1000
OURS = ("memo_avatar", "standalone", "teacache_core")

pytestmark = pytest.mark.timeout(0 if CASES else 600)


def check(read: Any, given: Any) -> tuple[float, float]:
    """Seconds that a case took, and MiB by which it made the process grow; raises whatever is not ours.

    Of the processor, and while the reader runs: other work on the machine, and what hypothesis keeps, are not
    the reader's.
    """
    started, before = time.process_time(), peak()
    try:
        read(given)
    except Exception as error:
        message = str(error)
        if not type(error).__module__.startswith(OURS):
            raise
        assert message and len(message) <= LONGEST_MESSAGE, message
        assert message.isprintable(), ascii(message)
    return time.process_time() - started, peak() - before


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("name", READERS)
def test_a_value_or_one_line_of_ours(name: str, record_property: Any) -> None:
    reader = READERS[name]
    costs: list[tuple[float, float]] = []

    @settings(
        max_examples=EACH if reader.has_neighbours else 5 * EACH,
        derandomize=not CASES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def cases(data: st.DataObject) -> None:
        value, seed = data.draw(reader.given), data.draw(st.integers(0, 2**32))
        costs.append(check(reader.read, value))
        costs.extend(check(reader.read, near) for near in neighbours(value, seed, NEIGHBOURS))

    cases()
    slowest, grown = max(seconds for seconds, _ in costs), sum(mib for _, mib in costs)
    print(f"\n{name}: {len(costs)} cases, slowest {slowest:.3f} s, {grown:.0f} MiB more", flush=True)
    assert grown < 200
    assert slowest < LONGEST_SECONDS
