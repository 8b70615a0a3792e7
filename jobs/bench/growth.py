"""Two representations of many samples: mutual_knn, cka and unbiased_cka at every size, of one run.

The neighbors of every size come from one pass of tiles (`pr.neighbors(…, sizes=…)`); linear CKA of the
first m rows is one pass over them.
"""

from __future__ import annotations

import argparse
import sys
from time import perf_counter
from typing import Any

import numpy as np
import torch

import platonic_ray as pr
from bench.neighbors import peak_bytes
from platonic_ray.kernels.collect import candidate_bytes
from platonic_ray.kernels.sweep import BLOCK_BYTES, TILE


def time_growth(arguments: list[str]) -> dict[str, Any]:
    """Parse, run, and return the curve with what it took."""
    parser = argparse.ArgumentParser(prog="benchmark.py growth", description=__doc__)
    parser.add_argument("--samples", type=int, default=32768)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--points", type=int, default=6, help="sizes of the curve, each twice the last")
    given = parser.parse_args(arguments)
    n, k = given.samples, given.k
    sizes = [n >> halvings for halvings in reversed(range(given.points))]
    x, y = _two(n, given.width)
    pr.neighbors(x[:3000], k)  # what is loaded and compiled once
    held = peak_bytes()
    start = perf_counter()
    found = [[ids for ids, _ in pr.neighbors(side, k, sizes=sizes)] for side in (x, y)]
    neighbors_s = perf_counter() - start
    curve = []
    start = perf_counter()
    for size, a, b in zip(sizes, *found, strict=True):
        result = pr.table({"x": x[:size], "y": y[:size]}, metric=["cka", "unbiased_cka"], permutations=0)
        scores = {name: float(result.matrix(name).at("x", "y")) for name in ("cka", "unbiased_cka")}
        curve.append({"n": size, "mutual_knn": _shared(a, b), **scores})
    report = {
        "what": "growth",
        "n": n,
        "width": given.width,
        "k": k,
        "threads": torch.get_num_threads(),
        "neighbors_s": round(neighbors_s, 1),
        "cka_s": round(perf_counter() - start, 1),
        "gflops_of_neighbors": round(2 * n * n * given.width / neighbors_s / 1e9),
        "memory_declared_mb": round(_declared(sizes, given.width, k) / 2**20),
        "memory_beyond_features_mb": round((peak_bytes() - held) / 2**20),
        "curve": curve,
    }
    for name, value in report.items():
        print(f"{name:<28} {value}", file=sys.stderr)
    return report


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


def _declared(sizes: list[int], width: int, k: int) -> float:
    """Return the bytes that are held beyond the features, by what the documentation says is held.

    Prepared rows of one side (two while scores are made), candidates, blocks and a tile of the sweep, and
    the lists of every size of both sides, ids, similarities and what they are sorted by.
    """
    n, lists = sizes[-1], sum(sizes) * k * (8 + 4) * 2
    sweep = n * candidate_bytes(k + 1) + 3 * BLOCK_BYTES + 4 * TILE["cpu"] ** 2
    return 2 * 4 * n * width + sweep + lists + n * 2 * (k + 1) * 48


def _shared(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean share of neighbors `[n, k]` in common."""
    parts = [
        (x[:, :, None] == y[:, None, :]).sum()
        for x, y in zip(np.array_split(a, 64), np.array_split(b, 64), strict=True)
    ]
    return float(sum(parts)) / a.size
