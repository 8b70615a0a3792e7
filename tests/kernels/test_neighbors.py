import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import platonic_ray.kernels.exhaustive as module
from platonic_ray.errors import StudyError
from platonic_ray.kernels import (
    TieRule,
    exact_neighbors,
    l2_normalize,
    merge_neighbors,
    tied_share,
    tile_neighbors,
)
from platonic_ray.kernels.duplicates import group_rows

from .dense_neighbors import dense, neighbors

DIGEST = "8f14e45fceea167a5a36dedd4bea2543" * 2


def near_ties(drawn: np.random.Generator, n: int, width: int) -> np.ndarray:
    """One row, each copy with some last bits changed: similarities differ below float32's spacing."""
    row = drawn.normal(size=width).astype("f4")
    return (row.view("i4") + drawn.integers(-1, 2, size=(n, width))).astype("i4").view("f4")


def equal_but_for_order(drawn: np.random.Generator, n: int, width: int) -> np.ndarray:
    """A row of equal entries, and orders of another: to the first, exact sums tie, rounded ones do not."""
    rows = drawn.permuted(np.tile(drawn.normal(size=width), (n, 1)), axis=1)
    rows[0] = drawn.normal()
    return rows.astype("f4")


def mixed_norms(drawn: np.random.Generator, n: int, width: int) -> np.ndarray:
    scales = drawn.choice([1e-44, 1e-38, 1e-30, 1.0, 1e30, 0.0], size=(n, 1))
    return (drawn.normal(size=(n, width)) * scales).astype("f4")


KINDS = {
    "random": lambda drawn, n, width: drawn.normal(size=(n, width)),
    "bulk duplicates": lambda drawn, n, width: drawn.normal(size=(3, width))[drawn.integers(0, 3, n)],
    "some duplicates": lambda drawn, n, width: drawn.normal(size=(n, width))[drawn.integers(0, n, n)],
    "constant": lambda drawn, n, width: np.tile(drawn.normal(size=width), (n, 1)),
    "anisotropic": lambda drawn, n, width: drawn.normal(size=(n, width)) + 10 * drawn.normal(size=width),
    "near ties": near_ties,
    "equal but for order": equal_but_for_order,
    "mixed norms": mixed_norms,
    "zero rows": lambda drawn, n, width: drawn.normal(size=(n, width)) * drawn.integers(0, 2, size=(n, 1)),
    "all zero": lambda drawn, n, width: np.zeros((n, width)),
    "binary": lambda drawn, n, width: drawn.integers(0, 2, size=(n, width)),
    "one-hot": lambda drawn, n, width: np.eye(width)[drawn.integers(0, width, n)],
    "signed zeros": lambda drawn, n, width: drawn.choice([-0.0, 0.0, 1.0], size=(n, width)),
}
cases = st.tuples(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 2**32),
    st.integers(2, 40),
    st.sampled_from([1, 2, 7, 64, 65, 130]),
)


def make(case: tuple[str, int, int, int], normalize: bool) -> torch.Tensor:
    kind, seed, n, width = case
    rows = torch.from_numpy(KINDS[kind](np.random.default_rng(seed), n, width).astype("f4"))
    return l2_normalize(rows) if normalize else rows


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@settings(deadline=None, max_examples=80)
@given(case=cases, normalize=st.booleans(), ties=st.sampled_from(["hash", "lowest"]), data=st.data())
def test_neighbors_are_those_of_a_dense_sort_in_any_blocks(similarity, case, normalize, ties, data) -> None:  # type: ignore[no-untyped-def]
    rows = make(case, normalize)
    n = len(rows)
    k = data.draw(st.one_of(st.just(n - 1), st.integers(1, n - 1)), "k")
    block = data.draw(st.integers(1, n + 3), "block_rows")
    got = exact_neighbors(rows, k, DIGEST, similarity, ties, block_rows=block)
    ids, values = neighbors(rows.numpy(), min(k + 1, n - 1), DIGEST, similarity, ties)
    assert np.array_equal(got.ids[:, : ids.shape[1]].numpy(), ids)
    assert got.values[:, : ids.shape[1]].numpy().tobytes() == values.tobytes()
    assert (got.ids[:, ids.shape[1] :] == -1).all()
    at_k = values[:, k] == values[:, k - 1] if k < n - 1 else np.zeros(n, bool)
    assert tied_share(got) == at_k.mean()


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@pytest.mark.parametrize("seed", range(5))
def test_values_that_differ_only_by_rounding_are_ordered_by_the_canonical_sum(similarity, seed: int) -> None:  # type: ignore[no-untyped-def]
    rows = torch.from_numpy(equal_but_for_order(np.random.default_rng(seed), 150, 300))
    ids, _ = neighbors(rows.numpy(), 6, DIGEST, similarity)
    # The data do what they are for: row 0 sees all others equal up to rounding, and not beyond it.
    seen = dense(rows.numpy(), similarity)[0, 1:]
    assert 0 < np.ptp(seen) < 1e-10
    assert np.array_equal(exact_neighbors(rows, 5, DIGEST, similarity).ids.numpy(), ids)


