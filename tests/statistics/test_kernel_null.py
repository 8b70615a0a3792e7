"""Known truths of kernel metrics' nulls: unrelated models are rarely significant, related ones always."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import binom
from small_tables import KINDS, gaussian

from platonic_ray.kernels import Kernel
from platonic_ray.metrics import KernelStates, Metric, get_metric, score_tables
from platonic_ray.statistics import (
    SLACK,
    Calibration,
    Groups,
    Null,
    calibrate,
    calibrate_best,
    kernel_null_scores,
    permuted_products,
    rotations,
)

N, K, TABLES, ALPHA = 20, 19, 65, 0.1
METRICS = ("cka", "unbiased_cka")
Layers = list[torch.Tensor]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads only get in each other's way at this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def calibrations(
    x: Layers, y: Layers, seed: int, metrics: tuple[str, ...] = METRICS, groups: torch.Tensor | None = None
) -> dict[str, Calibration]:
    """Set two models against their null, under every metric."""
    chosen: list[Metric] = [get_metric(name) for name in metrics]
    states: dict[Kernel, KernelStates] = {}
    tables = score_tables({"x": x}, {"y": y}, chosen, kernel_states=states)
    null = Null({"": K}, ALPHA, seed, None if groups is None else Groups("groups", groups))
    draws, perms = null.draws(N, K), null.permutations(N, K)
    pair = (("x", "x"), ("y", "y"))
    inner = {
        kernel: permuted_products(state.square, state.layers, [pair], draws)[pair]
        for kernel, state in states.items()
    }
    made = {}
    for metric, table in zip(chosen, tables, strict=True):
        assert metric.kernel is not None
        of = states[metric.kernel].of
        scores = kernel_null_scores(metric, inner[metric.kernel], of[pair[0]], of[pair[1]], perms)
        made[metric.name] = calibrate_best(metric, table.scores, scores, ALPHA, SLACK)
    return made


@cache
def unrelated(kind: str) -> list[dict[str, Calibration]]:
    """Every model of a kind against the next, which has nothing to do with it."""
    generator = torch.Generator().manual_seed(sorted(KINDS).index(kind))
    models = [KINDS[kind](N, generator) for _ in range(TABLES + 1)]
    return [calibrations(x, y, seed) for seed, (x, y) in enumerate(pairwise(models))]


def most(tables: int, alpha: float) -> int:
    """How many of so many valid tests reject at most, but for one time in 100,000."""
    return int(binom.isf(1e-5, tables, alpha))


@pytest.mark.parametrize("metric", METRICS)
def test_unrelated_models_are_significant_no_more_often_than_alpha(metric):
    every = {kind: [made[metric] for made in unrelated(kind)] for kind in KINDS}
    for made in (*every.values(), [one for of_kind in every.values() for one in of_kind]):
        # Where no layer pair has a score (a constant model), nothing is claimed.
        p = np.array([one.p for one in made])
        for alpha in (0.05, 0.1, 0.25, 0.5):
            assert (p <= alpha).sum() <= most(len(p), alpha)
        assert sum(one.calibrated > 0 for one in made) <= most(len(p), ALPHA)
    assert len(p) >= 500
    # Were p far too large, nothing would ever be found.
    assert (p <= 0.5).sum() >= 0.3 * len(p)


def test_the_best_of_the_observed_layer_pairs_against_one_permuted_pair_would_break_it():
    """The check above can fail: the null has to take the best over layers too."""
    generator = torch.Generator().manual_seed(7)
    metric, small = get_metric("unbiased_cka"), []
    for seed in range(60):
        x, y = ([torch.randn(N, 6, generator=generator) for _ in range(6)] for _ in range(2))
        states: dict[Kernel, KernelStates] = {}
        (table,) = score_tables({"x": x}, {"y": y}, [metric], kernel_states=states)
        (state,) = states.values()
        pair = (("x", "x"), ("y", "y"))
        draws = rotations(N, K, seed)
        products = permuted_products(state.square, state.layers, [pair], draws)[pair]
        first_x, first_y = (
            type(rows)(rows.row_sums[:1], rows.diagonal[:1], rows.squares[:1])
            for rows in (state.of[pair[0]], state.of[pair[1]])
        )
        null = kernel_null_scores(metric, products[:, :1, :1], first_x, first_y, draws.permutations())
        small.append(calibrate(table.best()[0], null).p <= ALPHA)
    assert sum(small) > most(60, ALPHA)


def test_a_shared_factor_is_found():
    generator = torch.Generator().manual_seed(1)
    for seed in range(10):
        shared = torch.randn(N, 3, generator=generator)
        x, y = ([*gaussian(N, generator), shared @ torch.randn(3, 20, generator=generator)] for _ in range(2))
        for made in calibrations(x, y, seed, (*METRICS, "distance_correlation", "rsa")).values():
            assert made.p == 1 / (K + 1)
            assert made.calibrated > 0


def test_groups_take_away_what_groups_alone_explain():
    generator = torch.Generator().manual_seed(3)
    groups = torch.arange(4).repeat(N // 4)
    p: dict[str, list[float]] = {"free": [], "within": []}
    for seed in range(40):
        x, y = (
            [4 * torch.randn(4, 6, generator=generator)[groups] + torch.randn(N, 6, generator=generator)]
            for _ in range(2)
        )
        for name, within in (("free", None), ("within", groups)):
            p[name].append(calibrations(x, y, seed, groups=within)["unbiased_cka"].p)
    assert np.mean([each <= ALPHA for each in p["free"]]) > 0.5
    assert sum(each <= ALPHA for each in p["within"]) <= most(40, ALPHA)


def test_duplicated_samples_tie_and_rounding_does_not_decide():
    """With two distinct rows, a permutation that keeps them apart gives the observed score again."""
    rows = torch.eye(2)[torch.arange(N) % 2]
    made = calibrations([rows], [rows @ torch.randn(2, 5)], 0)["unbiased_cka"]
    swapped = rotations(N, K, 0).permutations()
    same = [(rows[perm] == rows).all() or (rows[perm] == rows.flip(1)).all() for perm in swapped]
    assert made.p == (1 + sum(map(bool, same))) / (K + 1)
