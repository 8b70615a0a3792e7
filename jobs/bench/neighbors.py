"""The exact neighbor graph of one representation, timed beside FAISS on the same rows."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

import platonic_ray as pr
from platonic_ray.kernels import canonical_dot, exact_neighbors, l2_normalize
from platonic_ray.kernels.exhaustive import exhaustive
from platonic_ray.kernels.ties import TieRule

_CHECKED = 64  # rows that are searched by float64 products as well
_RANK = 32  # of the low-rank part


def time_neighbors(arguments: list[str]) -> dict[str, Any]:
    """Parse, time, and return a report with a row for each size and kind of data."""
    parser = argparse.ArgumentParser(prog="benchmark.py neighbors", description=__doc__)
    parser.add_argument("--samples", type=int, action="append", help="default: 8192")
    parser.add_argument("--width", type=int, action="append", help="default: 384 and 1024")
    parser.add_argument("--data", action="append", choices=sorted(DATA), help="default: low-rank")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-faiss", action="store_true", help="time this library alone")
    parser.add_argument("--from-file", action="store_true", help="also read the features block by block")
    given = parser.parse_args(arguments)
    rows = []
    for n in given.samples or [8192]:
        for width in given.width or [384, 1024]:
            for kind in given.data or ["low-rank"]:
                rows.append(_timed(kind, n, width, given))
                print(
                    "  ".join(f"{name} {value}" for name, value in rows[-1].items()),
                    file=sys.stderr,
                    flush=True,
                )
    return {"what": "neighbors", "threads": torch.get_num_threads(), "k": given.k, "rows": rows}


def _timed(kind: str, n: int, width: int, given: argparse.Namespace) -> dict[str, Any]:
    k, faiss_too = given.k, not given.without_faiss
    x = features(kind, n, width)
    rows = l2_normalize(torch.from_numpy(x))
    pr.neighbors(x[:3000], min(k, 100))  # what is loaded and compiled once
    start_bytes = peak_bytes()
    ours, theirs, read, peaks = [], [], [], []
    for repeat in range(given.repeats):
        start = perf_counter()
        ids, _ = pr.neighbors(x, k)
        ours.append(perf_counter() - start)
        if repeat == 0:
            grown = peak_bytes() - start_bytes
        peaks.append(peak_flops())
        if faiss_too:
            start = perf_counter()
            found = _faiss(rows.numpy(), k)
            theirs.append(perf_counter() - start)
        if given.from_file:
            read.append(_from_file(x, k, np.asarray(ids)))
    tally: Counter[str] = Counter()
    state = exact_neighbors(rows, k, "0" * 64, tally=tally)
    _check_sample(rows, state.ids[:, :k], k)
    products = n * n * width  # each of N²/2 products once, 2 D operations
    report: dict[str, Any] = {
        "data": kind,
        "n": n,
        "width": width,
        "ours_s": round(statistics.median(ours), 3),
        "share_of_peak": round(products / statistics.median(ours) / max(peaks), 3),
        "peak_gflops": round(max(peaks) / 1e9),
        "settled_by_tiles": round(1 - tally["again"] / n, 5) if n * n > 2**22 else None,
        "values_a_row": round(tally["pairs"] / n, 2),
        "memory_beyond_features_mb": round(grown / 2**20),
    }
    if given.from_file:
        slower = [b / a for a, b in zip(ours, read, strict=True)]
        report |= {
            "from_file_s": round(statistics.median(read), 3),
            "from_file_ratio": round(statistics.median(slower), 2),
        }
    if faiss_too:
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        report |= {
            "faiss_s": round(statistics.median(theirs), 3),
            "ratio": round(statistics.median(ratios), 2),
            **_compared(rows, torch.from_numpy(np.asarray(ids)), torch.from_numpy(found)),
        }
    return report


def _from_file(x: np.ndarray, k: int, expected: np.ndarray) -> float:
    """Return the seconds that features in a file take, of which the same neighbors must come."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        np.save(path, x)
        start = perf_counter()
        ids, _ = pr.neighbors(path, k)
        seconds = perf_counter() - start
    if not np.array_equal(ids, expected):
        raise AssertionError("neighbors of features in a file differ from those in memory")
    return seconds


