"""Voices over ten minutes: windows that meet without a seam, and embeddings that wait in a file."""

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from memo_avatar.voice import windows as voice_windows
from memo_avatar.voice.features import frame_windows, voice_features
from memo_avatar.voice.sound import MediaError
from memo_avatar.voice.sound_files import load_audio
from memo_avatar.voice.windows import StoredStates, WindowPlan, fade, windowed_states
from standalone.models import load_wav2vec2

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("num_frames", "spans"),
    [
        (50, [(0, 50)]),
        (100, [(0, 100)]),
        (101, [(0, 100), (80, 101)]),
        (180, [(0, 100), (80, 180)]),
        (181, [(0, 100), (80, 180), (160, 181)]),
    ],
)
def test_windows_cover_every_frame(num_frames: int, spans: list[tuple[int, int]]) -> None:
    plan = WindowPlan(fps=10, window_seconds=10, overlap_seconds=2)
    assert plan.spans(num_frames) == spans


def test_every_overlap_is_whole_and_every_frame_comes_once() -> None:
    plan = WindowPlan(fps=10, window_seconds=10, overlap_seconds=2)
    for num_frames in range(1, 400):
        asked: list[tuple[int, int]] = []

        def states_of(start: int, stop: int, asked: list[tuple[int, int]] = asked) -> torch.Tensor:
            asked.append((start, stop))
            return torch.arange(start, stop, dtype=torch.float32)[:, None, None]

        states = torch.cat(list(windowed_states(states_of, num_frames, plan)))
        torch.testing.assert_close(states[:, 0, 0], torch.arange(num_frames, dtype=torch.float32))
        assert asked[-1][1] == num_frames
        assert all(later[0] == earlier[1] - 20 for earlier, later in pairwise(asked))


def test_the_blend_leaves_the_outer_quarters_to_one_window() -> None:
    weights = fade(8)
    assert weights.tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]


@pytest.mark.parametrize("overlap", [0, 61, -1, math.nan])
def test_overlaps_that_cannot_work(overlap: float) -> None:
    with pytest.raises(ValueError, match="expected an overlap of up to half a window"):
        WindowPlan(window_seconds=120, overlap_seconds=overlap)


@pytest.mark.parametrize(("window", "overlap"), [(0.1, 0.05), (0.1, 0.01), (120, 0.01)])
def test_windows_that_cannot_work_once_they_are_whole_frames(window: float, overlap: float) -> None:
    """0.05 s are 1.5 frames, so 2 of a window's 3; 0.01 s are none."""
    with pytest.raises(
        ValueError, match=r"half a window, in whole frames, but got \d+ of \d+ \(window plan\)"
    ):
        WindowPlan(window_seconds=window, overlap_seconds=overlap)


def test_the_smallest_windows_that_work_cover_every_frame_once() -> None:
    for frames in range(2, 8):
        plan = WindowPlan(fps=10, window_seconds=frames / 10, overlap_seconds=frames // 2 / 10)
        for num_frames in range(1, 30):
            ramp = torch.arange(num_frames, dtype=torch.float32)[:, None, None]
            found = list(
                windowed_states(lambda start, stop, ramp=ramp: ramp[start:stop].clone(), num_frames, plan)
            )
            torch.testing.assert_close(torch.cat(found), ramp)


def test_stored_states_are_read_like_the_tensor() -> None:
    inside = torch.randn(50, 3, 4)
    padded = torch.zeros(54, 3, 4)
    padded[2:-2] = inside
    expected = frame_windows(padded)
    stored = StoredStates(50, 5)
    stored.append(inside[:20])
    stored.append(inside[20:])
    assert stored.shape == expected.shape
    index = torch.tensor([0, 1, 48, 49, 49])
    assert torch.equal(stored[index], expected[index])
    assert torch.equal(stored[10:20], expected[10:20])
    assert torch.equal(stored[::8, 2], expected[::8, 2])


def test_a_disk_too_full_for_a_long_voice_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_windows.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=2**30))
    with pytest.raises(MediaError, match=r"expected 4\.0 GiB free for a long voice but got 1\.0 GiB"):
        StoredStates(108_000, 5).append(torch.zeros(1, 12, 768))


@torch.inference_mode()
def test_windows_come_close_to_one_piece_and_their_seams_do_not_stand_out() -> None:
    """On the demo's trained wav2vec2; `python -m benchmarks.voice_memory seams` measures more of this."""
    encoder = load_wav2vec2(ROOT / "demo" / "checkpoint" / "wav2vec2")
    waveform = load_audio(ROOT / "demo" / "held_out.wav")[: 16_000 * 30]
    whole = voice_features(waveform, encoder).embeddings
    plan = WindowPlan(one_piece_seconds=0, window_seconds=10, overlap_seconds=4)
    parts = voice_features(waveform, encoder, windows=plan)
    rows = parts.embeddings[torch.arange(whole.shape[0])]
    relative = torch.linalg.vector_norm(rows - whole) / torch.linalg.vector_norm(whole)
    assert 0 < relative < 0.05
    steps = torch.linalg.vector_norm(rows.diff(dim=0), dim=(1, 2, 3))
    seams = [(start + stop) // 2 for start, stop in zip([180, 360], [300, 480], strict=True)]
    assert all(steps[seam - 30 : seam + 30].max() < steps.max() + 1e-6 for seam in seams)


def test_a_short_voice_in_windows_is_the_voice_itself() -> None:
    encoder = load_wav2vec2(ROOT / "demo" / "checkpoint" / "wav2vec2")
    waveform = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    whole = voice_features(waveform, encoder)
    stored = voice_features(waveform, encoder, windows=WindowPlan(one_piece_seconds=-2))
    assert isinstance(stored.embeddings, StoredStates)
    torch.testing.assert_close(stored.embeddings[:], whole.embeddings)


def test_work_can_be_watched_and_stopped() -> None:
    encoder = load_wav2vec2(ROOT / "demo" / "checkpoint" / "wav2vec2")
    seen: list[float] = []
    plan = WindowPlan(one_piece_seconds=0, window_seconds=2, overlap_seconds=0.5)
    voice_features(torch.randn(80_000), encoder, windows=plan, on_layer=seen.append)
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        voice_features(torch.randn(80_000), encoder, windows=plan, on_layer=stop)
