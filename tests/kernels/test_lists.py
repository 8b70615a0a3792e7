import list_oracles as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import platonic_ray.kernels.bitplanes as bitplanes
import platonic_ray.kernels.lists as lists
from platonic_ray.kernels import cycle_counts, overlap_counts, tree_sum

OF_ROWS = {
    "overlap_counts": oracle.overlap,
    "lcs_counts": oracle.lcs,
    "edit_counts": oracle.levenshtein,
    "jaccard_sums": oracle.jaccard,
    "rank_sums": oracle.rank_agreement,
}


def tables(drawn: np.random.Generator, layers: int, n: int, k: int, samples: int) -> torch.Tensor:
    ids = [[drawn.choice(samples, k, replace=False) for _ in range(n)] for _ in range(layers)]
    return torch.from_numpy(np.array(ids))


def sums_by_pair(function, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.array(
        [[sum(map(function, of_x, of_y)) for of_y in y.tolist()] for of_x in x.tolist()], dtype=float
    )


@pytest.mark.parametrize("kernel", OF_ROWS)
@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(1, 1), (2, 4), (66, 1), (3, 65), (65, 64)]),
    st.integers(1, 5),
    st.integers(1, 9),
    st.sampled_from([0, 3, 900]),
    st.sampled_from([1, 7, 2**14]),
)
def test_sums_of_all_layer_pairs_are_those_of_plain_python(kernel, seed, layers, n, k, more, words) -> None:  # type: ignore[no-untyped-def]
    drawn = np.random.default_rng(seed)
    if layers[0] * layers[1] > 200:
        n = 1
    x, y = (tables(drawn, size, n, k, k + more) for size in layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitplanes, "_WORDS", words)
        patch.setattr(lists, "_CELLS", words)
        got = getattr(lists, kernel)(x, y)
    assert got.dtype == (torch.float64 if kernel.endswith("sums") else torch.int64)
    np.testing.assert_allclose(got.numpy(), sums_by_pair(OF_ROWS[kernel], x, y), rtol=1e-11)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(1, 1), (3, 2), (66, 2), (2, 66)]),
    st.integers(2, 12),
    st.sampled_from([1, 2**14]),
)
def test_cycles_of_all_layer_pairs_are_those_of_plain_python(seed, layers, n, words) -> None:  # type: ignore[no-untyped-def]
    drawn = np.random.default_rng(seed)
    k = int(drawn.integers(1, n))
    x, y = (tables(drawn, size, n, k, n) for size in layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitplanes, "_WORDS", words)
        got = cycle_counts(x, y, 0)
        cut = n // 2
        parts = cycle_counts(x, y[:, :cut], 0) + cycle_counts(x, y[:, cut:], cut)
    assert got.tolist() == [[oracle.cycles(a, b) for b in y.tolist()] for a in x.tolist()]
    assert torch.equal(got, parts)


@pytest.mark.parametrize("kernel", OF_ROWS)
def test_long_lists_are_compared_like_short_ones(kernel: str) -> None:
    drawn = np.random.default_rng(1)
    x, y = (tables(drawn, 2, 3, 80, 100) for _ in range(2))
    np.testing.assert_allclose(
        getattr(lists, kernel)(x, y).numpy(), sums_by_pair(OF_ROWS[kernel], x, y), rtol=1e-9
    )


@pytest.mark.parametrize("kernel", OF_ROWS)
def test_no_layer_pair_depends_on_the_layers_beside_it(kernel: str) -> None:
    drawn = np.random.default_rng(2)
    x, y = (tables(drawn, layers, 40, 6, 30) for layers in (70, 5))
    whole = getattr(lists, kernel)(x, y)
    assert torch.equal(whole[66:68, 2:3], getattr(lists, kernel)(x[66:68], y[2:3]))
    assert torch.equal(whole, getattr(lists, kernel)(y, x).T)


def test_missing_neighbors_are_shared_with_nobody() -> None:
    x = torch.tensor([[[0, -1], [-1, -1]]])
    assert overlap_counts(x, x).tolist() == [[1]]
    assert lists.lcs_counts(x, x).tolist() == [[1]]
    assert lists.rank_sums(x, x).tolist() == [[1]]
    far = torch.tensor([[[10**9, -1], [-1, -1]]])
    assert overlap_counts(far, far).tolist() == [[1]]


def test_tables_of_other_shapes_are_refused() -> None:
    for kernel in OF_ROWS:
        with pytest.raises(ValueError, match="cannot be compared"):
            getattr(lists, kernel)(
                torch.zeros(1, 2, 3, dtype=torch.int64), torch.zeros(1, 2, 4, dtype=torch.int64)
            )


def test_the_tree_adds_pairs_of_blocks_then_pairs_of_pairs() -> None:
    parts = [torch.tensor(2.0**-power, dtype=torch.float64) / 3 for power in range(7)]
    a, b, c, d, e, f, g = parts
    assert tree_sum(iter(parts)) == ((a + b) + (c + d)) + ((e + f) + g)
