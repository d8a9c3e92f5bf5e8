"""Killed, out of room, two at once, at random moments; `python -m tests.helpers.crashes` does more of it."""

import multiprocessing
import os
import random
from collections.abc import Iterator

import pytest

from tests.helpers.crashes import Crashes, can_mount

pytestmark = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="processes are forked"
)


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    seed = int(os.environ.get("CRASH_SEED", random.randrange(10**6)))
    print(f"CRASH_SEED={seed}")  # shown where it fails
    yield Crashes(tmp_path_factory.mktemp("crashes"), seed)


def test_killed_at_random_moments_the_video_is_that_of_an_undisturbed_run(crashes: Crashes) -> None:
    for _ in range(6):
        crashes.kill()
    assert crashes.tally["killed"] >= 1


def test_dying_before_an_operation_of_the_file_system_loses_nothing(crashes: Crashes) -> None:
    for operation in crashes.random.sample(range(1, 40), 5):
        assert crashes.die(operation)


def test_where_an_operation_of_the_file_system_fails_nothing_is_lost(crashes: Crashes) -> None:
    for operation in crashes.random.sample(range(1, 60), 3):
        crashes.fail(operation)


@pytest.mark.parametrize("kind", ["a limit", "a disk"])
def test_out_of_room_at_random_moments_it_goes_on_when_there_is_room(crashes: Crashes, kind: str) -> None:
    if kind == "a disk" and not can_mount():
        pytest.skip("this user may not mount a small disk")
    for _ in range(2):
        crashes.fill_up() if kind == "a limit" else crashes.fill_up_a_disk()


def test_two_processes_at_one_video_in_one_folder_do_each_other_no_harm(crashes: Crashes) -> None:
    for _ in range(2):
        crashes.pair()
