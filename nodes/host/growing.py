"""A video that plays on its node while it is made."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ...memo_avatar.files.disk import remove
from .schema import decoration, show_output

_LONGER = 1.25
"""How much more there is each time: all of them together cost five times what the last one costs."""


class GrowingVideo:
    """What is finished of a video of so many clips, shown on its node now and then; ``join`` writes it."""

    def __init__(self, node: type[io.ComfyNode], clips: int, join: Callable[[Path], object]) -> None:
        self.node, self.clips, self.join = node, clips, join
        self._due = 1  # clips from which it is shown again
        self._shown: Path | None = None

    def add(self, done: int) -> None:
        """So many clips are finished. The last one is left to the whole video."""
        if self._due <= done < self.clips:
            self._due = max(done + 1, round(done * _LONGER))
            with decoration("The growing video"):
                self._show()

    def _show(self) -> None:
        folder = Path(folder_paths.get_temp_directory())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"memo_growing_{uuid.uuid4().hex}.mp4"
        self.join(path)
        shown = ui.PreviewVideo([ui.SavedResult(path.name, "", io.FolderType.temp)])
        show_output(self.node, shown.as_dict())
        if self._shown is not None:
            remove(self._shown)  # what a player has open stays until the host starts and empties the folder
        self._shown = path
