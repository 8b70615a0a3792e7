"""Linear CKA, biased and unbiased, of several representations of many samples, in one pass over the rows."""

from __future__ import annotations

import argparse
import statistics
import sys
from itertools import combinations
from time import perf_counter
from typing import Any

import numpy as np
import torch

from bench.neighbors import features, peak_bytes, peak_flops
from platonic_ray.metrics import score_tables


def time_kernels(arguments: list[str]) -> dict[str, Any]:
    """Parse, time, check against float64 on the spot, and return a report."""
    parser = argparse.ArgumentParser(prog="benchmark.py kernels", description=__doc__)
    parser.add_argument("--samples", type=int, default=65536)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args(arguments)
    n, width, count = given.samples, given.width, given.models
    rows = {f"m{seed}": torch.from_numpy(features("low-rank", n, width, seed)) for seed in range(count)}
    start_bytes, times, peaks = peak_bytes(), [], []
    for _ in range(given.repeats):
        peaks.append(peak_flops())
        start = perf_counter()
        tables = score_tables(rows, metrics=["cka", "unbiased_cka"], recipe="none")
        times.append(perf_counter() - start)
        peaks.append(peak_flops())
    pairs = count * (count + 1) // 2
    seconds, peak = statistics.median(times), statistics.median(peaks)
    checked = {(name.x, name.y, name.metric.name): float(name.scores[0, 0]) for name in tables}
    report = {
        "what": "kernels",
        "n": n,
        "width": width,
        "models": count,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 2),
        "operations": 2 * n * width * width * pairs,
        "peak_gflops": round(peak / 1e9),
        "share_of_peak": round(2 * n * width * width * pairs / seconds / peak, 3),
        "memory_beyond_features_mb": round((peak_bytes() - start_bytes) / 2**20),
        "largest_difference_from_float64": _difference(rows, checked),
    }
    for name, value in report.items():
        print(f"{name:<34} {value}", file=sys.stderr)
    return report


def _difference(rows: dict[str, torch.Tensor], found: dict[tuple[str, str, str], float]) -> float:
    """Return how far biased scores are from plain float64: centered products of whole matrices."""

    def product(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        total = np.zeros((x.shape[1], y.shape[1]))
        mean_x, mean_y = x.mean(0, dtype=torch.float64), y.mean(0, dtype=torch.float64)
        for a, b in zip(x.split(8192), y.split(8192), strict=True):
            total += ((a.double() - mean_x).T @ (b.double() - mean_y)).numpy()
        return total

    names = list(rows)[:2]  # the float64 products take twice the time of all that was measured
    own = {name: np.sum(product(rows[name], rows[name]) ** 2) for name in names}
    worst = 0.0
    for x, y in combinations(names, 2):
        plain = np.sum(product(rows[x], rows[y]) ** 2) / np.sqrt(own[x] * own[y])
        worst = max(worst, abs(plain - found[x, y, "cka"]))
    return worst
