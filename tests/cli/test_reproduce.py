"""`reproduce`: each figure of the paper from one command, drawn, on the embedded models and few emoji."""

import csv
import json
from itertools import combinations
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.text import Text
from support import run

from platonic_ray.cli.reproduce import FIGURES, MODELS
from platonic_ray.datasets import open_dataset
from platonic_ray.errors import StudyError
from platonic_ray.models import load, resolve
from platonic_ray.results import LayerInfo, PairScores, Result
from platonic_ray.studies.figures import FIGURES as FACTS
from platonic_ray.studies.figures import MODELS as SETS
from platonic_ray.studies.figures import on_fewer, on_samples, study_of, with_capabilities
from platonic_ray.studies.pictures import lines_over_capability, lines_over_k
from platonic_ray.study import Study


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features of one figure serve the others."""
    return tmp_path_factory.mktemp("figures") / "store"


def rows_of(figure, store, tmp_path, capsys, *more):
    given = ("--samples", 30, "--engine", "local", "--quiet", "--store", store, "--out", tmp_path / "out")
    given = (*given, *(() if "--models" in more else ("--models", "embedded")))
    assert run("reproduce", figure, *given, *more, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    rows = made["rows"]
    for picture in made["pictures"]:
        assert Path(picture).stat().st_size > 5000
    with (tmp_path / "out" / f"{figure}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    return rows


def bits_per_byte(figure, models, name):
    """What a language model of a figure has on the samples of these tests, embedded by itself."""
    study, _ = on_fewer(study_of(figure, models), 30)
    (entry,) = (model for model in study.models if model.name == name)
    texts = open_dataset(study.dataset, study.seed).read(entry.view)
    return load(resolve(entry)).embed(texts).likelihood.bits_per_byte


@pytest.mark.parametrize("models", ["paper", "embedded"])
def test_every_figure_is_a_study_scored_as_published_and_set_against_a_null(tmp_path, models):
    assert tuple(FACTS) == FIGURES
    assert MODELS == SETS
    for figure in FIGURES:
        study = study_of(figure, models)
        assert (study.recipe, study.compat) == ("huh2024", "platonic-rep")
        assert study.name == (figure if models == "paper" else f"{figure}-embedded")
        assert study.null.permutations == 200
        file = tmp_path / f"{figure}-{models}.toml"
        assert run("reproduce", figure, "--models", models, "--write", file) == 0
        written = Study.from_toml(file)
        assert written.replace(dataset=study.dataset.model_dump()) == study


@pytest.mark.weights
def test_captions_from_sparse_to_dense_are_set_beside_their_alignment(store, tmp_path, capsys):
    rows = rows_of("fig9", store, tmp_path, capsys)
    assert [row["captions"] for row in rows] == ["group", "subgroup", "name.en", "tags.en"]
    assert all(
        0 < row["alignment"] < 1 and row["deviation"] > 0 and row["language_models"] == 3 for row in rows
    )


@pytest.mark.slow
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
    # Names of one or two words give a model no context: the trained one need not be better on them.
    for name in ("SmolLM2", "SmolLM2 random"):
        assert rows[name]["bits_per_byte"] == pytest.approx(bits_per_byte(figure, "embedded", name), rel=1e-5)
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
    study = on_samples(study_of("fig9", "embedded"), str(source), ["short", "long"], "photo")
    assert [model.name for model in study.models][:3] == [
        "MiniLM short",
        "WordLlama short",
        "char TF-IDF short",
    ]
    assert [model.view for model in study.models] == ["short"] * 3 + ["long"] * 3 + ["photo"] * 2


def test_what_is_written_is_the_study_that_would_run(tmp_path, capsys):
    scores = tmp_path / "scores.csv"
    scores.write_text("model,hellaswag,note\nllama-7b,0.5,x\nllama-13b,0.75,y\n")
    given = ("--scores", scores, "--samples", 100, "--write", tmp_path / "fig4.toml")
    assert run("reproduce", "fig4", *given, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"study": str(tmp_path / "fig4.toml")}
    study = Study.from_toml(tmp_path / "fig4.toml")
    assert study.dataset.samples == 100
    capabilities = {model.name: model.capability for model in study.models if model.capability}
    assert capabilities == {"llama-7b": {"hellaswag": 0.5}, "llama-13b": {"hellaswag": 0.75}}
    (tmp_path / "strange.csv").write_text("model,hellaswag\nnone,0.5\n")
    assert run("reproduce", "fig4", "--scores", tmp_path / "strange.csv") == 2
    assert "None of the models" in capsys.readouterr().err
    with pytest.raises(StudyError, match="columns of numbers"):
        with_capabilities(study, pl.DataFrame({"model": ["llama-7b"]}))


def test_the_larger_set_has_two_language_models_more_for_each_view(capsys):
    names = [model.name for model in study_of("fig9", "embedded-large").models]
    assert names[:8] == [
        f"{name} {view}"
        for name in ("Gemma", "mpnet")
        for view in ("group", "subgroup", "name.en", "tags.en")
    ]
    gemma, mpnet = study_of("fig3", "embedded-large").models[:2]
    assert (gemma.name, gemma.use, gemma.bits_per_byte) == ("Gemma", "gemma-3-270m", True)
    assert (mpnet.use, mpnet.bits_per_byte) == ("mpnet-base", None)
    assert run("reproduce", "fig12", "--models", "embedded-large") == 2
    assert "no language models" in capsys.readouterr().err


def test_captions_that_are_at_no_hub_are_asked_for(capsys):
    assert run("reproduce", "fig9") == 2
    assert "--models embedded" in capsys.readouterr().err


def test_the_paper_s_figures_are_planned_from_the_shapes_of_their_models(capsys):
    """Without a hub: 12 language models of 454 layers and 17 vision models of 352, as the paper counts them."""
    layers = {"fig3": 806, "fig4": 454 + 278 + 40, "fig9": 806, "fig10": 806, "fig12": 352}
    for figure in FIGURES:
        given = ("--plan", "--gpus", "8xB200", "--price", 40, "--json")
        assert run("reproduce", figure, *given) == 0
        told, said = capsys.readouterr()
        plan = json.loads(told)
        assert plan["layers"] == layers[figure]
        assert plan["samples"] == 1024
        assert plan["fits"]
        assert 0 < plan["cost"] < 100
        assert ("gemma-7b" in said) == (figure == "fig4")
    assert run("reproduce", "fig3", "--plan", "--gpus", "8xH100", "--json") == 0
    assert not json.loads(capsys.readouterr().out)["fits"]  # 65 billion parameters on one GPU of 80 GB


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("figure", ["fig3", "fig4", "fig9", "fig10"])
def test_the_larger_embedded_models_run_too(store, tmp_path, capsys, figure):
    rows = rows_of(figure, store, tmp_path, capsys, "--models", "embedded-large")
    if figure in ("fig3", "fig4"):
        measured = {row["model"]: row["bits_per_byte"] for row in rows}
        for name in ("Gemma", "SmolLM2", "SmolLM2 random"):
            assert measured[name] == pytest.approx(bits_per_byte(figure, "embedded-large", name), rel=1e-5)
        assert measured["mpnet"] is None
    elif figure == "fig9":
        assert {row["language_models"] for row in rows} == {5}


def two_models() -> Result:
    layers = [LayerInfo(name, 0, "last", width=4) for name in "ab"]
    scored = [("mutual_knn", 10), ("cknna(k=5)", 5), ("cknna(k=20)", 20)]
    return Result.from_pairs([PairScores(name, "a", "b", [[0.2]], n=60, k=k) for name, k in scored], layers)


def test_the_picture_of_the_sweep_says_all_its_ks():
    rows = pl.DataFrame({"metric": ["cknna(k=5)", "cknna(k=20)"], "k": [5, 20], "b": [0.1, 0.2]})
    sweep = two_models().select(metrics=["cknna(k=5)", "cknna(k=20)"])
    title = lines_over_k(sweep, rows, ["b"]).axes[0].get_title(loc="left")
    assert title.endswith("n = 60 · k = 5–20")


def test_no_name_in_the_picture_of_capability_lies_on_another():
    close = [0.6, 0.605, 0.61, 0.8, 0.81, 1.0, 1.02]
    names = [f"organization/language-{at}" for at in range(7)]
    rows = pl.DataFrame({"model": names, "mean": close, "bits_per_byte": close, "b": [0.2, *close[1:]]})
    figure = lines_over_capability(two_models(), rows, ["b"])
    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    assert [text.get_text() for text in texts] == names
    boxes = [Text.get_window_extent(text) for text in texts]
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
