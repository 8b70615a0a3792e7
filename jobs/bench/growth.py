"""Two representations of many samples: mutual_knn, cka and unbiased_cka at every size, of one run.

The neighbors of every size come from one pass of tiles (`pr.neighbors(…, sizes=…)`); linear CKA of the
first m rows is one pass over them. `mutual_knn` is told for a fixed k, and for k = c · size as long as
that is not too large. What it will take is said before it starts, from searches and passes of fewer rows.
"""

from __future__ import annotations

import argparse
import sys
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

import platonic_ray as pr
from bench.neighbors import peak_bytes
from platonic_ray.kernels import overlap_counts
from platonic_ray.kernels.sweep import sweep_bytes

_TRIED = (16384, 49152)  # rows of the searches that say what one of all rows will take
_PASSED = 65536  # and of the pass of kernels


def time_growth(arguments: list[str]) -> dict[str, Any]:
    """Parse, plan, run, and return the curve with what it took beside what was planned."""
    parser = argparse.ArgumentParser(prog="benchmark.py growth", description=__doc__)
    parser.add_argument("--samples", type=int, default=32768)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument(
        "--least", type=int, default=1000, help="the first size; then 3, 10, 30 … times as many"
    )
    parser.add_argument("--share", type=float, default=0.01, help="k = share · size as well")
    parser.add_argument("--most-k", type=int, default=1000, help="as long as that is at most so many")
    given = parser.parse_args(arguments)
    n, k = given.samples, given.k
    sizes = _sizes(given.least, n)
    shares = {size: round(given.share * size) for size in sizes if 1 <= given.share * size <= given.most_k}
    x, y = _two(n, given.width)
    planned = {
        "planned_s": round(_planned_s(x, y, sizes, k)),
        "planned_memory_mb": round(_declared(sizes, shares, given.width, k) / 2**20),
    }
    print(f"{n:,} samples: {planned}", file=sys.stderr, flush=True)
    start, cpu = perf_counter(), process_time()
    found = [[torch.from_numpy(ids) for ids, _ in pr.neighbors(side, k, sizes=sizes)] for side in (x, y)]
    fixed = {size: _shared(*both) for size, *both in zip(sizes, *found, strict=True)}
    neighbors_s, neighbors_cpu = perf_counter() - start, process_time() - cpu
    del found
    grown = {size: _shared(*_of_size(x, y, size, shares[size])) for size in shares}
    kernels = perf_counter()
    curve = []
    for size in sizes:
        result = pr.table({"x": x[:size], "y": y[:size]}, metric=["cka", "unbiased_cka"], permutations=0)
        scores = {name: float(result.matrix(name).at("x", "y")) for name in ("cka", "unbiased_cka")}
        growing: dict[str, Any] = {"k_of_size": shares.get(size), "mutual_knn_of_size": grown.get(size)}
        curve.append({"n": size, "mutual_knn": fixed[size], **growing, **scores})
    report = {
        "what": "growth",
        "n": n,
        "width": given.width,
        "k": k,
        "share": given.share,
        "threads": torch.get_num_threads(),
        **planned,
        "took_s": round(perf_counter() - start, 1),
        "took_cpu_s": round(process_time() - cpu, 1),
        "features_mb": round((x.nbytes + y.nbytes) / 2**20),
        "process_peak_mb": round(peak_bytes() / 2**20),
        "neighbors_s": round(neighbors_s, 1),
        "neighbors_cpu_s": round(neighbors_cpu, 1),
        "neighbors_of_growing_k_s": round(kernels - start - neighbors_s, 1),
        "kernels_s": round(perf_counter() - kernels, 1),
        "gflops_of_neighbors": round(2 * n * n * given.width / neighbors_s / 1e9),
        "curve": curve,
    }
    for name, value in report.items():
        print(f"{name:<28} {value}", file=sys.stderr)
    return report


def _sizes(least: int, n: int) -> list[int]:
    """Return 1, 3, 10, 30 … times the least size below n, and n."""
    steps = [least * 10**power * factor for power in range(9) for factor in (1, 3)]
    return [*(size for size in steps if size < n), n]


def _of_size(x: np.ndarray, y: np.ndarray, size: int, k: int) -> list[torch.Tensor]:
    return [torch.from_numpy(pr.neighbors(side[:size], k)[0]) for side in (x, y)]


def _planned_s(x: np.ndarray, y: np.ndarray, sizes: list[int], k: int) -> float:
    """Return the seconds that the neighbors of a fixed k and the kernels will take, by smaller runs.

    A search of n rows takes a n² + b n: its tiles, and what every query costs. A pass of kernels takes
    as long a row for any number of rows.
    """
    pr.neighbors(x[:3000], k)  # what is loaded and compiled once
    rows = [min(tried, len(x)) for tried in _TRIED]
    took = [min(_seconds(lambda m=m: pr.neighbors(x[:m], k)) for _ in range(2)) for m in rows]
    passed = min(_PASSED, len(x))
    both = {"x": x[:passed], "y": y[:passed]}
    of_row = _seconds(lambda: pr.table(both, metric=["cka", "unbiased_cka"], permutations=0)) / passed
    if rows[0] == rows[1]:
        return 2 * took[0] + of_row * sum(sizes)
    square, line = np.linalg.solve([[m * m, m] for m in rows], took)
    return float(2 * (square * sizes[-1] ** 2 + max(line, 0) * sum(sizes)) + of_row * sum(sizes))


def _seconds(action) -> float:  # type: ignore[no-untyped-def]
    start = perf_counter()
    action()
    return perf_counter() - start


def _two(n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two views `[n, width] float32` of what samples have in common, each with noise of its own."""
    drawn = np.random.default_rng(0)
    common = drawn.standard_normal((n, 24), dtype=np.float32)
    sides = []
    for _ in range(2):
        rows = common @ drawn.standard_normal((24, width), dtype=np.float32)
        rows += np.float32(3) * drawn.standard_normal((n, width), dtype=np.float32)
        sides.append(rows + drawn.standard_normal(width, dtype=np.float32))
    return sides[0], sides[1]


def _declared(sizes: list[int], shares: dict[int, int], width: int, k: int) -> float:
    """Return the bytes that are held beyond the features, by what a search says it holds.

    Of the search for k: prepared rows of one side, what `sweep_bytes` tells, and the lists of every size of both
    sides, ids and similarities. The same of the largest search for a growing k. Kernels hold the prepared rows
    of both sides. What is largest counts.
    """

    def searched(n: int, k: int, sizes: list[int]) -> float:
        return 4 * n * width + sweep_bytes(n, width, k + 1) + sum(sizes) * (k + 1) * (8 + 8 + 8) * 2

    searches = [searched(sizes[-1], k, sizes), *(searched(n, k_of, [n]) for n, k_of in shares.items())]
    return max(*searches, 2 * 4 * sizes[-1] * width)


def _shared(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean share of neighbors `[n, k]` in common."""
    counts = [
        int(overlap_counts(x[None], y[None])) for x, y in zip(a.split(4096), b.split(4096), strict=True)
    ]
    return sum(counts) / a.numel()
