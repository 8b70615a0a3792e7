"""`table`: every format of features, and one clear message for what is wrong."""

import json

import numpy as np
import pytest
from support import run

import platonic_ray as pr


def test_every_format_holds_the_same_features(features, capsys):
    folder, _ = features
    files = [folder / name for name in ("a.npy", "b.safetensors", "c.parquet", "d.arrow")]
    assert run("table", *files, "--metric", "cka", "--k", 5, "--json") == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert len(models) == 10
    assert all(abs(model["score"] - 1) < 1e-6 for model in models)  # sums of float32 products


def test_the_table_on_the_terminal_has_the_score_and_its_layers(features, capsys):
    folder, rows = features
    assert run("table", folder / "a.npy", folder / "flat.npy", "--k", 5) == 0
    said = capsys.readouterr().out
    assert "1.000 (0,0)" in said
    assert "k = 5" in said
    assert pr.score(rows[:, 0], rows[:, 0], k=5) == 1.0


def test_the_table_can_be_kept_and_drawn(features, capsys):
    folder, rows = features
    saved = folder / "alike"
    assert run("table", folder / "a.npy", folder / "b.safetensors", "--k", 5, "--out", saved) == 0
    capsys.readouterr()
    files = (folder / "a.npy", folder / "flat.npy")
    assert run("table", *files, "--k", 5, "--intervals", "population", "--out", saved) == 0
    printed = capsys.readouterr().out
    assert run("show", saved) == 0
    assert capsys.readouterr().out == printed
    assert pr.load(saved).equals(pr.table({"a": rows, "flat": rows[:, 0]}, k=5, intervals="population"))
    assert "flat" in (saved / "report.html").read_text(encoding="utf-8")  # of this table, whatever was there
    assert run("figure", saved, "--kind", "layers", "--out", folder / "layers.svg") == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 2, 2, 2)), "expected [N, D] or [N, L, D]"),
        (np.zeros((5, 3)), "k = 10 needs more than 10 samples"),
        (np.full((40, 3), np.nan), "NaN"),
        (np.array([["a", "b"]] * 40), "must hold real numbers"),
    ],
)
def test_features_that_cannot_be_used_are_one_clear_error(features, capsys, content, message):
    folder, _ = features
    np.save(folder / "bad.npy", content)
    np.save(folder / "bad2.npy", content)
    assert run("table", folder / "bad.npy", folder / "bad2.npy") in (2, 3)
    assert message in capsys.readouterr().err


def test_an_array_of_pickles_is_refused(features, capsys):
    folder, _ = features
    np.save(folder / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert run("table", folder / "evil.npy", folder / "a.npy") == 3
    assert "cannot be read as features" in capsys.readouterr().err


def test_other_samples_in_two_files_are_refused(features, capsys):
    folder, rows = features
    np.save(folder / "short.npy", rows[:30])
    assert run("table", folder / "short.npy", folder / "a.npy") == 3
    assert "same samples" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing.npy", "weights.bin", "truncated.npy"])
def test_a_file_that_cannot_be_read_is_named(features, capsys, name):
    folder, _ = features
    (folder / "truncated.npy").write_bytes((folder / "a.npy").read_bytes()[:200])
    assert run("table", folder / name, folder / "a.npy") == 3
    assert name in capsys.readouterr().err


def test_an_unknown_metric_is_refused_with_the_nearest(features, capsys):
    folder, _ = features
    assert run("table", folder / "a.npy", folder / "flat.npy", "--metric", "cca") == 2
    assert "cka" in capsys.readouterr().err


def test_a_metric_given_twice_is_refused(features, capsys):
    folder, _ = features
    assert run("table", folder / "a.npy", folder / "flat.npy", "--metric", "cka", "--metric", "cka") == 2
    assert "twice" in capsys.readouterr().err
