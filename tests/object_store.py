"""A real S3 protocol server on loopback, and a proxy in front of it that fails as networks do."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
from processes import free_ports, wait_until
from pyarrow import fs

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-key-of-the-tests",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ObjectStore:
    """Moto's S3 server in a process of its own, with one bucket; what it holds goes with it."""

    bucket = "platonic-tests"

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "1000"},
        )
        wait_until(self._answers, lambda: "moto did not start")
        self.files = fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            access_key=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            secret_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            allow_bucket_creation=True,
        )
        self.files.create_dir(self.bucket)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "moto ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find this server and to be let in."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def new_uri(self, through: FaultyProxy | None = None) -> str:
        """The URI of a store that nobody has used yet."""
        uri = f"s3://{self.bucket}/{uuid.uuid4().hex[:8]}/store"
        return uri if through is None else f"{uri}?endpoint_override=127.0.0.1:{through.port}&scheme=http"

    def objects(self, uri: str) -> dict[str, fs.FileInfo]:
        """Every object below a store, by its path below the bucket; folder markers too."""
        root = uri.removeprefix("s3://").partition("?")[0]
        found = self.files.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        return {info.path: info for info in found}

    def files_below(self, uri: str) -> list[str]:
        """The paths of all objects of a store."""
        return [path for path, info in self.objects(uri).items() if info.type == fs.FileType.File]

    def flip(self, path: str, at: int | None = None) -> None:
        """Flip one bit of an object, by default in its middle."""
        with self.files.open_input_file(path) as stream:
            data = bytearray(stream.readall())
        data[len(data) // 2 if at is None else at] ^= 1
        with self.files.open_output_stream(path) as stream:
            stream.write(pa.py_buffer(bytes(data)))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


Fault = Callable[[str, str], str | None]
"""Given a request's method and path, the name of what is to go wrong with it, or None."""


class FaultyProxy:
    """Passes requests on to an object store; what `fault` names goes wrong instead.

    "500", "503" (slow down), "403": that answer; "reset": the connection is cut; "hang": no answer
    comes for five seconds; "truncate": half of the answer's body comes, then the connection is cut;
    "flip": a bit of the answer's body is flipped.
    """

    def __init__(self, port: int) -> None:
        self.fault: Fault = lambda method, path: None
        self.injected: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.body()
                fault = proxy.fault(self.command, self.path)
                if fault:
                    proxy.injected.append(fault)
                if fault == "hang":
                    time.sleep(5)
                if fault in ("reset", "hang"):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif fault in _CODES:
                    text = "" if self.command == "HEAD" else _ERROR.format(code=_CODES[fault])
                    self.answer(int(fault), [], text.encode())
                else:
                    self.pass_on(body, fault)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                chunks = []
                while size := int(self.rfile.readline().partition(b";")[0], 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def pass_on(self, body: bytes, fault: str | None) -> None:
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    dropped = ("transfer-encoding", "content-length", "expect")
                    headers = {n: v for n, v in self.headers.items() if n.lower() not in dropped}
                    upstream.request(
                        self.command, self.path, body, {**headers, "Content-Length": str(len(body))}
                    )
                    answer = upstream.getresponse()
                    data = answer.read()
                    said = answer.getheaders()
                except OSError:  # the server is away
                    self.close_connection = True
                    return
                finally:
                    upstream.close()
                if fault == "flip" and data:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                self.answer(answer.status, said, data, cut=fault == "truncate" and len(data) > 1)

            def answer(
                self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False
            ) -> None:
                self.send_response_only(status)
                length = str(len(data))
                for name, value in headers:
                    if self.command == "HEAD" and name.lower() == "content-length":
                        length = value
                    elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if cut else data)
                if cut:
                    self.close_connection = True

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def once(self, fault: str, method: str, part: str = "") -> None:
        """Let the next request of a method whose path holds `part` go wrong."""
        left = [fault]

        def decide(asked: str, path: str) -> str | None:
            return left.pop() if left and asked == method and part in path else None

        self.fault = decide

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


_CODES = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied"}
_ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>injected</Message></Error>'
