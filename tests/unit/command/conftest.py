"""What the command's tests share: a small wav2vec2, and runs that are stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import standalone.video.making
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import Clip
from standalone.command import main
from tests.helpers.media import write_tiny_wav2vec2

INTERRUPTED = 130  # the exit status


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_wav2vec2(tmp_path_factory.mktemp("models") / "wav2vec2")


@pytest.fixture
def stop_after_a_clip(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], None]:
    """Runs the command and presses Ctrl-C once each person's first clip is done."""

    def clips(*args: object, **kwargs: object) -> Iterator[Clip]:
        for clip in generate_clips(*args, **kwargs):
            if clip.index:
                raise KeyboardInterrupt
            yield clip

    def run(arguments: Sequence[str]) -> None:
        with monkeypatch.context() as stopping:
            stopping.setattr(standalone.video.making, "generate_clips", clips)
            assert main([*arguments]) == INTERRUPTED

    return run
