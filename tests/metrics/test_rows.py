"""The rows family: which layer pairs are scored, what is said of the others, and shapes against dense sums."""

import numpy as np
import pytest
import torch

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.kernels import prepare
from platonic_ray.metrics import NOT_ASKED, get_metric, make_state, metrics, score_tables

ROWS = [metric for metric in metrics() if metric.family == "rows"]


def correlated(n, dx, dy, seed=0, noise=0.5):
    """Two float32 representations with a common part."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 6))
    return tuple(
        (common @ rng.normal(size=(6, width)) + noise * rng.normal(size=(n, width)) + 3).astype(np.float32)
        for width in (dx, dy)
    )


def rotation(width, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def nuclear(x, y):
    """‖XᵀY‖_* of centered rows of Frobenius norm 1."""
    x, y = (a.astype(np.float64) - a.astype(np.float64).mean(0) for a in (x, y))
    return np.linalg.svd(x.T @ y, compute_uv=False).sum() / np.linalg.norm(x) / np.linalg.norm(y)


@pytest.mark.parametrize(
    ("n", "dx", "dy"), [(300, 20, 33), (60, 200, 30), (50, 90, 120), (40, 1, 1), (2, 3, 3)]
)
def test_procrustes_and_its_angle_are_those_of_the_nuclear_norm(n, dx, dy):
    x, y = correlated(n, dx, dy)
    expected = nuclear(x, y)
    assert pr.score(x, y, "procrustes", recipe="none") == pytest.approx(expected, rel=1e-12)
    angle = pr.score(x, y, "angular_procrustes", recipe="none")
    assert angle == pytest.approx(np.arccos(min(expected, 1)), rel=1e-9, abs=1e-7)


def test_a_turned_and_scaled_copy_has_the_same_shape_to_the_last_digits():
    x, _ = correlated(80, 12, 12)
    turned = 2.5 * x.astype(np.float64) @ rotation(12)
    assert pr.score(x, turned, "procrustes", recipe="none") == pytest.approx(1, abs=1e-12)
    assert pr.score(x, turned, "angular_procrustes", recipe="none") < 1e-6  # float32 rounding of the copy
    assert pr.score(x, x, "angular_procrustes", recipe="none") < 1e-13


def test_angles_of_shapes_obey_the_triangle_inequality():
    a, b = correlated(60, 9, 70)
    c = np.hstack([a, b])
    angle = {
        (i, j): pr.score(p, q, "angular_procrustes")
        for i, p in enumerate((a, b, c))
        for j, q in enumerate((a, b, c))
    }
    for i, j, k in ((0, 1, 2), (1, 2, 0), (0, 2, 1)):
        assert angle[i, j] <= angle[i, k] + angle[k, j]
    assert angle[0, 2] == pytest.approx(angle[2, 0], rel=1e-12)


@pytest.mark.parametrize("metric", ROWS, ids=lambda metric: metric.name)
class TestEveryMetric:
    def test_a_constant_representation_is_nan_with_its_side_named(self, metric):
        x, _ = correlated(40, 5, 5)
        flat = np.ones((40, 7), np.float32) * 0.3
        for pair, said in (
            ((x, flat), "y: constant"),
            ((flat, x), "x: constant"),
            ((flat, flat), "x: constant"),
        ):
            (table,) = score_tables({"x": pair[0]}, {"y": pair[1]}, [metric], recipe="none")
            assert np.isnan(table.scores).all()
            assert said in table.status[0][0]

    def test_a_shared_permutation_of_samples_changes_nothing(self, metric):
        x, y = correlated(70, 8, 11)
        order = np.random.default_rng(3).permutation(70)
        one, other = (
            score_tables({"x": a}, {"y": b}, [metric], digests={"x": ["a" * 16], "y": ["b" * 16]})[0].scores[
                0, 0
            ]
            for a, b in ((x, y), (x[order], y[order]))
        )
        if metric.name not in SEEDED_BY_ROW:
            assert other == pytest.approx(one, rel=1e-9)

    def test_isotropic_scaling_changes_nothing_but_rounding(self, metric):
        x, y = correlated(70, 8, 11)
        one, other = (pr.score(a, b, metric.name, recipe="none") for a, b in ((x, y), (4 * x, y / 2)))
        # svcca adds 1e-8 to the standard deviations.
        assert other == pytest.approx(one, rel=1e-6 if metric.name == "svcca" else 1e-11)

    def test_a_permuted_state_is_the_state_of_permuted_rows(self, metric):
        x, y = (prepare(torch.from_numpy(rows)) for rows in correlated(64, 8, 40))
        order = torch.from_numpy(np.random.default_rng(5).permutation(64))
        if metric.name in SEEDED_BY_ROW:
            return
        state_x, state_y = (make_state(metric, rows, "c" * 16) for rows in (x, y))
        moved = make_state(metric, y[order], "c" * 16)
        permuted = metric.permute(state_y, order)
        for first, second in (
            ((state_x, permuted), (state_x, moved)),
            ((permuted, state_x), (moved, state_x)),
        ):
            assert metric.pair(*first, metric.options)[0] == pytest.approx(
                metric.pair(*second, metric.options)[0], rel=1e-9
            )

    def test_the_bytes_do_not_depend_on_the_number_of_threads(self, metric):
        x, y = correlated(300, 64, 350 if metric.name != "pwcca" else 200)
        before = torch.get_num_threads()
        try:
            found = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found.append(pr.score(x, y, metric.name))
        finally:
            torch.set_num_threads(before)
        assert found[0] == found[1]

    def test_it_declares_what_a_layer_pair_takes(self, metric):
        assert metric.pair_flops(1024, 768, 4096) > 1e6
        assert metric.options["layers"] == "last"


SEEDED_BY_ROW = {"linear_predictivity", "information_imbalance"}
"""Metrics that draw what becomes of a row from its position, so that a permutation draws again."""


class TestLayers:
    @pytest.fixture(scope="class")
    def models(self):
        rng = np.random.default_rng(0)
        common = rng.normal(size=(50, 5))
        return {
            name: [
                (common @ rng.normal(size=(5, 7)) + w * rng.normal(size=(50, 7))).astype(np.float32)
                for w in noise
            ]
            for name, noise in (("a", (2, 0.1, 1)), ("b", (3, 0.5)))
        }

    def scored(self, models, layers, *others):
        *_, table = score_tables(models, metrics=[*others, get_metric("procrustes", layers=layers)])
        return table

    @pytest.mark.parametrize(
        ("layers", "cells"),
        [
            ("last", {(2, 1)}),
            ([0, -1], {(0, 0), (0, 1), (2, 0), (2, 1)}),
            ([2], set()),
            ("all", {(i, j) for i in range(3) for j in range(2)}),
        ],
    )
    def test_the_layer_pairs_that_are_asked_for_are_scored_and_no_others(self, models, layers, cells):
        table = self.scored(models, layers)
        assert {tuple(at) for at in np.argwhere(~np.isnan(table.scores))} == cells
        for i, line in enumerate(table.status):
            for j, said in enumerate(line):
                assert (said is None) if (i, j) in cells else said.startswith(NOT_ASKED)
        for i, j in cells:
            assert table.scores[i, j] == pr.score(models["a"][i], models["b"][j], "procrustes")

    def test_the_winner_of_another_metric_is_the_one_that_is_scored(self, models):
        cheap = score_tables(models, metrics=["cka"])[0]
        _, i, j = cheap.best()
        table = self.scored(models, "best:cka", "cka")
        assert [tuple(at) for at in np.argwhere(~np.isnan(table.scores))] == [(i, j)]
        assert (i, j) == (1, 1)

    def test_a_pair_that_was_not_asked_for_is_not_called_undefined(self, models):
        result = pr.table(models, metric=["procrustes"], permutations=0)
        pair = result.models.filter(model_x="a", model_y="b").row(0, named=True)
        assert (pair["layer_x"], pair["layer_y"]) == (2, 1)
        assert pair["status"] is None
        (note,) = result.provenance["notes"]
        assert "3 of 19 layer pairs" in note
        assert "19 layer pairs ×" in note

    @pytest.mark.parametrize("layers", ["first", [], [0.5], [True], 3, None])
    def test_layers_that_are_no_choice_of_layers_are_refused(self, layers):
        with pytest.raises(StudyError, match="layers must be"):
            get_metric("procrustes", layers=layers)

    def test_the_best_layers_of_a_metric_that_is_not_there_are_refused(self, models):
        with pytest.raises(StudyError, match=r"best:mutual_knn.*cka"):
            self.scored(models, "best:mutual_knn", "cka")
        twice = [get_metric("mutual_knn", k=k) for k in (3, 4)]
        with pytest.raises(StudyError, match="more than one"):
            self.scored(models, "best:mutual_knn", *twice)
        assert self.scored(models, "best:mutual_knn(k=3)", *twice).best()[0] > 0
        with pytest.raises(StudyError, match="no metric of every layer pair"):
            self.scored(models, "best:angular_procrustes", "angular_procrustes")

    def test_an_interval_is_of_the_pair_that_was_scored(self, models):
        chosen = ["cka", get_metric("angular_procrustes", layers="best:cka")]
        result = pr.table(models, metric=chosen, permutations=0, intervals="population")
        pair = result.models.filter(metric="angular_procrustes", model_x="a", model_y="b").row(0, named=True)
        assert pair["low"] < pair["score"] < pair["high"]
