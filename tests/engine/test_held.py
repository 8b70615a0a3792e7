"""What the driver holds of results: objects that shards of a call share, handed over once, the oldest dropped."""

from __future__ import annotations

import pytest
from ray import ObjectRef

from platonic_ray.engine.held import Held
from platonic_ray.engine.remote import _given
from platonic_ray.kernels import Kernel
from platonic_ray.plan import ColumnSums, Embed, NeighborTile, Score

A, B, C = (Embed(0, shard) for shard in range(3))
TILE = NeighborTile(0, 0, 0)


@pytest.fixture
def objects() -> list[ObjectRef]:
    return [ObjectRef.from_random() for _ in range(5)]


def test_an_object_that_shards_share_is_handed_over_once_and_each_finds_its_tables(objects) -> None:
    held = Held(())
    held.add_call([A, B], tuple(objects[:2]), [1, 1])
    held.add_call([C], tuple(objects[2:4]), [1])
    held.add(TILE, objects[4])
    slots, handed = held.handed(NeighborTile(0, 0, 1), [B, C, TILE, A, Embed(0, 3)])
    assert handed == objects
    given = _given(slots, (("a0", "b0"), ("a1", "b1"), ("c0",), ("c1",), "tile"))
    assert given == {A: ("a0", "a1"), B: ("b0", "b1"), C: ("c0", "c1"), TILE: ("tile",)}


def test_what_reads_whole_models_is_handed_none_of_their_shards(objects) -> None:
    held = Held(())
    held.add_call([A], (objects[0],), [1])
    sums = ColumnSums(0, Kernel("linear"))
    held.add(sums, objects[1])
    assert held.handed(sums, [A]) == ((), [])
    slots, handed = held.handed(Score(0, 1), [A, sums])
    assert (slots, handed) == (((sums, (0,), None),), [objects[1]])


def test_the_oldest_calls_are_dropped_beyond_a_bound_and_those_without_readers_first_of_all(objects) -> None:
    held = Held(())
    held.add_call([A, B], (objects[0],), [10, 20])
    held.add_call([C], (objects[1],), [40])
    assert held.bound(70) == {}
    held.drop(A)
    assert held.bound(69) == {B: 20}  # a call is one object: it takes its place until its last shard is read
    assert [task in held for task in (A, B, C)] == [False, False, True]
    held.drop(C)
    assert held.bound(0) == {}
    # A shard that was made again is no longer its old call's.
    held.add_call([A], (objects[2],), [30])
    held.add_call([A], (objects[3],), [30])
    assert held.bound(30) == {}
    assert A in held
