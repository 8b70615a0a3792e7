"""A hub on loopback, as much of one as huggingface_hub asks for: of a model, or of a dataset."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platonic_ray import hub

COMMIT = "0123456789" * 4


class LoopbackHub(BaseHTTPRequestHandler):
    """Answers with the commit, the tree, and files by their size and hash; or with a verdict."""

    folder: Path
    repo = "models/org/tiny"
    verdict: tuple[int, str] | None = None
    asked: list[str]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.asked.append(path)
        found = [file for file in sorted(self.folder.rglob("*")) if file.is_file()]
        files = {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in found}
        name = path.partition("/resolve/")[2].partition("/")[2]
        if self.verdict is not None:
            code, said = self.verdict
            self._send(code, b"{}", {"X-Error-Code": said, "X-Error-Message": said})
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040x}"}
                for name, content in files.items()
            ]
            self._send(200, json.dumps(tree).encode())
        elif path.startswith(f"/api/{self.repo}"):
            siblings = [{"rfilename": name} for name in files]
            said = {"id": self.repo.partition("/")[2], "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(said).encode())
        elif name in files:
            more = {"X-Repo-Commit": COMMIT, "ETag": f'"{len(files[name]):040x}"'}
            self._send(200, files[name], more)
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(
    folder: Path, repo: str, cache: Path, monkeypatch: Any
) -> Iterator[tuple[type[LoopbackHub], ThreadingHTTPServer]]:
    """Serve a folder as a repository, and make it the hub of this process, with an empty cache."""
    handler = type("Hub", (LoopbackHub,), {"folder": folder, "repo": repo, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use(monkeypatch, cache, server.server_port)
    yield handler, server
    server.shutdown()
    server.server_close()


def use(monkeypatch: Any, cache: Path, port: int) -> None:
    """Make what answers at a port the hub of this process."""
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("PLATONIC_RAY_CACHE", str(cache / "notes"))
    hub._answers.cache_clear()
