import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import (
    canonical_dot,
    canonical_squared_distance,
    dot_error,
    squared_distance_error,
)

from .dense_neighbors import dot, squared_distance


def rows(seed: int, n: int, width: int, spread: float = 5.0) -> torch.Tensor:
    drawn = np.random.default_rng(seed)
    return torch.from_numpy(
        (drawn.normal(size=(n, width)) * np.exp(drawn.normal(size=(n, 1)) * spread)).astype("f4")
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 200))
def test_canonical_values_follow_the_written_order_of_summation(seed: int, width: int) -> None:
    a, b = rows(seed, 2, width)
    assert canonical_dot(a, b).item() == dot(a.numpy(), b.numpy())
    assert canonical_squared_distance(a, b).item() == squared_distance(a.numpy(), b.numpy())


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 9))
def test_canonical_values_are_symmetric_and_broadcast_to_the_last_bit(seed: int, width: int, n: int) -> None:
    x = rows(seed, n, width)
    for canonical in (canonical_dot, canonical_squared_distance):
        table = canonical(x[:, None], x[None])
        assert torch.equal(table, table.T)
        assert torch.equal(table[n // 2], canonical(x[n // 2].expand_as(x), x))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_any_order_of_summation_stays_within_the_error_bounds(seed: int, width: int) -> None:
    a, b = rows(seed, 2, width)
    shuffled = np.random.default_rng(seed).permutation(width)
    proposal = 0.0
    for d in shuffled:
        proposal += float(a[d]) * float(b[d])
    norm_a, norm_b = (math.sqrt(canonical_dot(v, v).item()) for v in (a, b))
    assert abs(proposal - canonical_dot(a, b).item()) <= dot_error(width) * norm_a * norm_b
    distance = norm_a**2 + norm_b**2 - 2 * proposal
    bound = squared_distance_error(width) * (norm_a + norm_b) ** 2
    assert abs(distance - canonical_squared_distance(a, b).item()) <= bound


def test_products_of_float32_are_exact_even_between_the_least_and_the_greatest() -> None:
    least, greatest = torch.tensor([2.0**-149]), torch.tensor([3.4028235e38])
    for a in (least, greatest):
        for b in (least, greatest):
            exact = Fraction(a.item()) * Fraction(b.item())
            assert Fraction(canonical_dot(a, b).item()) == exact


def test_a_zero_is_always_positive_so_that_equal_values_have_equal_bits() -> None:
    negative = torch.tensor([-0.0, -1.0, 1.0])
    value = canonical_dot(negative, torch.tensor([1.0, 0.0, 0.0]))
    assert math.copysign(1.0, value.item()) == 1.0


def test_rows_that_are_not_float32_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        canonical_dot(torch.zeros(2, dtype=torch.float64), torch.zeros(2))
    with pytest.raises(ValueError, match="width"):
        canonical_dot(torch.zeros(1), torch.zeros(2))
