"""Measurements as they are kept: one JSON file per card and day, and the table made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from memo_avatar.files.disk import replacing

Values = Mapping[str, Any]
SEPARATOR = ": "
COLUMNS = {
    "seconds": ("seconds", "{:.4f}"),
    "frames_per_second": ("frames/s", "{:.2f}"),
    "evaluations": ("evaluations", "{:.0f}"),
    "peak_gib": ("peak GiB", "{:.2f}"),
    "expected_gib": ("expected GiB", "{:.2f}"),
    "reserved_gib": ("reserved GiB", "{:.2f}"),
}


@dataclass
class Results:
    """What was measured so far, by "group: name"; every addition is on the disk when `add` returns."""

    path: Path
    card: Values
    measured: dict[str, Values] = field(default_factory=dict)

    @classmethod
    def of_today(cls, folder: Path, card: Values) -> Results:
        """Those of this card and day, begun or to be gone on with."""
        slug = re.sub(r"[^a-z0-9]+", "_", str(card["name"]).lower()).strip("_")
        today = datetime.now(timezone.utc).strftime("%Y%m%d")
        results = cls(folder / f"gpu_{slug}_{today}.json", card)
        if results.path.is_file():
            known = json.loads(results.path.read_text(encoding="utf-8"))
            if known["card"] == card:  # the same software, too
                results.measured = known["measured"]
        return results

    def add(self, group: str, name: str, values: Values) -> None:
        self.measured[f"{group}{SEPARATOR}{name}"] = values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as part:
            part.write_text(json.dumps({"card": self.card, "measured": self.measured}, indent=1) + "\n")

    def done(self, group: str) -> list[str]:
        """Names of what is measured of a group."""
        return [name for found, name in map(_split, self.measured) if found == group]

    def of(self, group: str) -> dict[str, Values]:
        return {name: self.measured[f"{group}{SEPARATOR}{name}"] for name in self.done(group)}

    def write_table(self, groups: Sequence[str], left: Sequence[str], command: str) -> Path:
        """A page with a table for each group, beside the numbers."""
        page = self.path.with_suffix(".md")
        page.write_text("\n".join(self._lines(groups, left, command)) + "\n", encoding="utf-8")
        return page

    def _lines(self, groups: Sequence[str], left: Sequence[str], command: str) -> Iterator[str]:
        about = ", ".join(f"{name} {_shown(value)}" for name, value in self.card.items() if name != "name")
        yield f"# MEMO on {self.card['name']}, phase by phase\n"
        yield f"From `{command}`; {about}. 512x512, 16 frames a clip, guidance 3.5, random weights of"
        yield "the published sizes. A clip is a later one, from the frames before it to its own on the CPU."
        yield "Peak: bytes that tensors held; expected: what our own arithmetic says before it runs;"
        yield "reserved: what torch kept from other programs."
        for group in groups:
            if found := self.of(group):
                yield f"\n## {group}\n"
                yield from _table(found)
        if left:
            yield f"\nNot measured, the time was over: {', '.join(left)}."


def _table(found: Mapping[str, Values]) -> Iterator[str]:
    columns = [name for name in COLUMNS if any(name in values for values in found.values())]
    if columns:
        yield f"| | {' | '.join(COLUMNS[name][0] for name in columns)} |"
        yield "|---" * (len(columns) + 1) + "|"
    notes = []
    for name, values in found.items():
        if columns and any(column in values for column in columns):
            cells = (COLUMNS[c][1].format(values[c]) if c in values else "" for c in columns)
            yield f"| {name} | {' | '.join(cells)} |"
        else:
            notes.append(f"- {name}: {_note(values)}")
    if notes and columns:
        yield ""
    yield from notes


def _note(values: Values) -> str:
    """What fits no column: why there is nothing, or shares of a whole."""
    if "seconds_by_kind" in values:
        kinds: Mapping[str, float] = values["seconds_by_kind"]
        return ", ".join(f"{kind} {seconds * 1000:.1f} ms" for kind, seconds in kinds.items()) or "not timed"
    return ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in values.items())


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _split(key: str) -> tuple[str, str]:
    group, _, name = key.partition(SEPARATOR)
    return group, name
