"""A proxy on loopback that passes connections on, and cuts those of one path as a bad network does."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self
from urllib.parse import urlsplit

_CLOSING_FRAME = b"\x88\x02\x03\xe8"
"""What a WebSocket server says to end a connection in good order."""


class CutConnections:
    """Of the connections that ask for `path`, the first ones go one of these ways after their first piece: "cut",
    "closed" in good order, or "silent", as one whose other end has gone without a word.

    `done` says what happened so far.
    """

    def __init__(self, address: str, path: str, *ways: str) -> None:
        parts = urlsplit(address)
        self._target = (parts.hostname, parts.port)
        self._path = path.encode()
        self._waiting = list(ways)
        self.done: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        far = socket.create_connection(self._target)
        first = near.recv(65536)
        what = self._waiting.pop(0) if self._path in first and self._waiting else None
        far.sendall(first)
        if what != "silent":
            threading.Thread(target=_copy, args=(near, far), daemon=True).start()
        if what is not None:
            near.sendall(_first_piece(far))
            if what == "closed":
                near.sendall(_CLOSING_FRAME)
            self.done.append(what)
            if what == "silent":
                with contextlib.suppress(OSError):
                    while near.recv(65536):
                        pass
        else:
            _copy(far, near)
        for end in (near, far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # closing alone says nothing while another thread reads
            end.close()


def _first_piece(far: socket.socket) -> bytes:
    """Read the head of an answer and one whole WebSocket frame (RFC 6455, section 5.2), which may come in parts."""
    read = b""
    while True:
        head, ended, rest = read.partition(b"\r\n\r\n")
        if ended and len(rest) >= 2:
            size, after = rest[1] & 127, 2
            if size > 125:
                after = 4 if size == 126 else 10
                size = int.from_bytes(rest[2:after], "big")
            if len(rest) >= after + size:
                return head + ended + rest[: after + size]
        if not (more := far.recv(65536)):
            return read
        read += more


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # cut, on one side or the other
