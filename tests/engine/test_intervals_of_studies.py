"""`[intervals]` of a study: where they are computed, what they change, and that they are the layers' own."""

import pytest
import torch
from support import dense_features, score_bytes, tie_digests

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.kernels import prepare
from platonic_ray.metrics import get_metric
from platonic_ray.statistics import Intervals, Layer, interval_of_layers

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


def test_what_cannot_be_is_refused_before_any_work(small_study):
    with pytest.raises(StudyError, match="no intervals for queries"):
        pr.align(small_study.replace(metrics=["cka"], intervals={"target": "queries"}), quiet=True)
    with pytest.raises(StudyError, match=r"intervals\.target"):
        small_study.replace(intervals={"target": "rows"})
    wide = small_study.replace(metrics=[{"name": "mutual_knn", "k": 300}], intervals={"target": "population"})
    with pytest.raises(StudyError, match="halves of the 600 samples"):
        pr.align(wide, quiet=True)
