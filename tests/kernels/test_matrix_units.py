"""Products of bfloat16 on matrix units: what they are, to whom they are offered, and the bound that they keep."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import platonic_ray.kernels.compiled as compiled
import platonic_ray.kernels.factors as factors
import platonic_ray.kernels.sweep as sweep
from platonic_ray.kernels import exact_neighbors, l2_normalize
from platonic_ray.kernels.compiled import matrix_units
from platonic_ray.kernels.frame import measure

from .dense_neighbors import dense
from .formats import use
from .test_neighbors import DIGEST
from .test_sweep import CASES, make

pytestmark = pytest.mark.skipif(matrix_units() is None, reason="this processor has no matrix units")


class Recorder:
    """Candidates that keep all they are offered that reaches a threshold, in place of the compiled loops' own."""

    def __init__(self, count: int, bias: Any = 0.0, threshold: Any = -np.inf) -> None:
        keep = count + 1
        self.score = np.full((count, 2 * count + 2), np.nan, np.float32)
        self.column = np.zeros((count, 2 * count + 2), np.int32)
        self.count = np.zeros(count, np.int32)
        empty = np.full((count, 0), -np.inf, np.float32)
        low, biases = (np.array(np.broadcast_to(of, count), np.float32) for of in (threshold, bias))
        bounds = 0.0, np.zeros(count), empty, low, self.count, self.score
        no_rows = np.zeros((0, 0), np.float32)
        exact = np.zeros(0, np.float32), no_rows, no_rows, 0, 0
        self.state = biases, np.arange(count), keep, *bounds, self.column, exact

    def offered(self) -> dict[tuple[int, int], float]:
        rows = range(len(self.count))
        pairs = [(r, int(self.column[r, at])) for r in rows for at in range(self.count[r])]
        assert len(pairs) == len(set(pairs))
        return {(r, int(self.column[r, at])): self.score[r, at] for r in rows for at in range(self.count[r])}


def offered(left, right, rows, columns, first, both, alike, candidates):  # type: ignore[no-untyped-def]
    units = matrix_units()
    units.offer_products(
        left.numpy(), right.numpy(), rows, columns, first, both, alike,
        units.PALETTE, *candidates.state,
    )  # fmt: skip
    return candidates.offered()


PARTS = st.tuples(st.integers(0, 3), st.integers(1, 140))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    width=st.integers(1, 100) | st.just(1030),
    sizes=st.tuples(st.integers(1, 140), st.integers(1, 140)),
    rows=PARTS,
    columns=PARTS,
    way=st.sampled_from(["rows alone", "both", "with themselves"]),
)
def test_every_product_is_offered_once_and_is_that_of_rounded_rows(
    seed, width, sizes, rows, columns, way
) -> None:  # type: ignore[no-untyped-def]
    units, drawn = matrix_units(), torch.Generator().manual_seed(seed)
    m, n = (sizes[0], sizes[0]) if way == "with themselves" else sizes
    x, y = (torch.randn(size, width, generator=drawn) for size in (m, n))
    y = x if way == "with themselves" else y
    center = torch.randn(width, generator=drawn)
    left, right = units.panels_of(m, width), units.panels_of(n, width)
    for panels, given_rows in ((left, x), (right, y)):
        for start in range(0, len(given_rows), 64):
            units.fill(panels, start, given_rows[start : start + 64], center, panels is right)
    x, y = ((side - center).bfloat16() for side in (x, y))
    top = 32 * rows[0] if 32 * rows[0] < m else 0, min(m, 32 * rows[0] + rows[1])
    first = (0, 0 if way == "with themselves" else m)
    across = top if way == "with themselves" else (0, min(n, columns[1]))
    candidates = Recorder(m if way == "with themselves" else m + n)
    both = way != "rows alone"
    alike = way == "with themselves"
    found = offered(left, right, top, across, first, both, alike, candidates)
    exact = (x.double() @ y.double().T).numpy()
    size = (x.double().abs() @ y.double().abs().T).numpy()
    expected = {}
    for i in range(*top):
        for j in range(*across):
            if alike:
                expected |= {(i, j): (i, j)} if i != j else {}
            else:
                expected[i, m + j] = (i, j)
                if both:
                    expected[m + j, i] = (i, j)
    assert found.keys() == expected.keys()
    for pair, (i, j) in expected.items():
        assert abs(found[pair] - exact[i, j]) <= 2 * (width + 8) * 2.0**-24 * size[i, j]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    width=st.integers(33, 300),
    sizes=st.tuples(st.integers(1, 330), st.integers(1, 330)),
    rows=PARTS,
    way=st.sampled_from(["rows alone", "both", "with themselves"]),
    chunk=st.integers(1, 4),
    near=st.integers(1, 9),
    sums=st.integers(1, 20),
)
def test_chunks_of_wide_rows_add_up_to_the_same_bits_and_what_reaches_its_threshold_is_kept(
    seed, width, sizes, rows, way, chunk, near, sums
) -> None:  # type: ignore[no-untyped-def]
    units, drawn = matrix_units(), torch.Generator().manual_seed(seed)
    alike, both = way == "with themselves", way != "rows alone"
    m, n = (sizes[0], sizes[0]) if alike else sizes
    x = torch.randn(m, width, generator=drawn)
    y = x if alike else torch.randn(n, width, generator=drawn)
    left, right = units.panels_of(m, width), units.panels_of(n, width)
    units.fill(left, 0, x, torch.zeros(width), False)
    units.fill(right, 0, y, torch.zeros(width), True)
    top = (32 * rows[0] if 32 * rows[0] < m else 0), m - rows[1] % 40 if m > 140 else m
    where = top, top if alike else (0, n), (0, 0 if alike else m), both, alike
    count = m if alike else m + n
    bias = torch.randn(count, generator=drawn).numpy()
    scores = offered(left, right, *where, Recorder(count, bias))
    threshold = (torch.randn(count, generator=drawn) * width**0.5 + width**0.5).numpy()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("_WHOLE", 0),
            ("_CHUNK", chunk),
            ("_NEAR", near * 2048 * chunk),
            ("_SUMS", sums),
        ):
            patch.setattr(units, name, value)
        found = offered(left, right, *where, Recorder(count, bias, threshold))
    assert found == {pair: score for pair, score in scores.items() if score >= threshold[pair[0]]}


