"""Time the library at the size of the published table. Prints JSON.

    python jobs/benchmark.py table --part neighbors

scores, with every neighbor metric, the 454 layers of 12 language models against the 352 layers of 17
vision models (1,024 samples, 159,808 layer pairs), given their neighbors. The neighbors are drawn from
a seed: every sample has a pool of near samples, which each layer orders with noise of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import torch

from platonic_ray.metrics import Neighbors, PairSums, get_metric, metrics, neighbor_sums

LANGUAGE_LAYERS, VISION_LAYERS, SAMPLES = 454, 352, 1024
POOL = 80


def main() -> None:
    """Parse, time, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["table"])
    parser.add_argument("--part", choices=["neighbors"], default="neighbors", help="what of it to time")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the layers (default: 1)")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--metric", action="append", help="may be given several times (default: all)")
    given = parser.parse_args()
    names = given.metric or [metric.name for metric in metrics() if metric.joint is not None]
    print(json.dumps(time_neighbor_metrics(names, given.k, given.scale), indent=2))


def time_neighbor_metrics(names: list[str], k: int, scale: float) -> dict[str, object]:
    """Return the seconds and the mean score of every metric on the same drawn neighbors."""
    drawn = torch.Generator().manual_seed(0)
    nearness = torch.rand(SAMPLES, SAMPLES, generator=drawn).fill_diagonal_(2)
    pool = nearness.topk(POOL, dim=1, largest=False).indices
    x, y = (_layers(pool, max(1, round(scale * size)), k, drawn) for size in (LANGUAGE_LAYERS, VISION_LAYERS))
    report: dict[str, object] = {
        "layers": [x.ids.shape[0], y.ids.shape[0]],
        "samples": SAMPLES,
        "k": k,
        "torch": torch.__version__,
    }
    for name in names:
        metric = get_metric(name, k=k)
        started, used = time.perf_counter(), time.process_time()
        scores, _ = metric.score(PairSums(SAMPLES, neighbor_sums(metric, x, y)))
        report[name] = {
            "seconds": round(time.perf_counter() - started, 2),
            "cpu_seconds": round(time.process_time() - used, 2),
            "mean_score": scores.mean(),
        }
    report["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return report


def _layers(pool: torch.Tensor, layers: int, k: int, drawn: torch.Generator) -> Neighbors:
    near = torch.linspace(0, 1, POOL)
    ids = [
        pool.gather(1, (near + torch.rand(pool.shape, generator=drawn)).argsort(1)[:, : k + 1])
        for _ in range(layers)
    ]
    return Neighbors(torch.stack(ids), torch.zeros(layers, *ids[0].shape, dtype=torch.float64))


if __name__ == "__main__":
    main()
