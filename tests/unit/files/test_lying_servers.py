"""Servers and folders that lie: nothing but the promised bytes gets the file's name."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from memo_avatar.files import downloads
from memo_avatar.files.downloads import DownloadError
from tests.helpers.tls_server import BODY, Server, serving


def download(url: str, target: Path, *, most: int = 10 * len(BODY), **options: Any) -> Path:
    return downloads.download(url, target, most=most, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stop_after(limit: int) -> Any:
    def on_bytes(done: int, _total: int) -> None:
        if done >= limit:
            raise KeyboardInterrupt

    return on_bytes


def answering(server: Server, status: int, body: bytes = BODY, **headers: str) -> None:
    """Whatever is asked, this."""

    def answer(handler: Any) -> None:
        server.ranges.append(handler.headers.get("Range"))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    server.answer = answer


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1/m", "ftp://127.0.0.1/m", "file:///etc/passwd", "data:,x"]
)
@pytest.mark.parametrize("way", ["asked", "redirected"])
def test_only_https_is_followed(server: Server, tmp_path: Path, address: str, way: str) -> None:
    answering(server, 302, b"", Location=address)
    with pytest.raises(DownloadError, match=r"expected an https address but got|is not allowed"):
        download(address if way == "asked" else server.url, tmp_path / "m")
    assert names(tmp_path) == []


def test_a_redirect_within_https_is_followed(server: Server, tmp_path: Path) -> None:
    with serving(Server()) as elsewhere:
        answering(server, 302, b"", Location=elsewhere)
        assert download(server.url, tmp_path / "m").read_bytes() == BODY


def test_redirects_without_end_end(server: Server, tmp_path: Path) -> None:
    answering(server, 302, b"", Location=server.url)
    with pytest.raises(DownloadError, match="the server answered 302"):
        download(server.url, tmp_path / "m")
    assert names(tmp_path) == []


def test_a_certificate_of_nobody_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadError, match=r"expected a network but got.*CERTIFICATE_VERIFY_FAILED"):
        download(server.url, tmp_path / "m")


@pytest.mark.parametrize(
    "span",
    ["bytes 0-9/10", "bytes 5-9/4", "bytes */10", "bytes 0-9/*", "items 0-9/10", "", "bytes -1-9/10",
     f"bytes 0-{'9' * 5000}/10"],
)  # fmt: skip
def test_a_piece_that_nobody_asked_for_is_refused(server: Server, tmp_path: Path, span: str) -> None:
    answering(server, 206, b"x" * 10, Content_Range=span, ETag='"v1"')
    with pytest.raises(DownloadError, match="expected the file from byte 0 but the server answered 206"):
        download(server.url, tmp_path / "m")
    assert names(tmp_path) == []


@pytest.mark.parametrize("start", [0, 100_000, 200_001, 300_000])
def test_a_piece_from_elsewhere_is_not_put_behind_the_first(
    server: Server, tmp_path: Path, start: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "m", on_bytes=stop_after(200_000))
    span = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    answering(server, 206, BODY[start:], Content_Range=span, ETag='"v1"')
    with pytest.raises(DownloadError, match="expected the file from byte 200000"):
        download(server.url, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert (tmp_path / "m.part").read_bytes() == BODY[:200_000], "a good server can still go on"


@pytest.mark.parametrize("says", [{}, {"Content_Length": str(5 * 10**10)}, {"Content_Length": "9" * 400}])
def test_a_body_beyond_the_files_size_is_not_kept(
    server: Server, tmp_path: Path, says: dict[str, str]
) -> None:
    answering(server, 200, BODY, **says)
    with pytest.raises(DownloadError, match=r"expected at most 0 MB but the server sends more|broke 4 times"):
        download(server.url, tmp_path / "m", most=100_000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_001


def test_an_endless_body_ends_at_the_files_size(server: Server, tmp_path: Path) -> None:
    sent: list[int] = []

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while len(sent) < 1000:
                handler.wfile.write(b"0" * 100_000)
                sent.append(100_000)
        except OSError:
            return

    server.answer = answer
    with pytest.raises(DownloadError, match="expected at most 2 MB but the server sends more"):
        download(server.url, tmp_path / "m", most=2_000_000)
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [416, 204, 205])
def test_odd_answers_leave_no_file(server: Server, tmp_path: Path, code: int) -> None:
    answering(server, code, b"")
    with pytest.raises(DownloadError):
        download(server.url, tmp_path / "m")
    assert names(tmp_path) == []


@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("name", ["m.part", "m.part.tag"])
def test_a_planted_link_costs_nobody_a_file(server: Server, tmp_path: Path, name: str, plant: str) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "models"
    victim.write_bytes(b"precious")
    folder.mkdir()
    getattr(folder / name, plant)(victim)
    assert download(server.url, folder / "m").read_bytes() == BODY
    assert victim.read_bytes() == b"precious"


def test_the_finished_file_takes_no_way_through_a_link(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").symlink_to(tmp_path / "elsewhere")
    assert download(server.url, tmp_path / "m").read_bytes() == BODY
    assert names(tmp_path) == ["m"] and not (tmp_path / "m").is_symlink()


@pytest.mark.parametrize(
    "tag",
    [b"", b"v1", b'W/"v1"', b'"v1"\r\nX-Evil: 1', b"\xff\xfe", b'"' + b"x" * 5000 + b'"', b"\0" * 10],
)
def test_a_foreign_tag_begins_again(server: Server, tmp_path: Path, tag: bytes) -> None:
    (tmp_path / "m.part").write_bytes(b"foreign")
    (tmp_path / "m.part.tag").write_bytes(tag)
    assert download(server.url, tmp_path / "m").read_bytes() == BODY
    assert server.ranges == [None]
    assert names(tmp_path) == ["m"]


def test_a_planted_start_with_the_right_tag_is_found_by_the_checksum(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.part").write_bytes(b"foreign")
    (tmp_path / "m.part.tag").write_text('"v1"')
    digest = hashlib.sha256(BODY).hexdigest()
    with pytest.raises(DownloadError, match="expected sha256"):
        download(server.url, tmp_path / "m", sha256=digest)
    assert names(tmp_path) == []
    assert download(server.url, tmp_path / "m", sha256=digest).read_bytes() == BODY


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_another_users_start_is_not_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.part").write_bytes(b"foreign")
    (tmp_path / "m.part.tag").write_text('"v1"')
    os.chown(tmp_path / "m.part", 65534, 65534)
    assert download(server.url, tmp_path / "m").read_bytes() == BODY


def test_what_a_server_says_is_shown_short_and_printable(server: Server, tmp_path: Path) -> None:
    def answer(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 404 \x1b[2J" + b"x" * 3000 + b"\r\n\r\n")
        handler.close_connection = True

    server.answer = answer
    with pytest.raises(DownloadError) as caught:
        download(server.url, tmp_path / "m")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@pytest.mark.parametrize("at", [0, 5_000])
def test_noise_in_place_of_encrypted_bytes_is_a_broken_connection(
    server: Server, tmp_path: Path, at: int
) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:at])
        os.write(handler.connection.fileno(), b"noise" * 1000)
        handler.close_connection = True

    server.answer = answer
    with pytest.raises(DownloadError, match="the connection broke 4 times"):
        download(server.url, tmp_path / "m")


@pytest.mark.parametrize(
    "address",
    [
        "https://[::1",
        "https://127.0.0.1:99999/m",
        "https://127.0.0.1:port/m",
        "https://127.0.0.1:0/m",
        "https:///m",
        "https://a b/m",
        "https://\xff/m",
        "https://" + "a" * 300 + "/m",
        "https://127.0.0.1/" + "a" * 60_000,
        "m" * 70_000,
    ],
)
def test_redirects_to_addresses_that_are_none(server: Server, tmp_path: Path, address: str) -> None:
    answering(server, 302, b"", Location=address)
    with pytest.raises(DownloadError, match="expected ") as refused:
        download(server.url, tmp_path / "m")
    assert str(refused.value).isprintable() and len(str(refused.value)) < 600
    assert names(tmp_path) == []