def _faiss(rows: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest other rows `[n, k]` by `faiss.knn`, a row's own id taken out."""
    # Its wheel's OpenBLAS takes processors that are newer than itself for old ones, a third as fast.
    if torch.cpu.get_capabilities().get("avx512_f"):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
    import faiss

    _, ids = faiss.knn(rows, rows, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
    others = ids != np.arange(len(rows))[:, None]
    others[others.all(1), -1] = False  # duplicates can push out the row itself
    kept: np.ndarray = ids[others].reshape(len(rows), k)
    return kept


def _compared(rows: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, Any]:
    """Say in how many rows the two differ, and that none of theirs is better but by float32's rounding."""
    k, width = ours.shape[1], rows.shape[1]
    differ = (ours.sort(1).values != theirs.sort(1).values).any(1).nonzero().squeeze(1)
    worst = better = 0.0
    for row in differ.tolist():
        mine, other = (canonical_dot(rows[row], rows[ids[row]]).sort().values for ids in (ours, theirs))
        worst = max(worst, float((mine - other).max()))
        better = max(better, float((other - mine).max()))
    if better > 0 or worst > 2 * (width + 8) * 2.0**-23:
        raise AssertionError(
            f"neighbors differ by more than float32's rounding: {worst} below, {better} above"
        )
    return {"rows_of_faiss_that_differ": differ.shape[0], "its_similarities_lower_by_at_most": worst, "k": k}


def _check_sample(rows: torch.Tensor, ids: torch.Tensor, k: int) -> None:
    """Hold some rows against products in float64 and canonical values, another path."""
    chosen = torch.linspace(0, rows.shape[0] - 1, _CHECKED).long().unique()
    every = torch.arange(rows.shape[0])
    expected, _ = exhaustive(rows[chosen], rows, chosen, every, k, TieRule("0" * 64), "inner")
    if not torch.equal(ids[chosen], expected):
        raise AssertionError("neighbors differ from those of float64 products")


def peak_flops(size: int = 3072) -> float:
    """Return the operations a second of a float32 matrix product, the best of three."""
    a, times = torch.randn(size, size), []
    for _ in range(3):
        start = perf_counter()
        a @ a
        times.append(perf_counter() - start)
    return 2 * size**3 / min(times)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def features(kind: str, n: int, width: int, seed: int = 0) -> np.ndarray:
    """Return features `[n, width] float32` of a kind that `DATA` names."""
    drawn = np.random.default_rng(seed)
    return np.asarray(DATA[kind](drawn, n, width), dtype=np.float32)


def _normal(drawn: np.random.Generator, *shape: int) -> np.ndarray:
    return drawn.standard_normal(shape, dtype=np.float32)


def _low_rank(drawn: np.random.Generator, n: int, width: int) -> np.ndarray:
    """A low-rank part, noise, and an offset common to all rows."""
    rows = _normal(drawn, n, _RANK) @ _normal(drawn, _RANK, width)
    rows /= np.float32(_RANK**0.5)  # in place: of a million rows each array is gigabytes
    noise = _normal(drawn, n, width)
    noise *= np.float32(0.3)
    rows += noise
    rows += _normal(drawn, width)
    return rows


def _anisotropic(cosine: float) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    """An offset so long that two rows have this cosine in the mean."""
    length = np.float32((cosine / (1 - cosine)) ** 0.5)

    def make(drawn: np.random.Generator, n: int, width: int) -> np.ndarray:
        part = _normal(drawn, n, _RANK) @ _normal(drawn, _RANK, width) / np.float32(_RANK**0.5)
        rows = part + np.float32(0.3) * _normal(drawn, n, width)
        return rows + length * np.float32(1.09**0.5) * np.sign(_normal(drawn, width))

    return make


def _outliers(drawn: np.random.Generator, n: int, width: int) -> np.ndarray:
    """Four dimensions thirty times as large as the others, as language models have them."""
    rows = _low_rank(drawn, n, width)
    rows[:, :4] = 30 + 5 * _normal(drawn, n, min(4, width))
    return rows


def _duplicates(drawn: np.random.Generator, n: int, width: int) -> np.ndarray:
    """Half of the rows are copies of other rows."""
    rows = _low_rank(drawn, n, width)
    rows[n // 2 :] = rows[drawn.integers(0, n // 2, n - n // 2)]
    return rows


def _clusters(drawn: np.random.Generator, n: int, width: int) -> np.ndarray:
    """A cluster for every 200 rows."""
    centers = _normal(drawn, max(2, n // 200), width)
    return centers[drawn.integers(0, len(centers), n)] + np.float32(0.3) * _normal(drawn, n, width)


DATA: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "low-rank": _low_rank,
    "isotropic": lambda drawn, n, width: _normal(drawn, n, width),
    "cosine-0.95": _anisotropic(0.95),
    "cosine-0.99": _anisotropic(0.99),
    "outliers": _outliers,
    "duplicates": _duplicates,
    "clusters": _clusters,
}
