"""The null in a run: where it is computed, what it changes, and that it is the one of permuted features."""

import numpy as np
import pytest
import torch
from support import score_bytes

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.metrics import score_tables
from platonic_ray.statistics import benjamini_hochberg, permutations

COLUMNS = ["null_threshold", "calibrated", "p", "q"]


def test_the_null_of_a_table_is_that_of_permuted_features():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 2, 5, generator=generator), torch.randn(60, 3, 7, generator=generator)
    y[:, 1, :2] += 0.6 * x[:, 0, :2]
    result = pr.table({"x": x}, {"y": y}, k=4, permutations=39, alpha=0.1)
    row = result.models.row(0, named=True)
    nulls = []
    for perm in permutations(60, 39, seed=0):
        (pair,) = score_tables({"x": x}, {"y": y[perm]}, [pr.metrics.get_metric("mutual_knn", k=4)])
        nulls.append(pair.scores.max())
    assert row["p"] == row["q"] == (1 + sum(null >= row["score"] for null in nulls)) / 40
    threshold = sorted([row["score"], *nulls])[36 - 1]
    assert row["null_threshold"] == threshold
    assert row["calibrated"] == pytest.approx(max((row["score"] - threshold) / (1 - threshold), 0))
    assert result.provenance["null"] == {"count": 39, "alpha": 0.1, "seed": 0}


def test_models_that_share_what_they_see_are_significant_and_others_not():
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(size=(100, 4)), rng.normal(size=(100, 4))
    result = pr.table({"a": seen, "b": seen @ rng.normal(size=(4, 30)), "c": unseen}, k=5)
    q = dict(
        zip(
            zip(result.models["model_x"], result.models["model_y"], strict=True),
            result.models["q"],
            strict=True,
        )
    )
    assert q["a", "b"] == 3 / 201
    assert min(q["a", "c"], q["b", "c"]) > 0.05
    assert q["a", "a"] is None
    assert "·" in pr.results.render_table(result)


def test_too_few_permutations_are_noted_and_none_are_none():
    rng = np.random.default_rng(0)
    models = {name: rng.normal(size=(30, 3)) for name in "abcd"}
    few = pr.table(models, k=3, permutations=10)
    assert "10 permutations are few for 6 pairs" in few.provenance["notes"][0]
    none = pr.table(models, k=3, permutations=0)
    assert none.provenance["notes"] == []
    assert all(none.models[name].is_null().all() for name in COLUMNS)
    assert few.scores.equals(none.scores)
    with pytest.raises(StudyError, match="permutations"):
        pr.table(models, k=3, permutations=-1)


def test_a_study_sets_its_scores_against_their_null(small_study):
    result = pr.align(small_study, quiet=True)
    for metric in ("cka", "unbiased_cka"):
        assert all(result.pairs(metric)[name].is_null().all() for name in COLUMNS)
    models = result.pairs("mutual_knn")
    itself = models.filter(model_x=models["model_y"])
    assert itself.height == 4
    assert all(itself[name].is_null().all() for name in COLUMNS)
    pairs = models.remove(model_x=models["model_y"])
    assert pairs.height == 6
    np.testing.assert_array_equal(pairs["q"], benjamini_hochberg(pairs["p"]))
    assert ((pairs["p"] <= 0.05) == (pairs["score"] > pairs["null_threshold"])).all()
    # Both read the same words, each with its own random embedding of them.
    assert pairs.filter(model_x="bert-en", model_y="tfidf")["p"].item() == 1 / 201
    assert result.provenance["null"] == {"count": 200, "alpha": 0.05, "seed": 0}


def test_another_null_is_another_result_of_the_same_scores(small_study):
    first = pr.align(small_study.replace(null={"permutations": 0}), quiet=True)
    assert first.provenance["null"] is None
    other = pr.align(small_study.replace(null={"permutations": 30, "alpha": 0.2}), quiet=True)
    assert other.provenance["null"] == {"count": 30, "alpha": 0.2, "seed": 0}
    assert first.scores.equals(other.scores)
    assert score_bytes(first) != score_bytes(other)
