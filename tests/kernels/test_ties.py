import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platonic_ray.errors import StudyError
from platonic_ray.kernels import TieRule, tie_keys

from .dense_neighbors import tie_key

digests = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(digests, st.lists(st.integers(0, 2**62), min_size=1, max_size=20))
def test_tie_keys_are_outputs_of_splitmix64(digest: str, ids: list[int]) -> None:
    keys = tie_keys(digest, torch.tensor(ids)).tolist()
    assert keys == [tie_key(digest, sample) for sample in ids]


@given(digests)
def test_no_two_ids_of_a_representation_share_a_key(digest: str) -> None:
    assert tie_keys(digest, torch.arange(1000)).unique().numel() == 1000


def test_representations_order_the_same_ids_differently() -> None:
    ids = torch.arange(100)
    orders = {tuple(TieRule(digit * 64).order(ids).tolist()) for digit in "0123456789abcdef"}
    assert len(orders) == 16


def test_ties_lowest_orders_by_id() -> None:
    ids = torch.tensor([5, 3, 9, 1])
    assert ids[TieRule("", "lowest").order(ids)].tolist() == [1, 3, 5, 9]


def test_an_unknown_tie_rule_or_a_short_digest_is_refused() -> None:
    with pytest.raises(StudyError, match="lowest"):
        TieRule("a" * 64, "random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="16 hex digits"):
        tie_keys("abc", torch.arange(2))
