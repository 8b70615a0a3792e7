"""Known truths of the nulls of cknna and of whole representations: on unrelated models p is rarely small."""

from itertools import pairwise

import pytest
import torch
from scipy.stats import binom
from small_tables import KINDS, gaussian

from platonic_ray.digest import digest
from platonic_ray.metrics import Metric, Neighbors, PairSums, get_metric, metrics, score_tables
from platonic_ray.statistics import (
    ROUNDING,
    Calibration,
    NeighborSide,
    Null,
    calibrate_best,
    calibrate_pair,
    rows_null_scores,
)

N, K, ALPHA = 20, 19, 0.1
NEAR = [get_metric(name, k=3) for name in ("cknna", "cknna_paper")]
WHOLE = [metric.on_all_layers() for metric in metrics() if metric.family == "rows"]


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
    names = f"x{seed}", f"y{seed}"
    seeds = {
        name: [digest([name, at]) for at in range(len(of))] for name, of in zip(names, (x, y), strict=True)
    }
    scored = score_tables({names[0]: x}, {names[1]: y}, chosen, digests=seeds, tables=tables, row_sums=sums)
    null = Null({metric.label: K for metric in chosen}, ALPHA, seed)
    made = {}
    for metric, table in zip(chosen, scored, strict=True):
        if metric.joint is not None:
            sides = [NeighborSide(tables[side]) for side in zip("xy", names, strict=True)]
            made[metric.name] = calibrate_pair(metric, table.scores, *sides, null)
        else:
            permuted = rows_null_scores(metric, sums[metric.label, *names], null.permutations(N, K))
            made[metric.name] = calibrate_best(metric, table.scores, permuted, ALPHA, ROUNDING)
    return made


def holds(chosen: list[Metric], tables: int) -> None:
    """Check P(p ≤ α) ≤ α over so many tables of every kind, but for one time in 100,000."""
    generator = torch.Generator().manual_seed(len(chosen))
    every: list[dict[str, Calibration]] = []
    for kind in KINDS.values():
        models = [kind(N, generator) for _ in range(tables + 1)]
        every += [calibrations(x, y, len(every) + at, chosen) for at, (x, y) in enumerate(pairwise(models))]
    for metric in chosen:
        found = [made[metric.name] for made in every]
        for alpha in (0.05, ALPHA, 0.25, 0.5):
            most = binom.isf(1e-5, len(found), alpha)
            assert sum(made.p <= alpha for made in found) <= most, (metric.name, alpha)
        assert sum(made.calibrated > 0 for made in found) <= binom.isf(1e-5, len(found), ALPHA)
        # Were p far too large, nothing would ever be found.
        assert sum(made.p <= 0.5 for made in found) >= 0.1 * len(found) - 2, metric.name


def test_unrelated_models_are_rarely_significant_under_cknna():
    holds(NEAR, 10)


def test_unrelated_models_are_rarely_significant_under_metrics_of_whole_representations():
    holds(WHOLE, 2)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [NEAR, WHOLE], ids=["cknna", "rows"])
def test_over_five_hundred_tables_the_level_is_kept(chosen):
    holds(chosen, 84)


def test_a_shared_factor_is_found_under_them_too():
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(N, 3, generator=generator)
    x, y = ([gaussian(N, generator)[0], shared @ torch.randn(3, 4, generator=generator)] for _ in range(2))
    for name, made in calibrations(x, y, 0, [*NEAR, *WHOLE]).items():
        assert made.p == 1 / (K + 1), name
