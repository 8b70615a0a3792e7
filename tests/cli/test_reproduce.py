"""`reproduce`: each figure of the paper from one command, on the embedded models and few emoji."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import run

from platonic_ray.cli.reproduce import FIGURES
from platonic_ray.studies import packaged_study
from platonic_ray.studies.figures import FIGURES as FACTS
from platonic_ray.study import Study


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features of one figure serve the others."""
    return tmp_path_factory.mktemp("figures") / "store"


def rows_of(figure, store, tmp_path, capsys, *more):
    given = ("--samples", 30, "--engine", "local", "--quiet", "--store", store, "--out", tmp_path / "out")
    assert run("reproduce", figure, *given, *more, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    with (tmp_path / "out" / f"{figure}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    return rows


def test_every_figure_is_a_study_scored_as_published(tmp_path):
    assert tuple(FACTS) == FIGURES
    for figure in FIGURES:
        study = packaged_study(figure)
        assert (study.name, study.recipe, study.compat) == (figure, "huh2024", "platonic-rep")
        assert run("reproduce", figure, "--write", tmp_path / f"{figure}.toml") == 0
        assert Study.from_toml(tmp_path / f"{figure}.toml") == study


@pytest.mark.weights
def test_captions_from_sparse_to_dense_are_set_beside_their_alignment(store, tmp_path, capsys):
    rows = rows_of("fig9", store, tmp_path, capsys)
    assert [row["captions"] for row in rows] == ["group", "subgroup", "name.en", "tags.en"]
    assert all(
        0 < row["alignment"] < 1 and row["deviation"] > 0 and row["language_models"] == 3 for row in rows
    )


@pytest.mark.weights
def test_the_sweep_leaves_out_what_needs_more_samples(store, tmp_path, capsys):
    rows = rows_of("fig10", store, tmp_path, capsys)
    assert [row["k"] for row in rows] == [5, 10, 20, None]
    assert all(isinstance(row["EffNet-lite0"], float) for row in rows)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("figure", ["fig3", "fig4"])
def test_alignment_is_set_against_bits_per_byte(store, tmp_path, capsys, figure):
    rows = {row["model"]: row for row in rows_of(figure, store, tmp_path, capsys)}
    assert rows["SmolLM2"]["bits_per_byte"] < rows["SmolLM2 random"]["bits_per_byte"]
    assert rows["MiniLM"]["bits_per_byte"] is None
    images = [name for name in rows["MiniLM"] if name.startswith("EffNet")]
    assert len(images) == {"fig3": 4, "fig4": 1}[figure]
    for row in rows.values():
        assert row["mean"] == pytest.approx(sum(row[image] for image in images) / len(images))


@pytest.mark.slow
@pytest.mark.weights
def test_metrics_are_correlated_over_pairs_of_vision_models(store, tmp_path, capsys):
    rows = rows_of("fig12", store, tmp_path, capsys)
    assert len(rows) == 8
    for at, row in enumerate(rows):
        values = [value for name, value in row.items() if name != "metric"]
        assert values[at] == pytest.approx(1)
        assert all(-1 <= value <= 1 + 1e-12 for value in values)


def test_samples_of_ones_own_need_their_views(tmp_path, capsys):
    source = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"short": ["x"], "long": ["x y"], "photo": [b"1"]}), source)
    assert run("reproduce", "fig3", "--dataset", source) == 2
    assert "--text-view" in capsys.readouterr().err
    assert run("reproduce", "fig9", "--dataset", source, "--text-view", "short") == 2
    assert "several times" in capsys.readouterr().err
    from platonic_ray.studies.figures import on_samples

    study = on_samples(packaged_study("fig9"), str(source), ["short", "long"], "photo")
    assert [model.name for model in study.models][:3] == [
        "MiniLM short",
        "WordLlama short",
        "char TF-IDF short",
    ]
    assert [model.view for model in study.models] == ["short"] * 3 + ["long"] * 3 + ["photo"] * 2
