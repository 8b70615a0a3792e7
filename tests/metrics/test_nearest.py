"""Neighbors of some rows, of a growing gallery, and of features that are read block by block."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import platonic_ray as pr
import platonic_ray.kernels.factors as factors
import platonic_ray.kernels.sweep as sweep
from platonic_ray.errors import DataError, StudyError


@pytest.fixture
def x() -> np.ndarray:
    drawn = np.random.default_rng(0)
    rows = drawn.integers(-2, 3, size=(700, 9)).astype("f4")  # with ties in plenty
    rows[:, 0] += 5
    return rows


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "BLOCK_BYTES", 4 * 9 * 100)
    monkeypatch.setitem(factors.TILE, "cpu", 37)


def equal(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


@pytest.mark.parametrize("similarity", ["cosine", "inner", "euclidean"])
def test_features_that_are_read_have_the_neighbors_of_those_in_memory(
    x: np.ndarray, similarity: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", x.astype("f8"))
    expected = pr.neighbors(x, 7, similarity)
    assert equal(pr.neighbors(tmp_path / "x.npy", 7, similarity), expected)
    assert equal(pr.neighbors(str(tmp_path / "x.npy"), 7, similarity), expected)
    assert equal(pr.neighbors(np.load(tmp_path / "x.npy", mmap_mode="r"), 7, similarity), expected)


def test_some_rows_have_the_neighbors_that_they_have_among_all(x: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    chosen = [5, 600, 2, 3]
    every = pr.neighbors(x, 7)
    expected = (every[0][chosen], every[1][chosen])
    assert equal(pr.neighbors(x, 7, queries=chosen), expected)
    assert equal(pr.neighbors(tmp_path / "x.npy", 7, queries=np.array(chosen)), expected)


def test_rows_from_elsewhere_leave_out_no_row_of_the_gallery(x: np.ndarray) -> None:
    ids, similarities = pr.neighbors(torch.from_numpy(x), 1, "euclidean", queries=torch.from_numpy(x[:50]))
    assert (similarities == 0).all()
    assert (x[ids[:, 0]] == x[:50]).all()


def test_a_growing_gallery_has_at_every_size_the_neighbors_of_a_gallery_of_that_size(x: np.ndarray) -> None:
    values = x.astype("f8") @ x.astype("f8").T
    np.fill_diagonal(values, -np.inf)
    sizes = [20, 333, 700]
    for size, (ids, similarities) in zip(sizes, pr.neighbors(x, 5, "inner", sizes=sizes), strict=True):
        assert ids.shape == (size, 5)
        assert ids.max() < size
        assert np.array_equal(similarities, -np.sort(-values[:size, :size], 1)[:, :5])
    for size, (ids, similarities) in zip(
        sizes, pr.neighbors(x, 5, "inner", queries=[699, 0], sizes=sizes), strict=True
    ):
        assert ids.max() < size
        assert np.array_equal(similarities, -np.sort(-values[[699, 0], :size], 1)[:, :5])


def test_what_cannot_be_is_refused_before_any_work(x: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="k = 20"):
        pr.neighbors(x, 20, sizes=[20, 700])
    with pytest.raises(StudyError, match="sizes must ascend"):
        pr.neighbors(x, 5, sizes=[30, 20])
    with pytest.raises(StudyError, match="rows 0 to 699"):
        pr.neighbors(x, 5, queries=[700])
    with pytest.raises(DataError, match="8 columns, and the gallery 9"):
        pr.neighbors(x, 5, queries=x[:, :8])
    with pytest.raises(DataError, match="whole and 1-D"):
        pr.neighbors(x, 5, queries=[0.5])
    with pytest.raises(DataError, match=r"cannot be read as a \.npy file"):
        pr.neighbors(tmp_path / "missing.npy", 5)
    np.save(tmp_path / "order.npy", np.asfortranarray(x))
    with pytest.raises(DataError, match="C order"):
        pr.neighbors(tmp_path / "order.npy", 5)
    x[150, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="NaN or infinite"):
        pr.neighbors(tmp_path / "x.npy", 5)


MEMORY = """
import resource, sys, numpy as np
import platonic_ray as pr
import platonic_ray.kernels.sweep as sweep
sweep.BLOCK_BYTES = 2**21
np.save("warm.npy", np.random.randn(2100, 512).astype("f4"))
pr.neighbors("warm.npy", 5)  # what is loaded and compiled once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pr.neighbors(sys.argv[1], 5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_features_that_are_read_are_never_held(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", drawn.standard_normal((12000, 1024), dtype=np.float32))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, "x.npy"], cwd=tmp_path, capture_output=True, text=True, timeout=390
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 12000 * 1024 * 4
