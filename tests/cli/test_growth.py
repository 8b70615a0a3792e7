"""`platonic-ray growth` prints what `platonic_ray.growth` returns; a metric of one's own lies in the folder."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import platonic_ray as pr
from platonic_ray.cli import main

OWN = """
from platonic_ray.metrics.knn import MUTUAL_KNN
from dataclasses import replace

MINE = replace(MUTUAL_KNN, name="mine", reference=None)
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4)).astype("f4")
    stack = np.stack([rng.normal(size=(120, 5)), np.hstack([x, x[:, :1]])], 1).astype("f4")
    for name, array in (("x", x), ("y", stack)):
        np.save(tmp_path / f"{name}.npy", array)
    return [str(tmp_path / f"{name}.npy") for name in "xy"]


def test_its_json_is_the_curve_of_the_library(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["growth", *files, "--sizes", "40", "120", "--k", "5", "--splits", "4", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    expected = pr.growth(*(np.load(file) for file in files), sizes=[40, 120], k=5, splits=4)
    assert rows == expected.to_dicts()
    assert [(row["size"], row["layer_y"]) for row in rows] == [(40, 1), (120, 1)]


def test_for_people_it_says_how_and_prints_a_line_a_size(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--protocol", "queries", "--queries", "50", "--layers", "0", "1", "--sizes", "20", "70"]
    assert main(["growth", *files, *how]) == 0
    head, names, *lines = capsys.readouterr().out.splitlines()
    assert "mutual_knn, layers 0 and 1 (given)" in head
    assert names.split()[:3] == ["size", "k", "score"]
    assert [line.split()[0] for line in lines] == ["20", "70"]


def test_what_cannot_be_is_refused(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["growth", *files, "--sizes", "500"]) == 2
    assert "error: " in capsys.readouterr().err


def test_a_metric_of_ones_own_is_found_in_the_current_folder(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_metric_of_growth.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    own = "my_metric_of_growth:MINE"
    assert main(["growth", *files, "--metric", own, "--k", "5", "--sizes", "120", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["score"] > 0.5
