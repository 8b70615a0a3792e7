"""Growth in a study: the curves of each pair's best layers, beside its scores."""

import polars as pl
import pytest
from support import changed, dense_features, score_bytes

import platonic_ray as pr
from platonic_ray.errors import StudyError


@pytest.fixture
def study(small_study):
    """Two of the models on 300 samples, without a null, followed by both protocols."""
    models = [small_study.models[place].model_dump() for place in (0, 3)]
    return small_study.replace(
        models=models,
        dataset={**small_study.dataset.model_dump(), "samples": 300},
        metrics=["cka", {"name": "mutual_knn", "k": 5}, {"name": "cycle_knn", "k": 5}],
        null={"permutations": 0},
        recipe="huh2024",
        growth={"protocols": ["all", "queries"], "sizes": [40, 150], "queries": 150, "splits": 3},
    )


def test_the_curves_are_those_of_the_best_layers_in_memory(study, tmp_path):
    result = pr.align(study, quiet=True)
    best = result.models.filter(metric="mutual_knn", model_x="bert-en", model_y="pixels")
    layers = best["layer_x"][0], best["layer_y"][0]
    features = dense_features(study)
    # The default metric is the first that has neighbors.
    assert result.growth["metric"].unique().to_list() == ["mutual_knn"]
    for protocol, queries in (("all", None), ("queries", 150)):
        curve = result.growth.filter(protocol=protocol)
        expected = pr.growth(
            features["bert-en"],
            features["pixels"],
            k=5,
            recipe="huh2024",
            sizes=[40, 150],
            protocol=protocol,
            queries=queries,
            layers=layers,
            splits=3,
        )
        of_models = {"model_x": "bert-en", "model_y": "pixels", "layers": "best on all samples"}
        assert curve.equals(expected.with_columns(**{name: pl.lit(text) for name, text in of_models.items()}))
    other = changed(study, store=str(tmp_path / "other"), block_rows=512)
    assert score_bytes(pr.align(other, quiet=True)) == score_bytes(result)
    assert pr.load(result.save(tmp_path / "saved")).growth.equals(result.growth)
    assert score_bytes(pr.align(study, quiet=True)) == score_bytes(result)  # from the store


def test_named_metrics_are_followed_in_the_orders_that_they_are_scored_in(study):
    study = study.replace(growth={"sizes": [40, 300], "metrics": ["cka", "cycle_knn"], "splits": 2})
    result = pr.align(study, quiet=True)
    assert result.growth.select("metric", "model_x").unique(maintain_order=True).rows() == [
        ("cka", "bert-en"),
        ("cycle_knn", "bert-en"),
        ("cycle_knn", "pixels"),
    ]
    # On all samples a curve ends at the score of the table; of cka, whose float32 products are of all
    # layers there and of one here, within their error.
    ends = result.growth.filter(pl.col("size") == 300)
    scores = result.models.filter(pl.col("model_x") != pl.col("model_y"), pl.col("metric") != "mutual_knn")
    assert ends["score"].to_list() == pytest.approx(scores["score"].to_list(), rel=1e-6)
    assert pr.align(study.replace(growth=None), quiet=True).growth.is_empty()


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        ({"metrics": ["rank_knn"]}, "growth.metrics: 'rank_knn' is none of"),
        ({"sizes": [3, 100]}, "growth: mutual_knn with k = 5"),
        ({"sizes": [100, 301]}, "growth: sizes"),
        ({"metrics": ["cka"], "protocols": ["queries"]}, "growth: cka is not a mean"),
        ({"queries": 20}, "growth: 'queries' belongs"),
    ],
)
def test_curves_that_cannot_be_are_refused_before_any_work(study, growth, message):
    with pytest.raises(StudyError, match=message):
        pr.align(study.replace(growth=growth), quiet=True)
