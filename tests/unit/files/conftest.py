"""What the tests of downloads share: a server that they trust."""

from collections.abc import Iterator

import pytest

from memo_avatar.files import downloads
from tests.helpers.tls_server import Server, authority, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    authorities = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority().cert_pem.write_to_path(authorities)
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(downloads, "CHUNK_BYTES", 10_000)
    found = Server()
    with serving(found) as found.url:
        yield found
