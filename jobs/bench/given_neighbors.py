"""What comes after the neighbors, timed at the size of the published table: neighbor metrics and the null.

The neighbors are drawn from a seed: every sample has a pool of near samples, which each layer orders
with noise of its own. Where layers are `apart`, each draws from all samples.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from bench.features import paper_models
from platonic_ray.kernels import each
from platonic_ray.metrics import Metric, Neighbors, PairSums, get_metric, neighbor_pair, neighbor_sums
from platonic_ray.statistics import NeighborSide, Null, calibrate_pair

_POOL = 80


def time_neighbor_metrics(names: list[str], k: int, scale: float, samples: int) -> dict[str, Any]:
    """Return the seconds and the mean score of every metric on the same drawn neighbors."""
    xs, ys = _models(scale, samples, k)
    x, y = (
        Neighbors(torch.cat([of.ids for of in side]), torch.cat([of.values for of in side]))
        for side in (xs, ys)
    )
    report = _facts(xs, ys, samples, k)
    for name in names:
        metric = get_metric(name, k=k)
        started, used = time.perf_counter(), time.process_time()
        scores, _ = metric.score(PairSums(samples, neighbor_sums(metric, x, y)))
        report[name] = {
            "seconds": round(time.perf_counter() - started, 2),
            "cpu_seconds": round(time.process_time() - used, 2),
            "mean_score": float(scores.mean()),
        }
    return report


def time_null(
    names: list[str], k: int, scale: float, samples: int, permutations: int, apart: bool
) -> dict[str, Any]:
    """Return the CPU seconds of a null of all pairs of models, and of the step that makes what is observed."""
    xs, ys = _models(scale, samples, k, apart)
    report = _facts(xs, ys, samples, k) | {"permutations": permutations, "apart": apart}
    pairs = [(x, y) for x in xs for y in ys]
    for name in names:
        metric = get_metric(name, k=k)
        used = time.process_time()
        scores = each(lambda pair, metric=metric: _scores(metric, *pair), pairs)  # type: ignore[misc]
        observed = time.process_time() - used
        null = Null({metric.label: permutations}, 0.05, 0)
        # What is compiled, is compiled before.
        of_x, of_y = (NeighborSide(of) for of in pairs[0])
        calibrate_pair(metric, scores[0], of_x, of_y, Null({metric.label: 1}, 0.05, 0))
        used = time.process_time()
        sides = {id(of): NeighborSide(of) for of in (*xs, *ys)}
        for (x, y), score in zip(pairs, scores, strict=True):
            calibrate_pair(metric, score, sides[id(x)], sides[id(y)], null)
        taken = time.process_time() - used
        report[name] = {
            "observed_cpu_seconds": round(observed, 2),
            "null_cpu_seconds": round(taken, 2),
            "ratio": round(taken / observed, 2),
        }
    return report


def _scores(metric: Metric, x: Neighbors, y: Neighbors) -> Any:
    return metric.score(neighbor_pair(metric, x, y))[0]


def _facts(xs: list[Neighbors], ys: list[Neighbors], samples: int, k: int) -> dict[str, Any]:
    layers = [sum(of.ids.shape[0] for of in side) for side in (xs, ys)]
    return {"layers": layers, "samples": samples, "k": k, "torch": torch.__version__}


def _models(
    scale: float, samples: int, k: int, apart: bool = False
) -> tuple[list[Neighbors], list[Neighbors]]:
    drawn = torch.Generator().manual_seed(0)
    nearness = torch.rand(samples, samples, generator=drawn).fill_diagonal_(2)
    pool = nearness.topk(min(_POOL, samples - 1), dim=1, largest=False).indices
    near = torch.linspace(0, 1, pool.shape[1])

    def layer() -> torch.Tensor:
        if apart:
            far = torch.rand(samples, samples, generator=drawn).fill_diagonal_(2)
            return far.topk(k + 1, dim=1, largest=False).indices
        return pool.gather(1, (near + torch.rand(pool.shape, generator=drawn)).argsort(1)[:, : k + 1])

    def model(layers: int) -> Neighbors:
        ids = torch.stack([layer() for _ in range(layers)])
        values = torch.rand(ids.shape, generator=drawn, dtype=torch.float64)
        return Neighbors(ids, values, torch.zeros(ids.shape[:2], dtype=torch.float64))

    xs, ys = ([model(of.layers) for of in side] for side in paper_models(scale, samples))
    return xs, ys
