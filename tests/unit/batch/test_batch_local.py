"""A batch in one process, on the bundled model: made, left alone, made anew, failed by itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from standalone.batch.results import Results
from standalone.command import main
from tests.helpers.media import read_video, tone, write_sound

DEMO = Path(__file__).resolve().parents[3] / "demo"
FAST = ["--steps", "1", "--guidance-scale", "1", "--device", "cpu"]


def batch(folder: Path, jobs: Path, *options: str) -> int:
    return main(["batch", str(jobs), "--output-folder", str(folder / "out"), *FAST, *options])


def write_jobs(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def row(folder: Path, name: str, **options: Any) -> dict[str, Any]:
    """A video of three frames."""
    sound = folder / "a.wav"
    if not sound.exists():
        write_sound(sound, tone(0.1))
    return {"id": name, "image": str(DEMO / "portrait.png"), "audio": "a.wav", **options}


def states(folder: Path) -> dict[str, str]:
    lines = (folder / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["id"]: line["state"] for line in map(json.loads, lines)}


def test_rows_are_made_once_and_again_only_when_they_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise.wav").write_bytes(b"RIFF" + bytes(range(256)) * 4)
    rows = [row(tmp_path, "a"), row(tmp_path, "b", seed=7), row(tmp_path, "bad", audio="noise.wav")]
    assert batch(tmp_path, write_jobs(tmp_path, *rows)) == 1
    assert states(tmp_path) == {"a": "done", "b": "done", "bad": "failed"}
    assert "Rows: 2 done, 0 skipped, 1 failed" in capsys.readouterr().out
    assert read_video(tmp_path / "out" / "a.mp4").num_frames == 3
    before = {name: (tmp_path / "out" / f"{name}.mp4").stat().st_mtime_ns for name in "ab"}

    rows[1]["seed"] = 8
    assert batch(tmp_path, write_jobs(tmp_path, *rows)) == 1
    assert "Rows: 1 done, 1 skipped, 1 failed" in capsys.readouterr().out
    after = {name: (tmp_path / "out" / f"{name}.mp4").stat().st_mtime_ns for name in "ab"}
    assert after["a"] == before["a"] and after["b"] != before["b"]

    failed = tmp_path / "out" / "failed.jsonl"
    assert json.loads(failed.read_text(encoding="utf-8"))["message"].startswith("expected ")
    write_sound(tmp_path / "noise.wav", tone(0.1))
    assert batch(tmp_path, failed) == 0
    assert states(tmp_path) == {"a": "done", "b": "done", "bad": "done"}
    assert not failed.exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".batch.lock", "a.mp4", "b.mp4", "bad.mp4", "results.jsonl",
    ]  # fmt: skip


def test_a_bad_manifest_makes_nothing_and_lists_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row(tmp_path, "a"),
        row(tmp_path, "A"),
        row(tmp_path, "b", steps="many"),
        row(tmp_path, "c", colour=1),
        row(tmp_path, "d", image="none.png"),
    ]
    assert batch(tmp_path, write_jobs(tmp_path, *rows)) == 2
    err = capsys.readouterr().err
    for text in (
        "line 2 ('A'): expected an id of its own",
        "line 3 ('b'): argument --steps",
        "line 4 ('c'): expected",
        "line 5 ('d'): expected a picture file but got no such file",
    ):
        assert text in err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_makes_nothing_and_says_what_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = write_jobs(tmp_path, row(tmp_path, "a"), row(tmp_path, "b", fps=60, **{"max-seconds": 0.1}))
    assert batch(tmp_path, jobs, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "Rows: 2, of which 2 are to be made" in out
    assert "To be made: 9 frames (0.2 s), 2 clips, 2 evaluations" in out
    assert not (tmp_path / "out").exists()
    jobs = write_jobs(tmp_path, row(tmp_path, "a", image="none.png"))
    assert batch(tmp_path, jobs, "--dry-run") == 1


def test_an_output_that_is_an_input_of_another_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    write_sound(tmp_path / "out" / "b.mp4", tone(0.1), 48_000, "aac")
    jobs = write_jobs(tmp_path, row(tmp_path, "a", audio="out/b.mp4"), row(tmp_path, "b"))
    assert batch(tmp_path, jobs) == 2
    assert "line 2 ('b'): expected an output of its own but got an input" in capsys.readouterr().err


def test_results_that_anybody_wrote_are_left_out_and_stop_nothing(tmp_path: Path) -> None:
    good = {"id": "a", "state": "failed", "message": "of before"}
    lines = [
        json.dumps(good).encode(),
        b'{"id": "half a letter", "state": "done", "message": "\\ud800"}',
        b'{"id": "infinite", "state": "done", "seconds": 1e999}',
        b'{"id": "twice", "id": "thrice"}',
        b'{"id": "deep", "earlier": ' + b"[" * 100_000,
        b'{"id": "long", "message": "' + b"x" * 3 * 2**20 + b'"}',
        b"\xff\xfe",
    ]
    (tmp_path / "results.jsonl").write_bytes(b"\n".join(lines))
    Results(tmp_path).close([])
    assert [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()] == [good]
