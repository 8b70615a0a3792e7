"""Sums of neighbor metrics over relabelled tables, against lists and masks that are relabelled one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from list_oracles import jaccard, lcs, levenshtein, overlap, rank_agreement

from platonic_ray.metrics import Neighbors, get_metric, neighbor_pair
from platonic_ray.statistics import NeighborSide, permutations, relabelled_sums

LISTS = {
    "mutual_knn": overlap,
    "lcs_knn": lcs,
    "edit_distance_knn": levenshtein,
    "jaccard_knn": jaccard,
    "rank_knn": rank_agreement,
}
MASKS = ("cycle_knn", "cknna", "cknna_paper")
NAMES = (*LISTS, *MASKS)


def tables(layers, n, k, generator, missing=0.0, alike=False):
    """Random neighbors of a model, some ids missing; alike: layers that differ in few rows."""
    scores = torch.rand(1 if alike else layers, n, n, generator=generator).expand(layers, n, n).clone()
    scores += 0.02 * torch.rand(layers, n, n, generator=generator)
    scores.diagonal(dim1=1, dim2=2).fill_(-1)
    ids = scores.topk(min(k + 1, n - 1)).indices
    similar = torch.randn(layers, n, n, generator=generator, dtype=torch.float64)
    values = (similar + similar.mT).gather(2, ids)
    ids[torch.rand(ids.shape, generator=generator) < missing] = -1
    return Neighbors(ids, values, torch.randn(layers, n, generator=generator, dtype=torch.float64))


def relabelled_lists(ids, perm):
    """The lists of a layer whose row i is sample perm[i]'s, its neighbors by their new places."""
    place = {sample: at for at, sample in enumerate(perm)}
    return [[place.get(j, -1) for j in ids[p]] for p in perm]


def by_lists(name, x, y):
    return sum(LISTS[name](a, b) for a, b in zip(x, y, strict=True))


def found(metric, x, y, perms):
    return relabelled_sums(metric, NeighborSide(x).lists(metric), NeighborSide(y).lists(metric), perms)


@given(
    n=st.integers(3, 14),
    k=st.integers(1, 5),
    layers=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 999),
    alike=st.booleans(),
    name=st.sampled_from(list(LISTS)),
)
@settings(max_examples=60, deadline=None)
def test_sums_are_those_of_lists_relabelled_one_by_one(n, k, layers, seed, alike, name):
    k = min(k, n - 1)
    generator = torch.Generator().manual_seed(seed)
    x, y = (tables(count, n, k, generator, alike=alike) for count in layers)
    perms = permutations(n, 3, seed)
    plain = [
        [
            [by_lists(name, a.tolist(), relabelled_lists(b.tolist(), perm)) for b in y.ids[..., :k]]
            for a in x.ids[..., :k]
        ]
        for perm in perms.tolist()
    ]
    made = found(get_metric(name, k=k), x, y, perms)
    torch.testing.assert_close(made, torch.tensor(plain, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def dense(neighbors, layer, k, values):
    """A layer's similarities `[n, n]` where it lists a neighbor, else 0; and the 0/1 mask."""
    ids = neighbors.ids[layer, :, :k]
    mask = torch.zeros(len(ids), len(ids), dtype=torch.float64).scatter_(1, ids, 1.0)
    return torch.zeros_like(mask).scatter_(1, ids, values[layer, :, :k]), mask


@given(
    n=st.integers(4, 12),
    k=st.integers(1, 4),
    layers=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 999),
    name=st.sampled_from(MASKS),
)
@settings(max_examples=40, deadline=None)
def test_sums_of_masked_kernels_are_those_of_matrices_permuted(n, k, layers, seed, name):
    k = min(k, n - 1)
    generator = torch.Generator().manual_seed(seed)
    x, y = (tables(count, n, k, generator) for count in layers)
    perms = permutations(n, 3, seed)
    made = found(get_metric(name, k=k), x, y, perms)
    centered = name == "cknna_paper"
    values = [of.values - (of.row_sums / n)[..., None] if centered else of.values for of in (x, y)]
    for b, perm in enumerate(perms):
        for i, j in torch.cartesian_prod(*(torch.arange(count) for count in layers)).tolist():
            kx, mx = dense(x, i, k, values[0])
            ky, my = (of[perm][:, perm] for of in dense(y, j, k, values[1]))
            both = mx * my
            first, second = both * kx, both * ky
            if name == "cycle_knn":
                plain = ((mx.T * my).sum(1) > 0).sum().double()
                torch.testing.assert_close(made[b, i, j], plain)
            elif centered:
                torch.testing.assert_close(made[b, i, j], (first * second).sum())
            else:
                sides = (first.sum(0) * second.sum(1)).sum()
                plain = torch.stack([(first.T * second).sum(), first.sum(), second.sum(), sides])
                torch.testing.assert_close(made[b, :, i, j], plain)


@pytest.mark.parametrize(
    ("name", "compat"),
    [(name, None) for name in NAMES]
    + [(name, "platonic-rep") for name in NAMES if get_metric(name).reference is not None],
)
def test_without_a_permutation_they_are_the_sums_observed(name, compat):
    generator = torch.Generator().manual_seed(0)
    x, y = tables(9, 300, 10, generator, alike=True), tables(5, 300, 10, generator)
    y.ids[:, :40] = x.ids[:5, :40]
    metric = get_metric(name, k=10, compat=compat)
    (made,) = found(metric, x, y, torch.arange(300)[None])
    joint = neighbor_pair(metric, x, y).joint
    torch.testing.assert_close(made, joint.double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mutual_knn", "lcs_knn", "edit_distance_knn", "rank_knn"])
def test_a_missing_neighbor_matches_nothing(name):
    generator = torch.Generator().manual_seed(1)
    x, y = (tables(layers, 40, 6, generator, missing=0.3) for layers in (2, 3))
    metric = get_metric(name, k=6)
    (made,) = found(metric, x, y, torch.arange(40)[None])
    torch.testing.assert_close(made, neighbor_pair(metric, x, y).joint.double(), rtol=1e-9, atol=1e-12)