@pytest.mark.parametrize("width", [2048, 2049, 5000])
def test_rows_of_several_chunks_are_multiplied_as_rows_of_one(width: int) -> None:
    units, drawn = matrix_units(), torch.Generator().manual_seed(width)
    x = torch.randint(-3, 4, (1100, width), generator=drawn).float()
    left, right = units.panels_of(*x.shape), units.panels_of(*x.shape)
    units.fill(left, 0, x, torch.zeros(width), False)
    units.fill(right, 0, x, torch.zeros(width), True)
    found = offered(left, right, (0, 1100), (0, 300), (0, 0), False, False, Recorder(1100))
    exact = x @ x[:300].T
    assert len(found) == 1100 * 300 - 300  # but a row with itself
    assert all(score == exact[pair] for pair, score in found.items())


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@pytest.mark.parametrize("kind", [torch.bfloat16, "refined"])
@settings(deadline=None, max_examples=60)
@given(case=CASES, normalize=st.booleans(), least=st.sampled_from([0, 2**62]))
def test_scores_are_within_their_bound_of_canonical_values(similarity, kind, case, normalize, least) -> None:  # type: ignore[no-untyped-def]
    rows = make(case, normalize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "LEAST", least)
        measured = measure(lambda: [rows], similarity, low=True)
    if measured is None:
        return
    frame = measured.frame
    if kind == "refined":
        centered = frame.centered(rows).double()
        scores = (centered @ centered.T + measured.biases.float().double()).float().double()
    else:
        low = frame.centered(rows).bfloat16().double()
        scores = (low @ low.T).float().double() + measured.biases.float()
    canonical = torch.from_numpy(dense(rows.numpy(), similarity)) * frame.scale**2
    canonical = canonical if similarity == "inner" else -canonical / 2
    # What all rows of the gallery have in common is left out of a score: compare differences.
    off = scores - canonical
    assert ((off - off[:, :1]).abs() <= 2 * frame.error(measured.norms, kind)[:, None]).all()


def searched(rows: torch.Tensor, name: str, k: int = 10) -> tuple[torch.Tensor, Counter[str]]:
    tally: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        use(patch, name)
        found = exact_neighbors(rows, k, DIGEST, tally=tally)
    return torch.cat([found.ids, found.values.view(torch.int64)], 1), tally


@pytest.mark.parametrize(("width", "values"), [(7, 25), (384, 25), (4096, 60)])
def test_isotropic_rows_are_settled_with_few_values_a_row(width: int, values: int) -> None:
    rows = l2_normalize(torch.randn(2500, width, generator=torch.Generator().manual_seed(0)) + 2)
    found, tally = searched(rows, "matrix units")
    assert tally["bfloat16"] > 2450
    assert tally["pairs"] < 2500 * values
    assert torch.equal(found, searched(rows, "float32")[0])


def test_clusters_that_bfloat16_cannot_part_are_noticed_early_and_refined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 64, generator=drawn)[torch.randint(5, (2200,), generator=drawn)]
    rows += 1e-3 * torch.randn(2200, 64, generator=drawn)
    cells, offer = [], factors.OnMatrixUnits.offer
    monkeypatch.setattr(sweep, "BLOCK_BYTES", 2**16)

    def counted(self, left, right, rows, columns, **rest):  # type: ignore[no-untyped-def]
        cells.append(len(rows) * len(columns) * (self.factors == torch.bfloat16))
        return offer(self, left, right, rows, columns, **rest)

    monkeypatch.setattr(factors.OnMatrixUnits, "offer", counted)
    found, tally = searched(rows, "matrix units")
    assert tally["bfloat16"] == 0
    assert tally["refined"] > 2100
    assert sum(cells) < 2200**2 / 2 / 4
    assert torch.equal(found, searched(rows, "float32")[0])


@pytest.mark.parametrize("k", [10, 100, 700])
def test_usual_features_are_not_taken_for_clusters(k: int) -> None:
    rows = l2_normalize(torch.randn(2500, 128, generator=torch.Generator().manual_seed(0)) + 2)
    found, tally = searched(rows, "matrix units", k)
    assert tally["refined"] == 0
    assert tally["bfloat16"] > 2450
    assert torch.equal(found, searched(rows, "float32", k)[0])


def test_what_a_processor_may_not_do_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_units(), "permitted", lambda: False)
    matrix_units.cache_clear()
    try:
        assert matrix_units() is None
        rows = torch.randn(2100, 8, generator=torch.Generator().manual_seed(0))
        tally: Counter[str] = Counter()
        exact_neighbors(rows, 3, DIGEST, tally=tally)
        assert tally["bfloat16"] == 0
    finally:
        matrix_units.cache_clear()
