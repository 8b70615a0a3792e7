"""Datasets of the hub: from its local cache as `huggingface_hub` lays it out, and from a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import COMMIT, LoopbackHub, serving
from test_selection import COLORS, png

from platonic_ray import hub
from platonic_ray.datasets.hub import read_hub
from platonic_ray.errors import DataError, StudyError

COMMITS = {"wit_1024": "0123456789" * 4, "main": "fedcba9876" * 4}

SCRIPT = """
import json, sys
from platonic_ray.datasets import open_dataset
from platonic_ray.errors import PlatonicRayError
from platonic_ray.study import DatasetEntry
for given in json.loads(sys.argv[1]):
    try:
        data = open_dataset(DatasetEntry.model_validate(given), seed=0)
        views = {view: data.read(view) for view in data.views}
        said = {view: [x.hex() if isinstance(x, bytes) else x for x in items] for view, items in views.items()}
    except PlatonicRayError as error:
        said = str(error)
    print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A primed cache: `org/pairs` at a branch of one split (like `minhuh/prh` at `wit_1024`), at main of two."""
    home = tmp_path_factory.mktemp("home")
    repo = home / "hub" / "datasets--org--pairs"
    rows = {
        "text": [[f"a {color} square", "a shape"] for color in COLORS],
        "image": [{"bytes": png(color), "path": f"{color}.png"} for color in COLORS],
    }
    for branch, splits in (("wit_1024", ["train"]), ("main", ["train", "test"])):
        data = repo / "snapshots" / COMMITS[branch] / "data"
        data.mkdir(parents=True)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / branch).write_text(COMMITS[branch])
        for at, split in enumerate(splits):
            part = pa.table({name: items[at:] for name, items in rows.items()})
            pq.write_table(part, data / f"{split}-00000-of-00001.parquet")
    return home


def ask(home: Path, *entries: dict[str, object]) -> list[object]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(entries)], env=environment, text=True, capture_output=True
    )
    assert said.returncode == 0, said.stderr
    assert not said.stderr  # no progress bars
    return [json.loads(line) for line in said.stdout.splitlines()]


def test_a_dataset_is_read_by_its_id_revision_split_and_caption_index(cached: Path) -> None:
    source = "hub:org/pairs@wit_1024"
    second = {"caption": {"column": "text", "kind": "text", "items": 1}}
    first, other, test, several, unknown, nowhere = ask(
        cached,
        {"source": source},
        {"source": source, "views": second},
        {"source": "hub:org/pairs", "split": "test"},
        {"source": "hub:org/pairs"},
        {"source": "hub:org/pairs", "split": "dev"},
        {"source": "hub:org/none@main"},
    )
    captions = [f"a {color} square" for color in COLORS]
    assert first == {"text": captions, "image": [png(color).hex() for color in COLORS]}
    assert other["caption"] == ["a shape"] * 5
    assert test["text"] == captions[1:]
    assert several == "dataset.split: hub:org/pairs: it has several; give one of: train, test."
    assert unknown == "dataset.split: hub:org/pairs: there is no 'dev'; give one of: train, test."
    assert nowhere.startswith("hub:org/none@main cannot be had (")
    assert nowhere.endswith(
        "The hub cannot be reached from here, and its cache does not have it. Download it elsewhere and give its "
        "folder as the source."
    )


def test_an_address_of_another_form_and_a_missing_library_are_clear_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(StudyError, match="is not an address of the form 'hub:org/name@revision'"):
        read_hub("hub:a b")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(StudyError, match=r"pip install 'platonic-ray\[datasets\]'"):
        read_hub("hub:org/pairs")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[LoopbackHub], Any]]:
    """A hub that has `org/pairs`, an empty cache of its own and one of `datasets`."""
    data = tmp_path / "repo" / "data"
    data.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["one", "two"]}), data / "train-00000-of-00001.parquet")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    with serving(tmp_path / "repo", "datasets/org/pairs", tmp_path, monkeypatch) as both:
        yield both


def test_a_branch_is_pinned_to_its_commit_and_read_without_a_hub_afterwards(
    served: tuple[type[LoopbackHub], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, server = served
    assert hub.pin("hub:org/pairs@wit", "dataset") == f"hub:org/pairs@{COMMIT}"
    assert read_hub("hub:org/pairs@wit")["text"].to_pylist() == ["one", "two"]
    assert f"/datasets/org/pairs/resolve/{COMMIT}/data/train-00000-of-00001.parquet" in handler.asked
    server.shutdown()
    server.server_close()
    hub._answers.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", lambda seconds: pytest.fail(f"waited {seconds} s for a hub that is away"))
        assert read_hub("hub:org/pairs@wit")["text"].to_pylist() == ["one", "two"]
        with pytest.raises(DataError, match="cannot be reached from here, and its cache does not have it"):
            read_hub("hub:org/pairs@other")


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ((403, "GatedRepo"), r"hub:org/pairs cannot be had \(GatedRepoError\)\. Accept its terms"),
        ((404, "RepoNotFound"), r"cannot be had \(RepositoryNotFoundError\)\. Check its name and revision"),
        ((404, "RevisionNotFound"), r"cannot be had \(RevisionNotFoundError\)\. Check its name and revision"),
    ],
)
def test_a_verdict_of_the_hub_is_not_overruled_by_an_old_copy(
    served: tuple[type[LoopbackHub], Any], verdict: tuple[int, str], message: str
) -> None:
    handler, _ = served
    read_hub("hub:org/pairs")
    handler.verdict = verdict
    with pytest.raises(DataError, match=message):
        read_hub("hub:org/pairs")
