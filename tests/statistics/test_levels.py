"""Known truths of every metric's null: on unrelated models p is rarely small, on related ones always.

A thin slice runs by default; 500 tables and more of every family with `pytest -m slow`.
"""

from collections.abc import Iterable
from itertools import pairwise

import pytest
import torch
from scipy.stats import binom
from small_tables import KINDS, gaussian

from platonic_ray.digest import digest
from platonic_ray.kernels import Kernel
from platonic_ray.metrics import (
    KernelStates,
    Metric,
    Neighbors,
    PairSums,
    get_metric,
    metrics,
    score_tables,
)
from platonic_ray.statistics import (
    ROUNDING,
    SLACK,
    Calibration,
    NeighborSide,
    Null,
    calibrate_best,
    calibrate_pair,
    kernel_null_scores,
    permuted_products,
    rows_null_scores,
)

N, K, ALPHA = 20, 19, 0.1
NEIGHBORS = [get_metric(metric, k=3) for metric in metrics() if metric.family == "neighbors"]
KERNELS = [metric for metric in metrics() if metric.family == "kernel"] + [
    get_metric("unbiased_cka", kernel="rbf", median=1.0)
]
WHOLE = [metric.on_all_layers() for metric in metrics() if metric.family == "rows"]
FAMILIES = pytest.mark.parametrize(
    "chosen", [NEIGHBORS, KERNELS, WHOLE], ids=["neighbors", "kernels", "whole"]
)
SMALL = [kind for kind in KINDS if kind != "stack"]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads only get in each other's way at this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def calibrations(
    x: list[torch.Tensor], y: list[torch.Tensor], seed: int, chosen: list[Metric]
) -> dict[str, Calibration]:
    """Set two models against their null, under every metric; every model breaks ties its own way."""
    tables: dict[tuple[str, str], Neighbors] = {}
    sums: dict[tuple[str, str, str], PairSums] = {}
    states: dict[Kernel, KernelStates] = {}
    names = f"x{seed}", f"y{seed}"
    pair = ("x", names[0]), ("y", names[1])
    seeds = {
        name: [digest([name, at]) for at in range(len(of))] for name, of in zip(names, (x, y), strict=True)
    }
    scored = score_tables(
        {names[0]: x},
        {names[1]: y},
        chosen,
        digests=seeds,
        tables=tables,
        row_sums=sums,
        kernel_states=states,
    )
    null = Null({metric.label: K for metric in chosen}, ALPHA, seed)
    draws, perms = null.draws(N, K), null.permutations(N, K)
    inner = {
        kernel: permuted_products(state.square, state.layers, [pair], draws)[pair]
        for kernel, state in states.items()
    }
    made = {}
    for metric, table in zip(chosen, scored, strict=True):
        if metric.joint is not None:
            made[metric.label] = calibrate_pair(
                metric, table.scores, *(NeighborSide(tables[side]) for side in pair), null
            )
        elif metric.kernel is not None:
            of = states[metric.kernel].of
            permuted = kernel_null_scores(metric, inner[metric.kernel], of[pair[0]], of[pair[1]], perms)
            made[metric.label] = calibrate_best(metric, table.scores, permuted, ALPHA, SLACK)
        else:
            permuted = rows_null_scores(metric, sums[metric.label, *names], perms)
            made[metric.label] = calibrate_best(metric, table.scores, permuted, ALPHA, ROUNDING)
    return made


def holds(chosen: list[Metric], tables: int, kinds: Iterable[str]) -> None:
    """Check P(p ≤ α) ≤ α over so many tables of every kind, but for one time in 100,000."""
    generator = torch.Generator().manual_seed(len(chosen))
    every: list[dict[str, Calibration]] = []
    for kind in kinds:
        models = [KINDS[kind](N, generator) for _ in range(tables + 1)]
        every += [calibrations(x, y, len(every) + at, chosen) for at, (x, y) in enumerate(pairwise(models))]
    for metric in chosen:
        found = [made[metric.label] for made in every]
        for alpha in (0.05, ALPHA, 0.25, 0.5):
            most = binom.isf(1e-5, len(found), alpha)
            assert sum(made.p <= alpha for made in found) <= most, (metric.label, alpha)
        assert sum(made.calibrated > 0 for made in found) <= binom.isf(1e-5, len(found), ALPHA)
        # Were p far too large, nothing would ever be found.
        assert sum(made.p <= 0.5 for made in found) >= 0.1 * len(found) - 2, metric.label


@FAMILIES
def test_unrelated_models_are_rarely_significant(chosen):
    holds(chosen, 2 if chosen is WHOLE else 6, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@FAMILIES
def test_over_five_hundred_tables_the_level_is_kept(chosen, kind):
    """Of each kind alone, which is stricter than of all together."""
    few = chosen is WHOLE and kind == "stack"
    holds(chosen, 30 if few else 75, [kind])


@FAMILIES
def test_a_shared_factor_is_found(chosen):
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(N, 3, generator=generator)
    x, y = ([gaussian(N, generator)[0], shared @ torch.randn(3, 4, generator=generator)] for _ in range(2))
    for name, made in calibrations(x, y, 0, chosen).items():
        assert made.p == 1 / (K + 1), name
