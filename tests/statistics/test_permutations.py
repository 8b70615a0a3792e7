"""Permutations: what they are, what they depend on, and how many are drawn."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from platonic_ray.statistics import choose_permutations, permutations, rotations

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**63 - 1)


@given(n=sizes, count=st.integers(0, 6), seed=seeds)
@settings(max_examples=50, deadline=None)
def test_every_row_is_a_permutation(n, count, seed):
    drawn = permutations(n, count, seed)
    assert drawn.shape == (count, n)
    assert all(sorted(row) == list(range(n)) for row in drawn.tolist())


@given(n=sizes, seed=seeds, groups=st.lists(st.integers(-3, 3), min_size=40, max_size=40))
@settings(max_examples=50, deadline=None)
def test_within_groups_no_sample_leaves_its_group(n, seed, groups):
    labels = torch.tensor(groups[:n])
    drawn = permutations(n, 4, seed, labels)
    assert all(sorted(row) == list(range(n)) for row in drawn.tolist())
    assert (labels[drawn] == labels).all()


def test_one_group_is_no_restriction():
    assert torch.equal(permutations(30, 5, 1, torch.zeros(30, dtype=torch.int64)), permutations(30, 5, 1))


def test_a_permutation_depends_on_its_number_alone():
    assert torch.equal(permutations(20, 10, 7)[4:], permutations(20, 6, 7, start=4))
    assert len({tuple(row) for row in permutations(20, 50, 7).tolist()}) == 50
    assert not torch.equal(permutations(20, 1, 7), permutations(20, 1, 8))


def test_permutations_are_the_same_for_ever():
    assert permutations(8, 2, 0).tolist() == FROZEN


def test_all_orders_are_equally_frequent():
    drawn = permutations(4, 4800, 3)
    counts = torch.tensor([10, 100, 1000, 1]) @ drawn.T.to(torch.int64)
    _, often = counts.unique(return_counts=True)
    assert len(often) == 24
    # χ² with 23 degrees of freedom exceeds 58 with probability 7e-5.
    assert float(((often - 200.0) ** 2 / 200).sum()) < 58


def test_within_a_group_all_orders_are_equally_frequent():
    groups = torch.tensor([0, 1, 0, 1, 0])
    orders, often = permutations(5, 2400, 5, groups).unique(dim=0, return_counts=True)
    assert len(orders) == 6 * 2
    # χ² with 11 degrees of freedom exceeds 38 with probability 8e-5.
    assert float(((often - 200.0) ** 2 / 200).sum()) < 38


@given(n=st.integers(2, 40), count=st.integers(1, 100), seed=seeds)
@settings(max_examples=50, deadline=None)
def test_rotations_are_different_permutations_that_move_all_samples_or_shuffle_them(n, count, seed):
    drawn = rotations(n, count, seed)
    made = drawn.permutations()
    assert made.shape == (count, n)
    assert all(sorted(row) == list(range(n)) for row in made.tolist())
    assert torch.equal(drawn.some(1, 3).permutations(), made[1:3])
    first = made[drawn.picks < n]
    assert len(first.unique(dim=0)) == len(first)  # of one ring, and the identity is none of them
    assert not (first == torch.arange(n)).any()
    assert len(drawn.turns) == -(-(count + 1) // n)


def test_rotations_of_one_ring_are_a_group():
    made = rotations(12, 11, 0).permutations()
    group = {tuple(row) for row in [*made.tolist(), list(range(12))]}
    assert len(group) == 12
    assert {tuple(one[other].tolist()) for one in made for other in made} <= group


@pytest.mark.parametrize("count", [4, 7, 12])
def test_the_rank_of_what_is_observed_among_rotations_is_uniform(count):
    """With as many permutations as there are in one coset, in part of two, and in all of three, but one."""
    n, trials = 5, 1500
    generator = torch.Generator().manual_seed(count)
    x, y = torch.randn(n, generator=generator), torch.randn(n, generator=generator)
    ranks = torch.zeros(count + 1)
    for seed in range(trials):
        shuffled = y[torch.randperm(n, generator=generator)]  # the null hypothesis
        null = (x * shuffled[rotations(n, count, seed).permutations()]).sum(1)
        # Equal scores, of shuffles that happen to be equal, in random order.
        score = (x * shuffled).sum()
        equal = int((null - score).abs().le(1e-6).sum())
        above = int((null > score + 1e-6).sum())
        ranks[above + int(torch.randint(equal + 1, (), generator=generator))] += 1
    expected = trials / (count + 1)
    assert float(((ranks - expected) ** 2 / expected).sum()) < chi2.isf(1e-4, count)


@given(pairs=st.integers(1, 5000), alpha=st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_auto_lets_one_pair_alone_be_significant(pairs, alpha):
    chosen = choose_permutations(pairs, alpha, cheap=True)
    assert chosen.note is None
    assert chosen.count >= 200
    assert pairs / (chosen.count + 1) <= alpha


@pytest.mark.parametrize(
    ("pairs", "given_", "said"),
    [
        (10, None, None),
        (204, None, "21 or more"),
        (1, 10, "no q can reach"),
        (1, 19, None),
        (2, 19, "2 or more"),
    ],
)
def test_a_number_that_cannot_reach_significance_says_so(pairs, given_, said):
    chosen = choose_permutations(pairs, 0.05, cheap=False, given=given_)
    assert chosen.count == (200 if given_ is None else given_)
    assert chosen.note is None if said is None else said in chosen.note
    if said is None:
        assert math.isclose(pairs / (chosen.count + 1), 0.05) or pairs / (chosen.count + 1) < 0.05


FROZEN = [[1, 6, 7, 2, 4, 0, 5, 3], [5, 3, 7, 4, 0, 1, 2, 6]]
