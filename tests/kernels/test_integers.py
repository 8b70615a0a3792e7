"""Rows rounded to 16-bit integers propose neighbors: exact sums, a bound that holds, else float32."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import exact_neighbors, l2_normalize
from platonic_ray.kernels.compiled import integer_products
from platonic_ray.kernels.frame import measure

from .dense_neighbors import dense
from .formats import use
from .test_neighbors import DIGEST
from .test_sweep import CASES, make

pytestmark = pytest.mark.skipif(
    integer_products() is None, reason="this processor does not multiply 16-bit integers faster than float32"
)

LONGEST = 32767


def integer_rows(drawn: np.random.Generator, count: int, width: int, few: int) -> np.ndarray:
    """Return rows `[count, width] int16` of the largest norm, in `few` of the columns each."""
    rows = drawn.normal(size=(count, width)) * (drawn.random((count, width)).argsort(1) < few)
    return np.rint(rows * LONGEST / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.int16)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 40) | st.integers(500, 1100)),
    few=st.integers(1, 1100),
)
def test_products_of_integers_are_exact_whatever_the_shape(seed, shape, few) -> None:  # type: ignore[no-untyped-def]
    m, n, pairs = shape
    drawn = np.random.default_rng(seed)
    left, right = (integer_rows(drawn, count, 2 * pairs, few) for count in (m, n))
    right[0] = left[0]  # the largest product there can be
    scale, out = np.float32(0.37), np.full((m, n), np.nan, np.float32)
    integer_products()(left.view(np.int32), right.view(np.int32), scale, out)
    exact = left.astype(np.int64) @ right.astype(np.int64).T
    assert np.array_equal(out, exact.astype(np.float32) * scale)


def test_products_read_nothing_that_was_given_back() -> None:
    """Memory that is freed is overwritten at once here: what is read of it shows."""
    environment = {**os.environ, "MALLOC_PERTURB_": "85", "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run([sys.executable, "-c", FREED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FREED = """
import numpy as np
from platonic_ray.kernels.compiled import integer_products
drawn = np.random.default_rng(0)
for m, n, width in ((7, 40, 6), (1000, 1001, 600), (301, 999, 1100)):
    left, right = (drawn.integers(-500, 500, (rows, width)).astype(np.int16) for rows in (m, n))
    out = np.empty((m, n), np.float32)
    integer_products()(left.view(np.int32), right.view(np.int32), np.float32(1), out)
    exact = left.astype(np.float64) @ right.astype(np.float64).T
    assert np.array_equal(out, exact.astype(np.float32)), (m, n, width)
"""


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@settings(deadline=None, max_examples=60)
@given(case=CASES, normalize=st.booleans())
def test_scores_of_integers_are_within_their_bound_of_canonical_values(similarity, case, normalize) -> None:  # type: ignore[no-untyped-def]
    rows = make(case, normalize)
    measured = measure(lambda: [rows], similarity)
    if measured is None:
        return
    frame = measured.frame
    units = frame.integers(rows).double()
    assert float(units.abs().amax()) <= LONGEST
    scores = (units @ units.T * frame.unit**2).float().double() + measured.biases.float()
    canonical = torch.from_numpy(dense(rows.numpy(), similarity)) * frame.scale**2
    canonical = canonical if similarity == "inner" else -canonical / 2
    # What all rows of the gallery have in common is left out of a score: compare differences.
    off = scores - canonical
    assert ((off - off[:, :1]).abs() <= 2 * frame.error(measured.norms, torch.int16)[:, None]).all()


def searched(rows: torch.Tensor) -> Counter[str]:
    """Search rows by tiles; return what settled how many, if neighbors are those of float32 products."""
    tally: Counter[str] = Counter()
    found = exact_neighbors(rows, 10, DIGEST, tally=tally)
    with pytest.MonkeyPatch.context() as patch:
        use(patch, "float32")
        expected = exact_neighbors(rows, 10, DIGEST)
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.values, expected.values)
    return tally


@pytest.fixture
def by_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "int16")


@pytest.mark.usefixtures("by_integers")
def test_integers_settle_usual_rows() -> None:
    rows = torch.randn(2200, 33, generator=torch.Generator().manual_seed(0))
    assert searched(l2_normalize(rows + 3))["int16"] > 2150


@pytest.mark.usefixtures("by_integers")
def test_clusters_that_integers_cannot_part_are_gone_over_once_more_by_float32() -> None:
    drawn = torch.Generator().manual_seed(0)
    centers = torch.randn(5, 64, generator=drawn).repeat_interleave(440, 0)
    rows = centers + 1e-3 * torch.randn(2200, 64, generator=drawn)
    tally = searched(rows)
    assert tally["int16"] == 0
    assert tally["float32"] > 2100


@pytest.mark.usefixtures("by_integers")
def test_rows_of_which_one_is_far_longer_than_the_others_are_left_to_float32() -> None:
    rows = torch.randn(2200, 8, generator=torch.Generator().manual_seed(0))
    rows[7] *= 1000
    tally = searched(rows)
    assert tally["int16"] == 0
