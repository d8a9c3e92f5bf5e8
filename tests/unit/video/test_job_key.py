"""A job's name covers all of it, by construction; a video is never continued by another job."""

import subprocess
import sys
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from memo_avatar.inputs import Crop, Voice
from memo_avatar.video import job_key
from memo_avatar.video.delivery import Delivery
from memo_avatar.video.job_key import key_of
from memo_avatar.video.paste import Paster
from memo_avatar.voice.windows import StoredStates

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Job:
    voice: Voice
    seed: int
    cfg: float


JOB = Job(Voice(torch.arange(24.0).view(2, 3, 2, 2), torch.zeros(2, dtype=torch.long), 2), 1, 3.5)


def test_a_field_that_a_job_gets_later_is_in_its_name_from_the_start() -> None:
    longer = make_dataclass("Job", [("guard", bool, False)], bases=(Job,), frozen=True)
    values = [longer(JOB.voice, JOB.seed, JOB.cfg, guard) for guard in (False, True)]
    assert len({key_of(JOB), *map(key_of, values)}) == 3


def test_a_voice_of_over_ten_minutes_is_known_by_its_rows_however_they_came() -> None:
    rows = torch.arange(24.0).view(4, 2, 3)
    changed = rows.clone()
    changed[3, 1, 2] += 1e-6 * changed[3, 1, 2]
    voices = [stored_voice(*blocks) for blocks in ([rows], rows.split(3), [changed])]
    keys = [key_of(replace(JOB, voice=voice)) for voice in voices]
    assert keys[0] == keys[1] != keys[2]


def stored_voice(*blocks: torch.Tensor) -> Voice:
    """One whose features are in a file."""
    stored = StoredStates(4, 5)
    for block in blocks:
        stored.append(block)
    return Voice(stored, torch.zeros(4, dtype=torch.long), 4)


def test_every_field_counts_down_to_the_last_number() -> None:
    features = JOB.voice.audio_embeddings.clone()
    features[-1, -1, -1, -1] += 1e-6 * features[-1, -1, -1, -1]
    others = [
        replace(JOB, seed=2),
        replace(JOB, cfg=3.0),
        replace(JOB, voice=replace(JOB.voice, audio_embeddings=features)),
        replace(JOB, voice=replace(JOB.voice, num_frames=1)),
    ]
    assert len({key_of(job) for job in (JOB, *others)}) == 5


def test_equal_jobs_are_called_alike_also_by_another_process() -> None:
    code = (
        "from tests.unit.video.test_job_key import JOB; from memo_avatar.video.job_key import key_of; "
        "print(key_of((JOB, {'b': 1, 'a': [2.5, None]})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == key_of((JOB, {"a": [2.5, None], "b": 1}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (1, True), ("1", 1), (b"1", "1"), (["ab"], ["a", "b"]), (["a", ["b"]], [["a"], "b"]),
        ({"a": None}, {}), ((), None), (torch.float16, torch.bfloat16),
        (torch.zeros(2, 3), torch.zeros(3, 2)), (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.tensor(0.0), torch.tensor(-0.0)), (torch.zeros(0), torch.zeros(0, 2)),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}), (["str 1:a"], ["a"]),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_are_not_the_same_are_not_called_alike(one: Any, other: Any) -> None:
    assert key_of(one) != key_of(other)


def test_a_large_tensor_counts_whole_and_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.arange(1000.0).view(100, 10)
    whole = key_of(tensor)
    monkeypatch.setattr(job_key, "_SMALL", 1000)
    monkeypatch.setattr(job_key, "_PIECE", 64)
    keys = {whole, key_of(tensor)}
    for row in (0, 50, 99):
        changed = tensor.clone()
        changed[row, 3] += 1
        keys.add(key_of(changed))
    assert len(keys) == 5
    expanded = torch.arange(10.0).expand(100, 10)
    assert key_of(expanded) == key_of(expanded.clone())


def test_the_picture_around_the_face_counts_and_its_colours_do_not() -> None:
    picture, crop = torch.rand(3, 40, 60), Crop(10, 10, 20, 20, 60, 40)
    delivery = Delivery.of_voice(16_000, 25, Paster(picture, crop))
    key = key_of(delivery)
    assert delivery.paster is not None
    delivery.paster.paste(torch.rand(3, 16, 16))
    assert delivery.paster.colour is not None
    assert key_of(delivery) == key, "they are found on the way"
    others = [
        replace(delivery, fps=30),
        replace(delivery, paster=None),
        replace(delivery, paster=Paster(picture, crop, feather=0.3)),
        replace(delivery, paster=Paster(picture, crop, match_colour=False)),
        replace(delivery, paster=Paster(picture.flip(0), crop)),
        replace(delivery, paster=Paster(picture, replace(crop, left=12))),
    ]
    assert len({key, *map(key_of, others)}) == 7


def test_what_has_no_known_content_is_refused_rather_than_left_out() -> None:
    with pytest.raises(TypeError, match="expected a value that a video can be known by but got a object"):
        key_of([object()])
    assert key_of([object()], lambda value: "known" if type(value) is object else value) == key_of(["known"])
