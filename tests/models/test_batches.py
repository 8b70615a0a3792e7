"""How items become batches: least padding within a budget; made ready in order, ahead, and not too far."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platonic_ray.models.batches import batches_by_length, ready_ahead


def cost(batches: list[list[int]], lengths: list[int], budget: int) -> int:
    return sum(len(batch) * max(max(lengths[i] for i in batch), 1) + budget // 64 for batch in batches)


def every_cut(order: list[int], lengths: list[int], budget: int) -> list[list[list[int]]]:
    """Every way to cut items in order into batches that keep to the budget."""
    found = []
    for cuts in itertools.product([False, True], repeat=len(order) - 1):
        batches = [[order[0]]]
        for index, cut in zip(order[1:], cuts, strict=True):
            if cut:
                batches.append([index])
            else:
                batches[-1].append(index)
        if all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= budget for b in batches):
            found.append(batches)
    return found


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 400))
def test_batches_hold_every_item_once_within_the_budget_at_the_least_cost(
    lengths: list[int], budget: int
) -> None:
    batches = batches_by_length(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    least = min(cost(cut, lengths, budget) for cut in every_cut(order, lengths, budget))
    assert cost(batches, lengths, budget) == least


def test_no_items_make_no_batches() -> None:
    assert batches_by_length([], 10) == []
    assert list(ready_ahead(len, [])) == []


def test_items_are_made_ready_in_order_by_another_thread_and_one_ahead() -> None:
    made: list[int] = []
    threads = set()
    second = threading.Event()

    def prepare(item: int) -> int:
        threads.add(threading.get_ident())
        made.append(item)
        if item == 1:
            second.set()
        return -item

    ready = ready_ahead(prepare, range(5))
    assert next(ready) == 0
    assert second.wait(120), "the second is made while the caller has the first"
    assert made == [0, 1]  # and no third, which nobody has room for
    assert list(ready) == [-1, -2, -3, -4]
    assert threading.get_ident() not in threads


def test_what_an_item_raises_is_raised_in_its_turn() -> None:
    ready = ready_ahead(lambda item: 1 // item, [1, 1, 0, 1])
    assert [next(ready), next(ready)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(ready)
