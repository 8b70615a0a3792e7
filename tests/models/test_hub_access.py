"""Models on a hub, a real one on loopback: pinned, fetched, refused in one line, and quick where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from loopback_hub import COMMIT, serving, use
from model_samples import entry

from platonic_ray import hub
from platonic_ray.errors import WeightsError
from platonic_ray.models import check_models, load, resolve

KIND = "transformers-text"


@pytest.fixture
def served(tiny_bert, tmp_path, monkeypatch):
    """A hub that has the tiny BERT, and an empty cache; what it is asked is in `asked`."""
    with serving(tiny_bert, "models/org/tiny", tmp_path, monkeypatch) as (handler, server):
        yield handler, server


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
    use(monkeypatch, tmp_path, 9)
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
