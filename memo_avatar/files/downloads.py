"""Fetching model files, for the one command that is asked to: resumed, checked, put in place at the end.

A file grows as `<name>.part`; the server's tag of it lies beside it, so that the rest of another version is
never put behind it. Nothing here runs unless a user says `models download`.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30
ATTEMPTS = 4
PAUSE_SECONDS = 1.0
USER_AGENT = "teacache-memo"

OnBytes = Callable[[int, int], None]
"""Called with (done, total); total is 0 where the server does not say."""


class DownloadError(RuntimeError):
    """A file that could not be fetched. The text is the whole message."""


@dataclass(frozen=True)
class _Answer:
    """What the server said of the file."""

    start: int
    total: int  # 0: not said
    tag: str


def download(url: str, target: Path, *, sha256: str = "", on_bytes: OnBytes | None = None) -> Path:
    """Fetch ``url`` into ``target`` unless it is there; what an earlier try fetched is kept and continued.

    Raises:
        DownloadError: no network, no such file, too little space, or not the file that was promised.
    """
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.tag")
    for attempt in range(ATTEMPTS):
        try:
            total = _fetch(url, part, tag, on_bytes)
            break
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1:
                done = part.stat().st_size if part.exists() else 0
                raise DownloadError(
                    f"expected the rest of the file but the connection broke {ATTEMPTS} times: {error} "
                    f"({url}). {done} bytes are kept; run the command again to continue."
                ) from error
            time.sleep(PAUSE_SECONDS)
    _check(url, part, tag, total, sha256)
    os.replace(part, target)
    tag.unlink(missing_ok=True)
    return target


def _fetch(url: str, part: Path, tag: Path, on_bytes: OnBytes | None) -> int:
    """Append to ``part`` until the server has no more; the file's size, 0 where it did not say."""
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"User-Agent": USER_AGENT}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text(encoding="utf-8")}
    with _open(urllib.request.Request(url, headers=headers), part) as response:
        answer = _read_answer(response, url)
        _check_space(part, answer.total - answer.start, url)
        if answer.tag:
            tag.write_text(answer.tag, encoding="utf-8")
        else:
            tag.unlink(missing_ok=True)  # without a tag the next try has to begin again
        done = answer.start
        with part.open("r+b" if answer.start else "wb") as stream:
            stream.seek(answer.start)
            stream.truncate()
            while chunk := response.read(CHUNK_BYTES):
                stream.write(chunk)
                done += len(chunk)
                if on_bytes is not None:
                    on_bytes(done, answer.total)
    if answer.total and done < answer.total:
        raise ConnectionError(f"{done} of {answer.total} bytes arrived")
    return answer.total


def _open(request: urllib.request.Request, part: Path) -> Any:
    url = request.full_url
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what we have is longer than the file: it is another one
            part.unlink(missing_ok=True)
            raise ConnectionError("the file on the server has changed") from error
        if error.code >= 500 or error.code == 429:
            raise ConnectionError(f"the server answered {error.code}") from error
        advice = "Download it in a browser" if error.code in (401, 403) else "Check its page in a browser"
        raise DownloadError(
            f"expected a file but the server answered {error.code} {error.reason} ({url}). {advice} and put "
            f"it there: {part.with_suffix('')}"
        ) from error
    except (ConnectionError, TimeoutError):
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, (ConnectionResetError, TimeoutError)):
            raise ConnectionError(str(error.reason)) from error
        raise DownloadError(
            f"expected a network but got: {error.reason} ({url}). Download it on another machine and put it "
            f"there: {part.with_suffix('')}"
        ) from error


def _read_answer(response: Any, url: str) -> _Answer:
    headers = response.headers
    if headers.get_content_type() == "text/html":
        raise DownloadError(
            f"expected a file but got a web page ({url}). A proxy or a login stands in between; download it "
            "in a browser."
        )
    tag = headers.get("ETag", "")
    tag = "" if tag.startswith("W/") else tag  # a weak tag does not promise the same bytes
    if response.status == 206:
        span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        start = span.partition("-")[0]
        if start.isdecimal():
            return _Answer(int(start), int(total) if total.isdecimal() else 0, tag)
    length = headers.get("Content-Length", "")
    return _Answer(0, int(length) if length.isdecimal() else 0, tag)


def _check_space(part: Path, needed: int, url: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise DownloadError(
            f"expected {needed / 1e9:.2f} GB free but got {free / 1e9:.2f} GB ({part.parent}). Free some and "
            f"run the command again ({url})."
        )


def _check(url: str, part: Path, tag: Path, total: int, sha256: str) -> None:
    """Raise, and leave nothing behind, unless the bytes are those that were promised."""
    size = part.stat().st_size
    if total and size != total:
        problem = f"expected {total} bytes but got {size}"
    elif size == 0:
        problem = "expected a file but got 0 bytes"
    elif sha256 and (found := _sha256(part)) != sha256:
        problem = f"expected sha256 {sha256} but got {found}"
    else:
        return
    part.unlink()
    tag.unlink(missing_ok=True)
    raise DownloadError(f"{problem} ({url}). What arrived was deleted; run the command again.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
