"""Known truths: unrelated models are significant no more often than they may be, related ones are found."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import binom
from small_tables import KINDS, gaussian, neighbor_ids, one_hot

from platonic_ray.errors import DataError, StudyError
from platonic_ray.metrics import Metric, Neighbors, PairSums, get_metric, neighbor_sums
from platonic_ray.statistics import (
    Calibration,
    Groups,
    NeighborSide,
    Null,
    calibrate_best,
    calibrate_pair,
    null_scores,
    rotations,
)

N, K, TABLES = 24, 39, 65
METRIC = get_metric("mutual_knn", k=3)
OTHERS = [
    get_metric(name, k=3) for name in ("cycle_knn", "lcs_knn", "edit_distance_knn", "jaccard_knn", "rank_knn")
]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads only get in each other's way at this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def side(ids: torch.Tensor) -> NeighborSide:
    return NeighborSide(Neighbors(ids, torch.zeros(ids.shape, dtype=torch.float64)))


def null(metric: Metric, seed: int, alpha: float = 0.1, groups: torch.Tensor | None = None) -> Null:
    return Null({metric.label: K}, alpha, seed, None if groups is None else Groups("groups", groups))


def observed(metric: Metric, x: NeighborSide, y: NeighborSide) -> np.ndarray:
    return metric.score(PairSums(N, joint=neighbor_sums(metric, x.neighbors, y.neighbors)))[0]


def calibration(
    ids_x: torch.Tensor,
    ids_y: torch.Tensor,
    seed: int,
    metric: Metric = METRIC,
    groups: torch.Tensor | None = None,
) -> Calibration:
    x, y = side(ids_x), side(ids_y)
    return calibrate_pair(metric, observed(metric, x, y), x, y, null(metric, seed, groups=groups))


@cache
def unrelated(kind: str) -> list[Calibration]:
    """Every model of a kind against the next, which has nothing to do with it."""
    generator = torch.Generator().manual_seed(sorted(KINDS).index(kind))
    models = [neighbor_ids(KINDS[kind](N, generator), 3, generator) for _ in range(TABLES + 1)]
    return [calibration(x, y, seed) for seed, (x, y) in enumerate(pairwise(models))]


def most(tables: int, alpha: float) -> int:
    """How many of so many valid tests reject at most, but for one time in 100,000."""
    return int(binom.isf(1e-5, tables, alpha))


@pytest.mark.parametrize("kind", KINDS)
def test_unrelated_models_are_significant_no_more_often_than_alpha(kind):
    p = np.array([made.p for made in unrelated(kind)])
    for alpha in (0.05, 0.1, 0.25, 0.5):
        assert (p <= alpha).sum() <= most(TABLES, alpha)
    assert sum(made.calibrated > 0 for made in unrelated(kind)) <= most(TABLES, 0.1)


def test_over_all_kinds_the_level_is_kept_and_used():
    every = [made for kind in KINDS for made in unrelated(kind)]
    p = np.array([made.p for made in every])
    assert len(p) >= 500
    for alpha in (0.05, 0.1, 0.25, 0.5):
        assert (p <= alpha).sum() <= most(len(p), alpha)
    assert sum(made.calibrated > 0 for made in every) <= most(len(p), 0.1)
    # Were p far too large, nothing would ever be found.
    assert (p <= 0.5).sum() >= 0.2 * len(p)


def test_ties_that_go_to_the_lowest_id_would_break_it():
    """The check above can fail: this rule orders ties alike in every representation."""
    generator = torch.Generator().manual_seed(9)
    models = [neighbor_ids(one_hot(N, generator), 3, generator, ties="lowest") for _ in range(41)]
    p = [calibration(x, y, seed).p for seed, (x, y) in enumerate(pairwise(models))]
    assert sum(each <= 0.1 for each in p) > most(40, 0.1)


def test_a_shared_factor_is_found():
    generator = torch.Generator().manual_seed(1)
    for seed in range(20):
        shared = torch.randn(N, 3, generator=generator)
        x, y = ([*gaussian(N, generator), shared @ torch.randn(3, 20, generator=generator)] for _ in range(2))
        made = calibration(neighbor_ids(x, 3, generator), neighbor_ids(y, 3, generator), seed)
        assert made.p == 1 / (K + 1)
        assert made.calibrated > 0.1


def test_more_layers_raise_the_null_and_not_the_significance():
    generator = torch.Generator().manual_seed(2)
    few, many = ([torch.randn(N, 8, generator=generator) for _ in range(count)] for count in (1, 12))
    other = side(neighbor_ids(many, 3, generator))
    one, twelve = (
        null_scores(METRIC, side(neighbor_ids(layers, 3, generator)), other, null(METRIC, 0))
        for layers in (few, many)
    )
    assert twelve.mean() > one.mean()


def test_groups_take_away_what_groups_alone_explain():
    generator = torch.Generator().manual_seed(3)
    groups = torch.arange(4).repeat(N // 4)
    p: dict[str, list[float]] = {"free": [], "within": []}
    for seed in range(60):
        x, y = (
            neighbor_ids(
                [
                    10 * torch.randn(4, 6, generator=generator)[groups]
                    + torch.randn(N, 6, generator=generator)
                ],
                3,
                generator,
            )
            for _ in range(2)
        )
        for name, within in (("free", None), ("within", groups)):
            p[name].append(calibration(x, y, seed, groups=within).p)
    assert max(p["free"]) <= 0.05
    assert sum(each <= 0.1 for each in p["within"]) <= most(60, 0.1)


@pytest.mark.parametrize("metric", [METRIC, *OTHERS], ids=lambda metric: metric.name)
def test_null_scores_are_those_of_permuted_tables_in_any_number_of_portions(metric, monkeypatch):
    from platonic_ray.statistics import null as module

    generator = torch.Generator().manual_seed(4)
    x, y = (neighbor_ids(gaussian(N, generator), 3, generator) for _ in range(2))
    whole = null_scores(metric, side(x), side(y), null(metric, 5))
    expected = []
    for perm in rotations(N, K, 5).permutations():
        moved = perm.argsort()[y[:, perm]]
        expected.append(observed(metric, side(x), side(moved)).max())
    np.testing.assert_allclose(whole, expected, rtol=1e-12)
    monkeypatch.setattr(module, "_HELD", 100)
    assert null_scores(metric, side(x), side(y), null(metric, 5)).tolist() == whole.tolist()


def test_a_permuted_score_that_rounding_alone_sets_apart_counts_as_equal():
    scores = np.array([[0.3]])
    for near in (0.3 - 1e-12, 0.3 + 1e-12):
        made = calibrate_best(METRIC, scores, np.array([near, 0.1, 0.1]), alpha=0.25, slack=1e-9)
        assert (made.p, made.threshold) == (0.5, 0.3)
    assert calibrate_best(METRIC, scores, np.array([0.29, 0.1, 0.1]), alpha=0.25, slack=1e-9).p == 0.25


def test_a_null_of_another_family_is_not_made_of_neighbors():
    x = side(neighbor_ids(gaussian(N, torch.Generator().manual_seed(0)), 3, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="no null that neighbors make"):
        null_scores(get_metric("cka"), x, x, Null({"cka": 1}, 0.1, 0))


def test_labels_of_any_kind_become_groups():
    assert Groups.of("g", ["b", "a", "b"], 3).labels.tolist() == [1, 0, 1]
    assert Groups.of("g", np.array([7, 7, -1]), 3).labels.tolist() == [1, 1, 0]
    with pytest.raises(StudyError, match="alone in its group"):
        Groups.of("g", ["a", "b", "c"], 3)
    for wrong in (["a", "b"], [[1, 1, 2]], [0.5, 0.5, 1.0], [None, "a", "a"]):
        with pytest.raises(DataError, match="one label for each of 3 samples"):
            Groups.of("g", wrong, 3)
