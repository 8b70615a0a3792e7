"""`[intervals]` of a study: where they are computed, what they change, and that they are the layers' own."""

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support import dense_features, score_bytes, tie_digests

import platonic_ray as pr
from platonic_ray.engine.prepare import prepare as prepare_study
from platonic_ray.errors import StudyError
from platonic_ray.kernels import prepare
from platonic_ray.metrics import get_metric
from platonic_ray.statistics import Growth, Intervals, Layer, group_numbers, grow, interval_of_layers
from platonic_ray.store import Store

METRICS = [{"name": "mutual_knn", "k": 7}, {"name": "cka"}, {"name": "cycle_knn", "k": 5}]


@pytest.mark.parametrize("target", ["queries", "population"])
def test_they_are_those_of_the_best_layers_features(small_study, target):
    study = small_study.replace(
        models=[model.model_dump() for model in small_study.models[::2]],
        metrics=METRICS,
        intervals={"target": target, "splits": 3, "level": 0.9},
        null={"permutations": 0},
    )
    result = pr.align(study, quiet=True)
    features, digests = dense_features(study), tie_digests(study)
    how = Intervals(target, level=0.9, splits=3, seed=study.seed)
    several = 0
    for row in result.models.iter_rows(named=True):
        metric = get_metric(study.metrics[[m["name"] for m in METRICS].index(row["metric"])])
        if row["model_x"] == row["model_y"] or (target == "queries" and row["metric"] != "mutual_knn"):
            assert row["low"] is row["high"] is row["interval_target"] is row["interval_method"] is None
            continue
        layers = [
            Layer(
                prepare(torch.from_numpy(features[model][layer]), "l2"),
                digests[model][layer],
            )
            for model, layer in ((row[f"model_{side}"], row[f"layer_{side}"]) for side in "xy")
        ]
        made = interval_of_layers(metric, row["score"], *layers, how)
        assert (row["low"], row["high"], row["interval_target"]) == (made.low, made.high, target)
        assert row["interval_method"].startswith(made.method)
        assert (row["interval_halves"] or []) == list(made.halves)
        assert len(made.halves) == (2 * 3 if target == "population" else 0)
        several += row["interval_method"].endswith("conditional on the layers chosen")
    assert several
    assert result.provenance["intervals"]["splits"] == 3
    assert score_bytes(pr.align(study, quiet=True)) == score_bytes(result)


def test_they_change_the_result_and_no_score(small_study):
    plain = small_study.replace(metrics=METRICS[:1], null={"permutations": 0})
    without = pr.align(plain, quiet=True)
    both = pr.align(plain.replace(intervals={"target": "queries"}), quiet=True)
    assert without.scores.equals(both.scores)
    assert without.models["low"].null_count() == without.models.height
    assert both.models["low"].drop_nulls().is_finite().all()
    assert both.provenance["study_key"] != without.provenance["study_key"]


def grouped(small_study, tmp_path, **changes):
    """Return a study of two of the models on 160 samples, each of which belongs to one of 20 groups."""
    table = pq.read_table(small_study.dataset.source).slice(0, 160)
    labels = [f"speaker {row % 20}" for row in range(len(table))]
    path = tmp_path / "grouped.parquet"
    columns = {"speaker": labels, "all": [1] * 160, "uneven": [row < 30 for row in range(160)]}
    for name, column in columns.items():
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, path)
    study = small_study.replace(
        models=[small_study.models[at].model_dump() for at in (0, 3)],
        dataset={**small_study.dataset.model_dump(), "source": str(path), "samples": None},
        metrics=METRICS[:1],
        null={"permutations": 0},
        **changes,
    )
    return study, labels


@pytest.mark.parametrize("target", ["queries", "population"])
def test_groups_of_a_column_are_drawn_together_in_intervals_and_growth(small_study, tmp_path, target):
    growth = {"sizes": [160], "splits": 3}
    how = {"target": target, "splits": 3}
    study, labels = grouped(
        small_study,
        tmp_path,
        intervals={**how, "groups": "speaker"},
        growth={**growth, "groups": "speaker"},
    )
    result = pr.align(study, quiet=True)
    row = result.models.row(by_predicate=pl.col("model_x") != pl.col("model_y"), named=True)
    features, digests = dense_features(study), tie_digests(study)
    names = [row["model_x"], row["model_y"]]
    layers = [
        Layer(prepare(torch.from_numpy(features[name][at]), "l2"), digests[name][at])
        for name, at in zip(names, (row["layer_x"], row["layer_y"]), strict=True)
    ]
    groups = group_numbers("speaker", labels, 160)
    metric = get_metric(study.metrics[0])
    made = interval_of_layers(metric, row["score"], *layers, Intervals(**how, seed=study.seed), groups)
    assert (row["low"], row["high"]) == (made.low, made.high)
    assert "20 groups" in row["interval_method"]
    (point,) = grow(metric, *layers, Growth(sizes=(160,), splits=3, seed=study.seed), groups)
    assert result.growth["standard_error"].to_list() == [point.standard_error]
    assert result.provenance["intervals"]["groups"] == "speaker"
    alone = prepare_study(study.replace(intervals=how, growth=growth), Store(study.run.store))
    assert alone.key != result.provenance["study_key"]


def test_groups_that_cannot_be_drawn_are_refused_before_any_work(small_study, tmp_path):
    target = {"target": "population", "groups": "speaker"}
    for changes, said in (
        ({"intervals": {**target, "groups": "speakers"}}, "Did you mean 'speaker'"),
        (
            {"intervals": {**target, "groups": "all"}},
            r"intervals\.groups = 'all': All samples are in one group",
        ),
        ({"growth": {"groups": "all"}}, r"growth\.groups = 'all': All samples are in one group"),
        (
            {"metrics": [{"name": "mutual_knn", "k": 40}], "intervals": {**target, "groups": "uneven"}},
            "halves of the groups.*k ≤ 29",
        ),
    ):
        study, _ = grouped(small_study, tmp_path)
        with pytest.raises(StudyError, match=said):
            prepare_study(study.replace(**changes), Store(study.run.store))
    with pytest.raises(StudyError, match="give their 'target' too"):
        small_study.replace(intervals={"groups": "speaker"})


def test_what_cannot_be_is_refused_before_any_work(small_study):
    with pytest.raises(StudyError, match="no intervals for queries"):
        pr.align(small_study.replace(metrics=["cka"], intervals={"target": "queries"}), quiet=True)
    with pytest.raises(StudyError, match=r"intervals\.target"):
        small_study.replace(intervals={"target": "rows"})
    wide = small_study.replace(metrics=[{"name": "mutual_knn", "k": 300}], intervals={"target": "population"})
    with pytest.raises(StudyError, match="halves of the 600 samples"):
        pr.align(wide, quiet=True)
