"""Fetching model files, for the one command that is asked to: resumed, checked, put in place at the end.

A file grows as `<name>.part`; the server's tag of it lies beside it, so that the rest of another version is
never put behind it. Nothing that a server says is believed further than it can be checked: no address but
https, no more bytes than the file may have, no piece but the one that was asked for. Nothing here runs unless
a user says `models download`.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .disk import open_regular, place, remove, reopen
from .foreign import shown

CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30
ATTEMPTS = 4
PAUSE_SECONDS = 1.0
USER_AGENT = "teacache-memo"

OnBytes = Callable[[int, int], None]
"""Called with (done, total); total is 0 where the server does not say."""

_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')  # a weak one does not promise the same bytes


class DownloadError(RuntimeError):
    """A file that could not be fetched. The text is the whole message."""


class _UselessError(DownloadError):
    """What arrived can't be continued, and is removed."""


@dataclass(frozen=True)
class _Answer:
    """What the server said of the file."""

    start: int
    total: int  # 0: not said
    tag: str


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Redirects leave neither encryption nor the web."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, target: Path, *, most: int, sha256: str = "", on_bytes: OnBytes | None = None) -> Path:
    """Fetch ``url`` into ``target``, over what is there; what an earlier try fetched is kept and continued.

    ``most`` bounds the file's bytes; ``sha256`` is checked where it is known.

    Raises:
        DownloadError: no network, no such file, too little space, or not the file that was promised.
    """
    _check_address(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.tag")
    try:
        total = _fetch_patiently(url, part, tag, most, on_bytes)
        _check(url, part, total, sha256)
    except _UselessError:
        remove(part)
        remove(tag)
        raise
    place(part, target)
    remove(tag)
    return target


def _fetch_patiently(url: str, part: Path, tag: Path, most: int, on_bytes: OnBytes | None) -> int:
    for attempt in range(ATTEMPTS):
        try:
            return _fetch(url, part, tag, most, on_bytes)
        except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1:
                raise DownloadError(
                    f"expected the rest of the file but the connection broke {ATTEMPTS} times: "
                    f"{shown(str(error))} ({url}). {_size(part)} bytes are kept; run the command again to "
                    "continue."
                ) from error
            time.sleep(PAUSE_SECONDS)
        finally:
            if part.is_file() and not _size(part):
                remove(part)
    raise AssertionError("the last attempt returns or raises")


def _check_address(url: str) -> None:
    if not url.startswith("https://"):
        raise DownloadError(
            f"expected an https address but got {shown(url)}. A server on the way may have changed it; "
            "download the file in a browser."
        )


def _fetch(url: str, part: Path, tag: Path, most: int, on_bytes: OnBytes | None) -> int:
    """Append to ``part`` until the server has no more; the file's size, 0 where it did not say."""
    with reopen(part) as stream:
        have, known = stream.seek(0, 2), _read_tag(tag)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if have and known:
            headers |= {"Range": f"bytes={have}-", "If-Range": known}
        with _open(urllib.request.Request(url, headers=headers), part) as response:
            answer = _read_answer(response, url, asked=have if known else 0)
            _check_size(answer.total, most, url)
            _check_space(part, answer.total - answer.start, url)
            _write_tag(tag, answer.tag)
            stream.seek(answer.start)
            stream.truncate()
            done = _copy(response, stream, answer, most, on_bytes)
    _check_size(done, most, url)
    if answer.total and done < answer.total:
        raise ConnectionError(f"{done} of {answer.total} bytes arrived")
    return answer.total


def _copy(response: Any, stream: BinaryIO, answer: _Answer, most: int, on_bytes: OnBytes | None) -> int:
    """The body behind what is there; the bytes in all, one more than ``most`` where there is no end."""
    done = answer.start
    while done <= most and (chunk := response.read(min(CHUNK_BYTES, most + 1 - done))):
        stream.write(chunk)
        done += len(chunk)
        if on_bytes is not None:
            on_bytes(done, answer.total)
    return done


def _read_tag(path: Path) -> str:
    """The server's tag of what is there; without a good one the next try begins again."""
    try:
        with open_regular(path) as stream:
            text = stream.read(1000).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _STRONG_TAG.fullmatch(text) else ""


def _write_tag(path: Path, tag: str) -> None:
    if not tag:
        remove(path)
        return
    with reopen(path) as stream:
        stream.truncate()
        stream.write(tag.encode("ascii"))


def _open(request: urllib.request.Request, part: Path) -> Any:
    url = request.full_url
    opener = urllib.request.OpenerDirector()  # build_opener adds file:, ftp: and data:
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        _HttpsOnly(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    try:
        return opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what we have is longer than the file: it is another one
            with reopen(part) as stream:
                stream.truncate()
            raise ConnectionError("the file on the server has changed") from error
        if error.code >= 500 or error.code == 429:
            raise ConnectionError(f"the server answered {error.code}") from error
        advice = "Download it in a browser" if error.code in (401, 403) else "Check its page in a browser"
        raise DownloadError(
            f"expected a file but the server answered {error.code} {shown(error.reason)} ({url}). {advice} "
            f"and put it there: {part.with_suffix('')}"
        ) from error
    except (ConnectionError, TimeoutError):
        raise
    except (urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, (ConnectionResetError, TimeoutError)):
            raise ConnectionError(str(reason)) from error
        raise DownloadError(
            f"expected a network but got: {shown(str(reason))} ({url}). Download it on another machine and "
            f"put it there: {part.with_suffix('')}"
        ) from error


def _read_answer(response: Any, url: str, *, asked: int) -> _Answer:
    """Where the body begins, checked against the byte that was asked for."""
    headers = response.headers
    if headers.get_content_type() == "text/html":
        raise DownloadError(
            f"expected a file but got a web page ({url}). A proxy or a login stands in between; download it "
            "in a browser."
        )
    tag = headers.get("ETag", "")
    tag = tag if _STRONG_TAG.fullmatch(tag) else ""
    if response.status == 200:
        return _Answer(0, _count(headers.get("Content-Length", "")), tag)
    span = re.fullmatch(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})", headers.get("Content-Range", ""))
    start, last, total = map(int, span.groups()) if span else (-1, -1, -1)
    if response.status != 206 or not asked or (start, last) != (asked, total - 1):
        raise DownloadError(
            f"expected the file from byte {asked} but the server answered {response.status} with "
            f"{shown(headers.get('Content-Range', 'no range'))} ({url}). Delete the .part file beside it and "
            "run the command again, or download it in a browser."
        )
    return _Answer(start, total, tag)


def _count(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,15}", text) else 0


def _check_size(size: int, most: int, url: str) -> None:
    if size > most:
        raise _UselessError(
            f"expected at most {most / 1e6:.0f} MB but the server sends more ({url}). What arrived was "
            "deleted; download it in a browser if the publisher has a larger file now."
        )


def _check_space(part: Path, needed: int, url: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise DownloadError(
            f"expected {needed / 1e9:.2f} GB free but got {free / 1e9:.2f} GB ({part.parent}). Free some and "
            f"run the command again ({url})."
        )


def _check(url: str, part: Path, total: int, sha256: str) -> None:
    """Raise unless the bytes are those that were promised."""
    size = _size(part)
    if total and size != total:
        problem = f"expected {total} bytes but got {size}"
    elif size == 0:
        problem = "expected a file but got 0 bytes"
    elif sha256 and (found := _sha256(part)) != sha256:
        problem = f"expected sha256 {sha256} but got {found}"
    else:
        return
    raise _UselessError(f"{problem} ({url}). What arrived was deleted; run the command again.")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
