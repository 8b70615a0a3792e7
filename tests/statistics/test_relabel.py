"""The null overlaps against sets, relabelled one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import overlap_counts
from platonic_ray.statistics import Labels, null_overlaps, permutations, relabel


def tables(layers, n, k, generator, missing=0.0, alike=False):
    """Random neighbor tables `[L, n, k]`, some ids missing; alike: layers that differ in few rows."""
    scores = torch.rand(1 if alike else layers, n, n, generator=generator).expand(layers, n, n).clone()
    scores += 0.02 * torch.rand(layers, n, n, generator=generator)
    scores.diagonal(dim1=1, dim2=2).fill_(-1)
    ids = scores.topk(k).indices
    ids[torch.rand(ids.shape, generator=generator) < missing] = -1
    return ids


def by_sets(ids_x, ids_y, perm):
    """The largest overlap under one permutation, from its definition."""
    place = {sample: at for at, sample in enumerate(perm)}
    return max(
        sum(
            len({*x[i]} - {-1} & {place[j] for j in y[perm[i]] if j >= 0})
            for i in range(len(perm))
        )
        for x in ids_x
        for y in ids_y
    )  # fmt: skip


@given(
    n=st.integers(2, 14),
    k=st.integers(1, 4),
    layers=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 999),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    alike=st.booleans(),
    cells=st.sampled_from([1, 40, 2**24]),
    matches=st.sampled_from([3, 2**24]),
    sparse=st.sampled_from([0, 1, 64]),
)
@settings(max_examples=120, deadline=None)
def test_null_overlaps_are_those_of_sets(n, k, layers, seed, missing, alike, cells, matches, sparse):
    k = min(k, n - 1)
    generator = torch.Generator().manual_seed(seed)
    x, y = (tables(count, n, k, generator, missing, alike) for count in layers)
    perms = permutations(n, 3, seed)
    with pytest.MonkeyPatch.context() as patch:  # every way to look up and to count
        patch.setattr(relabel, "_TABLE_CELLS", cells)
        patch.setattr(relabel, "_EXACT", matches)
        patch.setattr(relabel, "_SPARSE", sparse)
        found = null_overlaps(x, y, perms).tolist()
    assert found == [by_sets(x.tolist(), y.tolist(), perm) for perm in perms.tolist()]


@pytest.mark.parametrize("alike", [True, False])
def test_without_a_permutation_it_is_the_observed_overlap(alike):
    generator = torch.Generator().manual_seed(0)
    x, y = tables(9, 300, 10, generator, alike=alike), tables(5, 300, 10, generator, alike=alike)
    y[:, :40] = x[:5, :40]
    still = torch.arange(300)[None]
    assert null_overlaps(x, y, still).item() == overlap_counts(x, y).max().item() > 400


def test_relabelling_the_other_side_by_the_inverse_is_the_same():
    generator = torch.Generator().manual_seed(1)
    x, y = tables(4, 50, 5, generator), tables(2, 50, 5, generator)
    perms = permutations(50, 10, 0)
    assert torch.equal(null_overlaps(x, y, perms), null_overlaps(y, x, perms.argsort(dim=1)))


def test_labels_made_before_give_the_same():
    generator = torch.Generator().manual_seed(2)
    x, y = tables(4, 50, 5, generator), tables(2, 50, 5, generator)
    perms = permutations(50, 5, 0)
    assert torch.equal(null_overlaps(Labels.of(x), Labels.of(y), perms), null_overlaps(x, y, perms))


def test_tables_that_cannot_be_compared_are_refused():
    x = torch.zeros(1, 4, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="cannot be compared"):
        null_overlaps(x, torch.zeros(1, 4, 3, dtype=torch.int64), permutations(4, 1, 0))
    with pytest.raises(ValueError, match="not of 4 samples"):
        null_overlaps(x, x, permutations(5, 1, 0))
    assert null_overlaps(x[:0], x, permutations(4, 2, 0)).tolist() == [0, 0]
