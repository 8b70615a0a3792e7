"""Known truths: unrelated models are significant no more often than they may be, related ones are found."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import binom
from small_tables import KINDS, gaussian, neighbor_ids, one_hot

from platonic_ray.kernels import overlap_counts
from platonic_ray.metrics import PairSums, get_metric
from platonic_ray.statistics import (
    Calibration,
    Labels,
    Null,
    calibrate,
    calibrate_pair,
    has_null,
    null_overlaps,
    null_scores,
    permutations,
)

N, K, TABLES = 24, 39, 100
METRIC = get_metric("mutual_knn", k=3)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads only get in each other's way at this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def calibration(x: torch.Tensor, y: torch.Tensor, seed: int, alpha: float = 0.1) -> Calibration:
    scores = METRIC.score(sums(overlap_counts(x, y)))[0]
    return calibrate_pair(METRIC, scores, Labels.of(x), Labels.of(y), Null(K, alpha, seed))


def sums(overlap):
    return PairSums(N, joint=overlap)


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
    other = Labels.of(neighbor_ids(many, 3, generator))
    one, twelve = (
        null_scores(METRIC, Labels.of(neighbor_ids(layers, 3, generator)), other, Null(K, 0.1, 0))
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
        observed = int(overlap_counts(x, y).max())
        for name, within in (("free", None), ("within", groups)):
            null = null_overlaps(x, y, permutations(N, K, seed, within))
            p[name].append(calibrate(observed, null.numpy(), limit=3 * N).p)
    assert max(p["free"]) <= 0.05
    assert sum(each <= 0.1 for each in p["within"]) <= most(60, 0.1)


def test_null_scores_are_those_of_permuted_tables_in_any_number_of_portions(monkeypatch):
    from platonic_ray.statistics import null as module

    generator = torch.Generator().manual_seed(4)
    x, y = (neighbor_ids(gaussian(N, generator), 3, generator) for _ in range(2))
    whole = null_scores(METRIC, Labels.of(x), Labels.of(y), Null(K, 0.1, 5))
    expected = []
    for perm in permutations(N, K, 5):
        moved = perm.argsort()[y[:, perm]]
        expected.append(METRIC.score(sums(overlap_counts(x, moved)))[0].max())
    assert whole.tolist() == expected
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    assert null_scores(METRIC, Labels.of(x), Labels.of(y), Null(K, 0.1, 5)).tolist() == expected


def test_a_metric_without_a_null_says_so():
    assert has_null(METRIC)
    generator = torch.Generator().manual_seed(0)
    labels = Labels.of(neighbor_ids(gaussian(N, generator), 3, generator))
    for name in ("cka", "unbiased_cka"):
        assert not has_null(get_metric(name))
        with pytest.raises(ValueError, match="no null"):
            null_scores(get_metric(name), labels, labels, Null(1, 0.1, 0))
