"""The table of model files, and fetching them from a server on this machine."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memo_avatar.files import downloads
from memo_avatar.files import published_models as model_table
from memo_avatar.files.downloads import DownloadError
from standalone.command import main
from tests.helpers.tls_server import BODY, Server, serving

ROOT = Path(__file__).resolve().parents[3]


def download(url: str, target: Path, *, most: int = 10 * len(BODY), **options: Any) -> Path:
    return downloads.download(url, target, most=most, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "new" / "model.safetensors"
    digest = hashlib.sha256(BODY).hexdigest()
    download(server.url, target, sha256=digest, on_bytes=lambda *at: seen.append(at))
    assert target.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert names(target.parent) == ["model.safetensors"]
    target.write_bytes(b"damaged")
    assert download(server.url, target).read_bytes() == BODY, "over what is there"


def test_a_broken_connection_is_continued(server: Server, tmp_path: Path) -> None:
    server.cut = 300_000
    target = download(server.url, tmp_path / "m")
    assert target.read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-"]


def stop_after(limit: int) -> Any:
    def on_bytes(done: int, _total: int) -> None:
        if done >= limit:
            raise KeyboardInterrupt

    return on_bytes


def test_a_stopped_download_is_continued_by_the_next_command(server: Server, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "m", on_bytes=stop_after(200_000))
    assert names(tmp_path) == ["m.part", "m.part.tag"]
    assert download(server.url, tmp_path / "m").read_bytes() == BODY
    assert server.ranges == [None, "bytes=200000-"]
    assert names(tmp_path) == ["m"]


def test_another_version_is_not_put_behind_the_first(server: Server, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "m", on_bytes=stop_after(200_000))
    server.body, server.tag = BODY[::-1], '"v2"'
    assert download(server.url, tmp_path / "m").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("feature", ["ranges", "tag"])
def test_servers_that_cannot_continue_begin_again(server: Server, tmp_path: Path, feature: str) -> None:
    if feature == "tag":
        server.tag = ""
    else:
        server.with_ranges = False
    server.cut = 300_000
    assert download(server.url, tmp_path / "m").read_bytes() == BODY


def test_a_connection_that_always_breaks(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda handler: handler.connection.close())
    with pytest.raises(DownloadError, match=r"connection broke 4 times.*run the command again to continue"):
        download(server.url, tmp_path / "m")


def test_a_wrong_checksum(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"expected sha256 0000.* but got [0-9a-f]{64}.*was deleted"):
        download(server.url, tmp_path / "m", sha256="0" * 64)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (404, "the server answered 404 Not Found .*Check its page in a browser and put it there: .*/m$"),
        (401, "the server answered 401 Unauthorized .*Download it in a browser"),
        (503, "the connection broke 4 times: the server answered 503"),
    ],
)
def test_refusals(server: Server, tmp_path: Path, status: int, text: str) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=text):
        download(server.url, tmp_path / "m")
    assert names(tmp_path) == []


def test_a_login_page_is_not_a_model(server: Server, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="expected a file but got a web page"):
        download(server.url, tmp_path / "m")


def test_no_network(tmp_path: Path) -> None:
    with serving(Server()) as url:
        pass
    with pytest.raises(DownloadError, match=r"expected a network but got: .*put it there: .*/m$"):
        download(url, tmp_path / "m")


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 10}))
    with pytest.raises(DownloadError, match=r"expected 0\.00 GB free but got 0\.00 GB"):
        download(server.url, tmp_path / "m")


def test_the_table_names_every_file_once_and_safely() -> None:
    paths = [file.path for file in model_table.FILES]
    assert len(set(paths)) == len(paths)
    assert {file.group for file in model_table.FILES} == set(model_table.GROUPS)
    for file in model_table.FILES:
        assert not Path(file.path).is_absolute() and ".." not in Path(file.path).parts
        assert file.url.startswith("https://huggingface.co/")
        assert (file.sha256 == "") == (file.revision == "main")
        assert file.sha256 == "" or len(file.sha256) == 64


def test_the_document_has_the_table_of_the_code() -> None:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert model_table.markdown() in text, "paste the output of `python teacache_memo.py models --markdown`"


def test_status_without_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    (tmp_path / "emotion2vec").mkdir()
    (tmp_path / "emotion2vec" / "model.safetensors").touch()
    assert main(["models", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "there    vae/config.json" in out
    assert "there    emotion2vec/model.pt" in out
    assert "missing  diffusion_net/diffusion_pytorch_model.safetensors  6.71 GB" in out
    assert "from https://huggingface.co/memoavatar/memo/resolve/main/diffusion_net/config.json" in out


def test_the_command_fetches_the_groups_it_is_given(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_table, "HUB", server.url.rsplit("/", 1)[0])
    files = [replace(file, sha256="", megabytes=2.0) for file in model_table.FILES]
    monkeypatch.setattr(model_table, "FILES", files)
    monkeypatch.setattr(model_table, "MAX_CONFIG_BYTES", len(BODY))
    assert main(["models", "download", "vae", "emotion", "--folder", str(tmp_path)]) == 0
    assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == BODY
    assert not (tmp_path / "diffusion_net").exists()
    out = capsys.readouterr().out
    assert "convert-emotion" in out
    assert "emotion2vec/model.pt: no checksum of it is published; its size alone was checked." in out


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 123\n"
DAMAGED = {
    "vae/config.json": b"<html>Sign in</html>",
    "vae/diffusion_pytorch_model.safetensors": b"",
    "emotion2vec/model.pt": POINTER,
    "misc/face_analysis/models/glintr100.onnx": b"",
}


def test_what_is_damaged_is_not_called_there_and_is_fetched_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ "Download it again", the nodes say of such a file: the command must do it."""
    monkeypatch.setattr(model_table, "HUB", server.url.rsplit("/", 1)[0])
    files = [replace(file, sha256="", megabytes=2.0) for file in model_table.FILES if file.path in DAMAGED]
    monkeypatch.setattr(model_table, "FILES", files)
    monkeypatch.setattr(model_table, "MAX_CONFIG_BYTES", len(BODY))
    for name, content in DAMAGED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert main(["models", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(f"damaged  {name}" in out for name in DAMAGED)
    assert "4 files missing or damaged, 2 of them always needed." in out
    assert main(["models", "download", *model_table.GROUPS, "--folder", str(tmp_path)]) == 0
    assert all((tmp_path / name).read_bytes() == BODY for name in DAMAGED)


def test_what_is_whole_is_not_fetched_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_table, "HUB", server.url.rsplit("/", 1)[0])
    demo = ROOT / "demo" / "checkpoint" / "vae"
    (tmp_path / "vae").mkdir()
    for path in demo.iterdir():
        (tmp_path / "vae" / path.name).write_bytes(path.read_bytes())
    assert main(["models", "download", "vae", "--folder", str(tmp_path)]) == 0
    assert server.ranges == []


def test_the_command_fails_with_the_list_where_there_is_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_table, "HUB", "https://127.0.0.1:9")
    assert main(["models", "download", "vae", "--folder", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "Error: expected a network but got" in captured.err
    assert "missing  vae/config.json" in captured.out


@pytest.mark.parametrize("arguments", [["models", "download", "music"], ["models", "fetch"]])
def test_unknown_groups_and_actions(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "invalid choice" in capsys.readouterr().err
