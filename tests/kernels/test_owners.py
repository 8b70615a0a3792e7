"""The nearest other samples of a row, where samples own several rows, against a loop over all rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import nearest_owners


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=4, max_size=9), k=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_as_many_rows_as_it_takes_hold_the_nearest_other_samples(sizes: list[int], k: int, seed: int) -> None:
    owners = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    n = len(owners)
    far = torch.rand(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    far.fill_diagonal_(torch.inf)
    every = far.argsort(dim=1)[:, :-1]
    ids = every[:, : min(k * max(sizes), n - 1)]
    places = nearest_owners(ids[None].expand(2, -1, -1), owners, owners, k)
    found = owners[ids].gather(1, places[1])
    for row in range(n):
        others = [int(owners[near]) for near in every[row] if owners[near] != owners[row]]
        assert found[row].tolist() == list(dict.fromkeys(others))[:k]


def test_lists_without_enough_other_samples_are_refused() -> None:
    owners = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match="2 other owners"):
        nearest_owners(torch.tensor([[1, 2], [0, 2], [0, 1]]), owners, owners, 2)
