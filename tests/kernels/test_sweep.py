"""The tile engine finds what a dense sort of canonical values finds, whatever the blocks and tiles."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import platonic_ray.kernels.collect as collect
import platonic_ray.kernels.exhaustive as exhaustive
import platonic_ray.kernels.factors as factors
import platonic_ray.kernels.frame as frame
import platonic_ray.kernels.native as native
import platonic_ray.kernels.neighbors as neighbors_module
import platonic_ray.kernels.sweep as sweep_module
from platonic_ray.kernels import (
    TieRule,
    TopK,
    canonical_dot,
    canonical_squared_distance,
    exact_ids,
    exact_neighbors,
    growing_neighbors,
    l2_normalize,
    tile_neighbors,
    tile_neighbors_of_both,
)
from platonic_ray.kernels.compiled import loops_for
from platonic_ray.kernels.rounds import GRAIN

from .dense_neighbors import neighbors
from .formats import FORMATS, use
from .test_neighbors import DIGEST
from .test_search import LARGER

HARDER = LARGER | {
    "near-ties below float32's spacing": lambda drawn, n, width: (
        np.ones((n, width)) + 2.0**-22 * drawn.integers(0, 3, size=(n, width))
    ),
    "near-ties below bfloat16's spacing": lambda drawn, n, width: (
        np.ones((n, width)) + 2.0**-10 * drawn.normal(size=(n, width))
    ),
    "duplicates in bulk": lambda drawn, n, width: drawn.normal(size=(3, width))[drawn.integers(0, 3, n)],
    "rows of very different norms": lambda drawn, n, width: (
        drawn.normal(size=(n, width)) * 10.0 ** drawn.integers(-30, 30, size=(n, 1))
    ),
    "sorted along a line": lambda drawn, n, width: np.linspace(0, 1, n)[:, None] * np.ones((1, width)),
}
CASES = st.tuples(
    st.sampled_from(sorted(HARDER)),
    st.integers(0, 2**32),
    st.integers(5, 120),
    st.sampled_from([1, 3, 64, 130]),
)


def make(case: tuple[str, int, int, int], normalize: bool) -> torch.Tensor:
    kind, seed, n, width = case
    rows = torch.from_numpy(HARDER[kind](np.random.default_rng(seed), n, width).astype("f4"))
    return l2_normalize(rows) if normalize else rows


@pytest.fixture(params=["compiled", "torch"])
def tiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every search goes by tiles, whose candidates are filtered by compiled loops or by torch."""
    monkeypatch.setattr(neighbors_module, "DENSE_VALUES", 0)
    if request.param == "torch":
        monkeypatch.setattr(collect, "native", lambda: None)
        monkeypatch.setattr(factors, "matrix_units", lambda: None)
        monkeypatch.setattr(exhaustive, "loops_for", lambda rows, size: None)
    else:
        assert collect.native() is not None


