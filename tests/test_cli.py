"""The command line: tables of feature files, the demo's study, one clear message for what is wrong."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import platonic_ray as pr
from platonic_ray.cli import demo_study, main
from platonic_ray.study import Study


@pytest.fixture
def features(tmp_path):
    """One representation in all formats: 40 samples, 2 layers of width 6."""
    rows = np.random.default_rng(0).normal(size=(40, 2, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    save_file({f"layer{i}": torch.tensor(rows[:, i]) for i in range(2)}, tmp_path / "b.safetensors")
    columns = {
        f"l{i}": pa.FixedSizeListArray.from_arrays(pa.array(rows[:, i].reshape(-1)), 6) for i in range(2)
    }
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    lists = pa.table({f"l{i}": pa.array(rows[:, i].tolist()) for i in range(2)})
    with pa.OSFile(str(tmp_path / "d.arrow"), "wb") as sink, pa.ipc.new_file(sink, lists.schema) as writer:
        writer.write_table(lists)
    np.save(tmp_path / "flat.npy", rows[:, 0].astype(np.float64))
    return tmp_path, rows


def run(*arguments):
    return main([str(argument) for argument in arguments])


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


def test_the_demos_study_can_be_copied_and_is_the_demos(tmp_path, capsys):
    assert run("demo", "--write", tmp_path / "study.toml") == 0
    assert Study.from_toml(tmp_path / "study.toml") == demo_study()
    assert run("demo", "--write", tmp_path / "study.toml") == 2
    assert "there already" in capsys.readouterr().err


def test_the_demo_compares_text_with_text_images_with_images_and_both_and_two_languages():
    study = demo_study()
    views = [model.view for model in study.models]
    assert views.count("image") >= 3
    assert {"name.en", "name.de"} <= set(views)
    by_language = {
        model.view for model in study.models if model.use == "minilm-l6" and model.init == "pretrained"
    }
    assert by_language == {"name.en", "name.de"}


def test_a_saved_result_is_shown(features, tmp_path, capsys):
    _, rows = features
    pr.table({"a": rows, "b": rows[:, ::-1]}, metric=["mutual_knn", "cka"], k=5).save(tmp_path / "out")
    assert run("show", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "mutual_knn" in said
    assert "cka" in said
    assert run("show", tmp_path / "out", "--metric", "rsa") == 2
    assert run("show", tmp_path / "nothing") == 5


def test_a_store_that_cannot_be_written_is_one_clear_error(tmp_path, capsys, small_study):
    (tmp_path / "file").write_text("")
    (tmp_path / "study.toml").write_text('[[models]]\nname = "p"\nuse = "pixels"\nview = "image"\n')
    assert (
        run("run", tmp_path / "study.toml", "--store", tmp_path / "file" / "store", "--engine", "local") == 5
    )
    assert "Choose a store" in capsys.readouterr().err


def test_the_program_prints_no_traceback_for_a_users_error(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "platonic_ray.cli", "run", str(tmp_path / "none.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: There is no study file")
    assert "Traceback" not in ran.stderr


def test_a_reader_that_leaves_early_is_no_error(features):
    folder, _ = features
    command = (
        f"{sys.executable} -m platonic_ray.cli table {folder}/a.npy {folder}/b.safetensors --k 5 | head -n 1"
    )
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""


def test_a_study_that_cannot_be_written_is_one_clear_error(tmp_path, capsys):
    assert run("demo", "--write", tmp_path / "no" / "such" / "folder.toml") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_metric_given_twice_is_refused(features, capsys):
    folder, _ = features
    assert run("table", folder / "a.npy", folder / "flat.npy", "--metric", "cka", "--metric", "cka") == 2
    assert "twice" in capsys.readouterr().err
