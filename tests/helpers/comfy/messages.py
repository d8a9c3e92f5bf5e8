"""What ComfyUI says while a prompt runs: a websocket client on the standard library."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import threading
from typing import Any

_TEXT, _BINARY, _CLOSE = 1, 2, 8
_PICTURES, _NODE_TEXT = (1, 2, 4), 3  # what a binary message begins with


class Messages:
    """`with Messages(port, client_id) as messages`: everything the server says to this client."""

    def __init__(self, port: int, client_id: str) -> None:
        self.port, self.client_id = port, client_id
        self.texts: list[dict[str, Any]] = []
        self.node_texts: list[tuple[str, str]] = []  # node id, what is written on it
        self.previews = 0
        self._changed = threading.Condition()

    def __enter__(self) -> Messages:
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET /ws?clientId={self.client_id} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._stream = self._socket.makefile("rb")
        assert b"101" in self._stream.readline()
        while self._stream.readline().strip():
            pass
        self._socket.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def of(self, kind: str, node: str | None = None) -> list[dict[str, Any]]:
        """The data of all messages of a kind, of one node where given."""
        found = [text["data"] for text in list(self.texts) if text["type"] == kind]
        return [data for data in found if node is None or data.get("node") == node]

    def wait_for(self, kind: str, node: str | None = None, seconds: float = 240) -> None:
        """Until there is such a message."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.of(kind, node), seconds), f"no {kind} came"

    def _read(self) -> None:
        try:
            while True:
                opcode, payload = self._frame()
                if opcode == _CLOSE:
                    return
                with self._changed:
                    if opcode == _TEXT:
                        self.texts.append(json.loads(payload))
                    if opcode == _BINARY:
                        self._take_binary(payload)
                    self._changed.notify_all()
        except (OSError, ValueError, struct.error):
            return

    def _take_binary(self, payload: bytes) -> None:
        (kind,) = struct.unpack(">I", payload[:4])
        self.previews += kind in _PICTURES
        if kind == _NODE_TEXT:
            (length,) = struct.unpack(">I", payload[4:8])
            self.node_texts.append((payload[8 : 8 + length].decode(), payload[8 + length :].decode()))

    def _frame(self) -> tuple[int, bytes]:
        """One message; the server does not split them."""
        first, second = self._stream.read(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack(">H", self._stream.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._stream.read(8))
        return first & 15, self._stream.read(length)