def same(found: TopK, ids: np.ndarray, values: np.ndarray) -> bool:
    return np.array_equal(found.ids.numpy(), ids) and found.values.numpy().tobytes() == values.tobytes()


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@settings(deadline=None, max_examples=25)
@given(
    case=CASES,
    normalize=st.booleans(),
    k=st.integers(1, 12),
    name=st.sampled_from(FORMATS),
    ordered=st.booleans(),
    threads=st.integers(1, 3),
    block=st.integers(3, 200),
    held=st.sampled_from([1, 2**16, 2**30]),
    read=st.booleans(),
    sampled=st.booleans(),
    tile=st.integers(2, 200),
)
def test_tiles_of_any_size_find_what_a_dense_sort_finds(
    similarity, case, normalize, k, name, ordered, threads, block, held, read, sampled, tile
) -> None:  # type: ignore[no-untyped-def]
    rows = make(case, normalize)
    k = min(k, len(rows) - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(factors.TILE, "cpu", tile)
        use(patch, name)
        patch.setattr(torch, "get_num_threads", lambda: threads)
        patch.setattr(sweep_module, "HELD_BYTES", held)
        if sampled:  # as of many rows
            patch.setattr(sweep_module, "_PIECES", 2)
            patch.setattr(sweep_module, "_PIECE", 1)
        if not ordered:
            patch.setattr(collect, "MOST_IN_ORDER", 0)
        if read:

            def part(start: int, stop: int) -> torch.Tensor:
                assert stop - start <= -(-block // GRAIN) * GRAIN
                return rows[start:stop].clone()

            sizes, width = rows.shape
            rule = TieRule(DIGEST)
            (found,) = growing_neighbors(
                part, sizes, width, k, rule, similarity, sizes=[sizes], block_rows=block
            )
        else:
            found = exact_neighbors(rows, k, DIGEST, similarity, block_rows=block)
    expected, values = neighbors(rows.numpy(), k + 1, DIGEST, similarity)
    if k + 1 == len(rows):  # nobody has one more neighbor
        assert (found.ids[:, k] == -1).all()
        found = TopK(found.ids[:, :k], found.values[:, :k])
    assert same(found, expected, values)


@pytest.mark.parametrize("default", [torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_numbers_that_torch_makes_by_default_change_nothing(
    name: str, default: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, name)
    monkeypatch.setattr(sweep_module, "HELD_BYTES", 2**15)
    drawn = torch.Generator().manual_seed(0)
    rows = torch.randn(260, 100, generator=drawn)
    rows[130:] = rows[:130] + 1e-4 * torch.randn(130, 100, generator=drawn)

    def search(similarity: str) -> list[torch.Tensor]:
        every = exact_neighbors(rows, 7, DIGEST, similarity, block_rows=64)
        rule = TieRule(DIGEST)
        read = growing_neighbors(
            lambda start, stop: rows[start:stop], 260, 100, 7, rule, similarity, sizes=[260], block_rows=64
        )
        return [every.ids, every.values, read[0].ids, read[0].values]

    expected = search("inner") + search("euclidean")
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        found = search("inner") + search("euclidean")
    finally:
        torch.set_default_dtype(before)
    assert all(map(torch.equal, found, expected))


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@settings(deadline=None, max_examples=10)
@given(case=CASES, k=st.integers(1, 5), cut=st.floats(0.2, 0.8), tile=st.integers(2, 200))
def test_a_tile_that_serves_both_sides_finds_what_two_searches_find(similarity, case, k, cut, tile) -> None:  # type: ignore[no-untyped-def]
    rows, rule = make(case, True), TieRule(DIGEST)
    ids, at = torch.arange(len(rows)) * 3 + 1, int(cut * len(rows))
    (a, b), (ids_a, ids_b) = (rows[:at], rows[at:]), (ids[:at], ids[at:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(factors.TILE, "cpu", tile)
        both = tile_neighbors_of_both(a, b, ids_a, ids_b, k, rule, similarity)
        overlapping = tile_neighbors(rows[: at + 1], b, ids[: at + 1], ids_b, k, rule, similarity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors_module, "DENSE_VALUES", 2**62)
        for found, (x, y, of_x, of_y) in (
            (both[0], (a, b, ids_a, ids_b)),
            (both[1], (b, a, ids_b, ids_a)),
            (overlapping, (rows[: at + 1], b, ids[: at + 1], ids_b)),
        ):
            alone = tile_neighbors(x, y, of_x, of_y, k, rule, similarity)
            assert same(found, alone.ids.numpy(), alone.values.numpy())


def test_a_few_queries_are_searched_in_a_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((40_003, 4)).astype("f4"))
    multiplied = []
    multiply = factors.ByTorch._multiply
    use(monkeypatch, "float32")
    monkeypatch.setattr(factors.ByTorch, "_multiply", lambda *given: multiplied.append(1) or multiply(*given))
    ids = torch.arange(40_003)
    found = tile_neighbors(rows[:3], rows[3:], ids[:3], ids[3:], 5, TieRule(DIGEST))
    assert len(multiplied) <= 2 * -(-40_000 // factors.TILE["cpu"]) + 2
    dense = (rows[:3].double() @ rows[3:].double().T).topk(6).indices + 3
    assert torch.equal(found.ids, dense)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300),
    st.data(),
)
def test_the_worst_of_the_best_is_missed_by_few(scores: list[float], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(scores)))
    held = np.array(scores, np.float32)
    reached = native._reached(held, keep)
    assert (held >= reached).sum() >= keep  # or a neighbor could be dropped
    # It may be the last number below that quantile: bisection goes on until there is none between.
    spacing = float(np.spacing(np.abs(np.float32(reached))))
    resolved = max(float(np.ptp(held.astype(np.float64))) / 2**39, 2 * spacing)
    assert (held.astype(np.float64) > reached + resolved).sum() <= keep + keep // 64


@pytest.mark.parametrize(("width", "euclidean"), [(1, False), (64, True), (130, False), (1000, True)])
def test_the_compiled_canonical_value_has_the_bits_of_the_definition(width: int, euclidean: bool) -> None:
    drawn = np.random.default_rng(width)
    x = (drawn.normal(size=(50, width)) * 10.0 ** drawn.integers(-20, 20, size=(50, 1))).astype("f4")
    row, column = drawn.integers(0, 50, 300), drawn.integers(0, 50, 300)
    out = np.empty(300)
    loops = loops_for(torch.zeros(1), 2**62)
    assert loops is not None
    loops.canonical_values(x, x, row, column, euclidean, out)
    canonical = canonical_squared_distance if euclidean else canonical_dot
    expected = canonical(torch.from_numpy(x[row]), torch.from_numpy(x[column]))
    assert out.tobytes() == expected.numpy().tobytes()


def test_usual_features_are_settled_by_tiles_and_the_share_is_told() -> None:
    drawn = np.random.default_rng(0)
    rows = drawn.normal(size=(2500, 20)) @ drawn.normal(size=(20, 100)) + 5 * drawn.normal(size=100)
    tally: Counter[str] = Counter()
    prepared = l2_normalize(torch.from_numpy(rows.astype("f4")))
    ids = exact_ids(prepared, 10, DIGEST, tally=tally)
    assert sum(tally[of] for of in ("bfloat16", "int16", "float32", "again")) == 2500
    assert tally["again"] < 25
    assert 2500 * 11 <= tally["pairs"] < 2500 * 40
    alone = tile_neighbors(prepared[:9], prepared, torch.arange(9), torch.arange(2500), 10, TieRule(DIGEST))
    assert torch.equal(ids[:9], alone.ids)


MEMORY = """
import resource, sys, torch
from platonic_ray.kernels import exact_neighbors
import platonic_ray.kernels.sweep as sweep
sweep.BLOCK_BYTES = 2**20
n = int(sys.argv[1])
rows = torch.randn(n, 64)
exact_neighbors(rows[:2100].clone(), 5, "0" * 64)  # what is loaded and compiled once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
exact_neighbors(rows, 5, "0" * 64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_grows_by_what_is_held_of_each_query_and_by_no_matrix() -> None:
    def grown(n: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(n)], capture_output=True, text=True, timeout=390, check=True
        )
        return int(done.stdout) * 1024

    n = 12000
    held = n * (collect.candidate_bytes(6) + 6 * 16)
    assert grown(n) < 3 * held + 48 * 2**20 < n * n  # a quarter of N × N in float32


@pytest.mark.parametrize("units", [None, object()], ids=["no matrix units", "matrix units"])
@pytest.mark.parametrize("width", [100, 2048])
def test_the_bytes_that_a_search_says_it_holds_of_queries_are_those_of_its_arrays(
    units: object, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factors, "matrix_units", lambda: units)
    monkeypatch.setattr(sweep_module, "PAIRS", 0)  # of which fewer are sorted where there are few queries
    rows = torch.randn(300, width, generator=torch.Generator().manual_seed(0))
    measured = frame.measure(lambda: [rows], "inner", low=True)
    assert measured is not None
    found = collect.candidates_for(measured, torch.arange(300), 300, 11, factors.fastest(measured, "cpu"))
    assert isinstance(found, collect.NativeCandidates)
    held = sum(array.nbytes for array in found.state() if isinstance(array, np.ndarray))
    told = sweep_module.sweep_bytes(300, width, 11) - sweep_module.sweep_bytes(0, width, 11)
    assert 0.95 * told <= held <= told
