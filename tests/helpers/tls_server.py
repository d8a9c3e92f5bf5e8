"""A file server with TLS on this machine: honest by default, and as dishonest as a test makes it."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

BODY = bytes(range(256)) * 4_000


class Server:
    """What the handler answers, and what it was asked."""

    def __init__(self) -> None:
        self.body, self.tag, self.cut = BODY, '"v1"', 0  # cut: close the connection after so many bytes, once
        self.ranges: list[str | None] = []
        self.with_ranges, self.status, self.kind = True, 200, "application/octet-stream"
        self.url = ""

    def answer(self, handler: Any) -> None:
        wanted = handler.headers.get("Range")
        self.ranges.append(wanted)
        if self.status != 200:
            handler.send_error(self.status)
            return
        start = 0
        if wanted and self.with_ranges and handler.headers.get("If-Range") == self.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        body = self.body[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Content-Type", self.kind)
        if self.tag:
            handler.send_header("ETag", self.tag)
        handler.end_headers()
        if self.cut:
            body, self.cut = body[: self.cut], 0
            handler.close_connection = True
        handler.wfile.write(body)


@contextmanager
def serving(server: Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is what is tested."""

    with Quiet(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = tls().wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{httpd.server_port}/model.safetensors"
        httpd.shutdown()


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    return context
