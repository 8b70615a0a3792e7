"""The null of metrics of whole representations, against features that are permuted and scored anew."""

import numpy as np
import pytest
import torch
from support import dense_features

import platonic_ray as pr
from platonic_ray.engine.significance import null_of
from platonic_ray.errors import StudyError
from platonic_ray.metrics import get_metric, metrics, score_tables
from platonic_ray.statistics import has_rows_null, rotations
from platonic_ray.study import NullEntry

ROWS = [metric.name for metric in metrics() if metric.family == "rows"]
COLUMNS = ["null_threshold", "calibrated", "p", "q"]


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(70, 2, 4, generator=generator), torch.randn(70, 3, 5, generator=generator)
    y[:, :, :2] += 0.4 * x[:, :1, :2]
    return x, y


@pytest.mark.parametrize("name", ROWS)
def test_it_is_that_of_permuted_features(name, features):
    x, y = features
    metric = get_metric(name)
    table = pr.table({"x": x}, {"y": y}, metric=name, permutations=9, alpha=0.3, null_metrics=[name])
    row = table.models.row(0, named=True)
    best = min if metric.direction == "distance" else max
    nulls = []
    for perm in rotations(70, 9, seed=0).permutations():
        (pair,) = score_tables({"x": x}, {"y": y[perm]}, [metric])
        nulls.append(best(pair.scores[~np.isnan(pair.scores)]))
    good = sum(null <= row["score"] if best is min else null >= row["score"] for null in nulls)
    assert row["p"] == (1 + good) / 10
    ordered = sorted([row["score"], *nulls], reverse=best is min)
    assert row["null_threshold"] == pytest.approx(ordered[7 - 1], rel=1e-9)


def test_they_have_one_only_where_it_is_named(features):
    x, y = features
    table = pr.table({"x": x}, {"y": y}, metric=["mutual_knn", "procrustes"], k=3)
    assert table.pairs("mutual_knn")["p"].null_count() == 0
    assert all(table.pairs("procrustes")[name].is_null().all() for name in COLUMNS)
    (note,) = [note for note in table.provenance["notes"] if "null" in note]
    assert note.startswith("procrustes(layers=last): no null; a permutation takes as long as the scores")


def test_layers_that_were_chosen_by_another_metric_have_none():
    chosen = [get_metric("mutual_knn"), get_metric("procrustes", layers="best:mutual_knn")]
    assert not has_rows_null(chosen[1])
    with pytest.raises(StudyError, match="procrustes has no null by permutation"):
        null_of(NullEntry(metrics=("procrustes",)), chosen, 1, 70, 0)


def test_a_study_has_the_same_null_as_the_table_of_its_features(small_study):
    study = small_study.replace(
        metrics=[{"name": "procrustes"}], null={"permutations": 5, "metrics": ["procrustes"]}
    )
    result = pr.align(study, quiet=True)
    features = {
        name: [torch.from_numpy(layer) for layer in stack] for name, stack in dense_features(study).items()
    }
    table = pr.table(features, metric="procrustes", permutations=5, null_metrics=["procrustes"])
    assert result.models["p"].null_count() == 4
    for name in ("score", *COLUMNS):
        assert table.models[name].equals(result.models[name], null_equal=True)
