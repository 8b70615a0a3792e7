"""Datasets of the hub, from its local cache as `huggingface_hub` lays it out: no test reaches a hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_selection import COLORS, png

from platonic_ray.datasets.hub import read_hub
from platonic_ray.errors import StudyError

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
    assert nowhere.endswith("The hub cannot be reached from here, and its local cache does not have it.")


def test_an_address_of_another_form_and_a_missing_library_are_clear_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(StudyError, match="is not of the form 'hub:org/name@revision'"):
        read_hub("hub:a b")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(StudyError, match=r"pip install 'platonic-ray\[datasets\]'"):
        read_hub("hub:org/pairs")
