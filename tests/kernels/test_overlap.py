import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import platonic_ray.kernels.overlap as module
from platonic_ray.kernels import overlap_counts

from .dense_neighbors import overlap


def tables(drawn: np.random.Generator, layers: int, n: int, k: int, samples: int) -> np.ndarray:
    return np.array([[drawn.choice(samples, k, replace=False) for _ in range(n)] for _ in range(layers)])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 6),
    st.sampled_from([7, 50, 10**6]),
    st.sampled_from([1, 300, 2**26]),
)
def test_overlaps_of_all_layer_pairs_are_those_of_sets(seed, lx, ly, n, k, samples, block_bytes) -> None:  # type: ignore[no-untyped-def]
    drawn = np.random.default_rng(seed)
    samples = min(samples, 1000) if n * (lx + ly) > 40 else samples
    x, y = tables(drawn, lx, n, k, samples), tables(drawn, ly, n, k, samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block_bytes)
        counts = overlap_counts(torch.from_numpy(x), torch.from_numpy(y))
    assert counts.dtype == torch.int64
    assert np.array_equal(counts.numpy(), overlap(x, y))


def test_missing_neighbors_are_shared_with_nobody() -> None:
    x = torch.tensor([[[0, -1], [-1, -1]]])
    assert overlap_counts(x, x).tolist() == [[1]]
    far = torch.tensor([[[10**9, -1], [-1, -1]]])
    assert overlap_counts(far, far).tolist() == [[1]]


def test_counts_of_row_blocks_add_up() -> None:
    drawn = np.random.default_rng(0)
    x, y = (torch.from_numpy(tables(drawn, 3, 40, 5, 40)) for _ in range(2))
    parts = overlap_counts(x[:, :13], y[:, :13]) + overlap_counts(x[:, 13:], y[:, 13:])
    assert torch.equal(parts, overlap_counts(x, y))


def test_tables_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        overlap_counts(torch.zeros(1, 2, 3, dtype=torch.int64), torch.zeros(1, 2, 4, dtype=torch.int64))
