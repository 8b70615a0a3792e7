"""Models on a hub, a real one on loopback: pinned, fetched, refused in one line, and quick where there is none."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from model_samples import entry

from platonic_ray.errors import WeightsError
from platonic_ray.models import check_models, hub, load, resolve

COMMIT = "0123456789" * 4
KIND = "transformers-text"


class _Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub: the commit, the tree, and files by their size and hash."""

    folder: Path
    verdict: tuple[int, str] | None = None
    asked: list[str]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.asked.append(path)
        files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        if self.verdict is not None:
            code, said = self.verdict
            self._send(code, b"{}", {"X-Error-Code": said, "X-Error-Message": said})
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040x}"}
                for name, content in files.items()
            ]
            self._send(200, json.dumps(tree).encode())
        elif path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": name} for name in files]
            self._send(200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode())
        elif (name := path.rsplit("/", 1)[-1]) in files:
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


@pytest.fixture
def served(tiny_bert, tmp_path, monkeypatch):
    """A hub that has the tiny BERT, and an empty cache; what it is asked is in `asked`."""
    handler = type("Hub", (_Hub,), {"folder": tiny_bert, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _use(monkeypatch, tmp_path, server.server_port)
    yield handler, server
    server.shutdown()
    server.server_close()


def _use(monkeypatch, cache: Path, port: int) -> None:
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


def _spec(**given):
    return resolve(entry(**{"kind": KIND, "weights": "hub:org/tiny", **given}))


def test_a_revision_is_pinned_to_its_commit_and_its_files_are_fetched_once(served, tiny_bert) -> None:
    handler, _ = served
    spec = _spec(layers=[-1])
    assert spec.identity()["weights"]["hub"] == f"org/tiny@{COMMIT}"
    model = load(spec)
    folder = load(resolve(entry(kind=KIND, weights=str(tiny_bert), layers=[-1])))
    assert model.embed(["dog"]).layers[0].tobytes() == folder.embed(["dog"]).layers[0].tobytes()
    handler.asked.clear()
    load(spec)
    assert not [path for path in handler.asked if "safetensors" in path]


def test_what_is_in_the_cache_needs_no_hub_and_no_patience(served, tmp_path, monkeypatch) -> None:
    _, server = served
    model = load(_spec())
    server.shutdown()
    server.server_close()
    hub._answers.cache_clear()
    monkeypatch.setattr(
        "time.sleep", lambda seconds: pytest.fail(f"waited {seconds} s for a hub that is not there")
    )
    again = load(_spec())
    assert np.array_equal(again.embed(["dog"]).layers[0], model.embed(["dog"]).layers[0])


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ((403, "GatedRepo"), r"hub:org/tiny cannot be had \(GatedRepoError\)\. Accept its terms"),
        ((404, "RepoNotFound"), r"cannot be had \(RepositoryNotFoundError\)\. Check its name and revision"),
        ((404, "RevisionNotFound"), r"cannot be had \(RevisionNotFoundError\)\. Check its name and revision"),
        ((401, "Unauthorized"), r"cannot be had .*The hub refuses access \(401\): log in"),
        ((500, "Broken"), r"cannot be had .*The hub has a fault of its own \(500\): run again later"),
    ],
)
def test_a_verdict_of_the_hub_is_one_clear_line(verdict, message, served) -> None:
    handler, _ = served
    handler.verdict = verdict
    with pytest.raises(WeightsError, match=message) as refused:
        _spec()
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_said_to_be_full(served, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    spec = _spec()
    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(WeightsError, match=r"cannot be written to .*: No space left") as refused:
        load(spec)
    assert "cannot be reached" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_fault_of_the_hub_in_the_download_is_no_absence(served, monkeypatch) -> None:
    handler, _ = served
    spec = _spec()
    handler.verdict = (503, "Busy")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # its client's patience
    with pytest.raises(WeightsError, match=r"fault of its own \(503\)"):
        load(spec)


def test_a_repository_without_safetensors_is_found_by_a_check(served, tiny_bert, tmp_path) -> None:
    handler, _ = served
    assert check_models([entry(kind=KIND, weights="hub:org/tiny")])[0].weights == "hub"
    handler.folder = Path(shutil.copytree(tiny_bert, tmp_path / "bare"))
    (handler.folder / "model.safetensors").rename(handler.folder / "pytorch_model.bin")
    (refused,) = check_models([entry(kind=KIND, weights="hub:org/tiny")])
    assert "has no weights of a form that is read (*.safetensors); it has: config.json" in refused.problem
    (named,) = check_models([entry(kind=KIND, weights="hub:org/tiny", file="pytorch_model.bin")])
    assert (named.problem, named.weights) == (None, "hub")


def test_a_verdict_is_not_overruled_by_an_old_copy_in_the_cache(served) -> None:
    handler, _ = served
    load(_spec())
    handler.verdict = (403, "GatedRepo")
    with pytest.raises(WeightsError, match="Accept its terms"):
        _spec()


def test_a_hub_that_is_not_there_is_said_at_once(tmp_path, monkeypatch) -> None:
    _use(monkeypatch, tmp_path, 9)
    monkeypatch.setattr(
        "time.sleep", lambda seconds: pytest.fail(f"waited {seconds} s for a hub that is not there")
    )
    for address in ("hub:org/tiny", f"hub:org/tiny@{COMMIT}"):
        with pytest.raises(WeightsError, match="cannot be reached from here, and its cache does not have it"):
            load(_spec(weights=address))


def test_offline_mode_asks_nothing(served, monkeypatch) -> None:
    handler, _ = served
    load(_spec())
    handler.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    load(_spec())
    assert handler.asked == []