@settings(deadline=None, max_examples=40)
@given(case=cases, cells=st.integers(1, 500), pair_bytes=st.integers(1, 50_000))
def test_the_sizes_of_internal_chunks_change_no_bit(case, cells: int, pair_bytes: int) -> None:  # type: ignore[no-untyped-def]
    rows = make(case, True)
    expected = exact_neighbors(rows, 1, DIGEST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CELLS", cells)
        patch.setattr(module, "_PAIR_BYTES", pair_bytes)
        got = exact_neighbors(rows, 1, DIGEST)
    assert torch.equal(got.ids, expected.ids)
    assert torch.equal(got.values, expected.values)


@settings(deadline=None, max_examples=40)
@given(case=cases, data=st.data())
def test_tiles_merge_in_any_order_and_any_grouping_to_the_same_bits(case, data) -> None:  # type: ignore[no-untyped-def]
    rows = make(case, True)
    n = len(rows)
    k = data.draw(st.integers(1, n - 1))
    rule, ids = TieRule(DIGEST), torch.arange(n)
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=4)))
    edges = list(zip([0, *cuts], [*cuts, n], strict=True))
    states = [tile_neighbors(rows, rows[i:j], ids, ids[i:j], k, rule) for i, j in edges]
    while len(states) > 1:
        i = data.draw(st.integers(0, len(states) - 1))
        first = states.pop(i)
        j = data.draw(st.integers(0, len(states) - 1))
        second = states.pop(j)
        merged = merge_neighbors(first, second, rule)
        assert torch.equal(merged.ids, merge_neighbors(second, first, rule).ids)
        states.append(merged)
    expected = exact_neighbors(rows, k, DIGEST)
    assert torch.equal(states[0].ids, expected.ids)
    assert torch.equal(states[0].values, expected.values)


def test_rows_found_out_of_order_are_the_same_neighbors() -> None:
    rows = make(("binary", 0, 30, 5), False)
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    rule, ids = TieRule(DIGEST), torch.arange(30)
    got = tile_neighbors(rows, rows[shuffled], ids, ids[shuffled], 4, rule)
    assert torch.equal(got.ids, exact_neighbors(rows, 4, DIGEST).ids)


@pytest.mark.parametrize("k", [10, 1999])
def test_two_thousand_constant_rows_are_ordered_by_the_tie_rule_alone(k: int) -> None:
    rows = torch.ones(2000, 768)
    found = exact_neighbors(rows, k, DIGEST)
    assert (found.values[:, :k] == 768).all()
    order = TieRule(DIGEST).order(torch.arange(2000))
    assert torch.equal(found.ids[order[0], :k], order[1 : k + 1])


def test_k_beyond_the_samples_and_unknown_similarities_are_refused() -> None:
    rows = torch.zeros(5, 2)
    for k in (0, 5):
        with pytest.raises(StudyError, match="1 ≤ k ≤ 4"):
            exact_neighbors(rows, k, DIGEST)
    with pytest.raises(StudyError, match="euclidean"):
        exact_neighbors(rows, 2, DIGEST, "manhattan")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(case=cases)
def test_grouping_finds_exactly_the_rows_of_equal_bits(case) -> None:  # type: ignore[no-untyped-def]
    rows = make(case, False)
    members, group = group_rows(rows)
    assert rows[members][group].numpy().tobytes() == rows.numpy().tobytes()
    assert len(members) == len({row.tobytes() for row in rows.numpy()})
