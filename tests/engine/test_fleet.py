"""Which model gets the next actor: the longest first, the big before the small, a second one where it pays."""

from __future__ import annotations

import pytest

from platonic_ray.engine.cluster import Resources
from platonic_ray.engine.fleet import Fleet
from platonic_ray.engine.replica import Replica
from platonic_ray.errors import StudyError
from platonic_ray.study import RunEntry


def machine(gpus: float = 0, node_gpus: float | None = None, cpus: float = 2) -> Resources:
    return Resources(cpus, gpus, cpus, gpus if node_gpus is None else node_gpus, 0)


def fleet(costs: list[float], gpus: list[float] | None = None, **run: object) -> Fleet:
    return Fleet(RunEntry.model_validate(run), costs, gpus or [1.0] * len(costs))


def start_all(some: Fleet, pending: dict[int, int], there: Resources) -> list[int]:
    """Start what has room; return the models in the order of their starts."""
    while (model := some.next_model(pending, there)) is not None:
        some.replicas.append(Replica(model, None, None, some.gpus_of(model, there)))
    return [replica.model for replica in some.replicas]


def test_the_longest_starts_first_and_its_place_goes_to_the_next_longest() -> None:
    some, pending = fleet([1, 30, 2, 0]), {0: 4, 1: 4, 2: 40, 3: 4}
    assert start_all(some, pending, machine()) == [1, 2]  # 120, 80, 4 and nothing known
    assert some.next_model(pending, machine()) is None
    assert some.next_model({0: 4, 3: 4}, machine(), leaving=some.replicas[0]) == 0


def test_models_whose_memory_takes_more_cores_wait_for_those_before_them() -> None:
    some, pending = fleet([1, 1, 1]), {0: 4, 1: 4, 2: 4}
    there = machine(cpus=8)
    while (model := some.next_model(pending, there, cores_of=lambda model: 3.0)) is not None:
        some.replicas.append(Replica(model, None, None, cores=3.0))
    assert [replica.model for replica in some.replicas] == [0, 1]  # three would be told nine cores
    lone = fleet([1])
    assert (
        lone.next_model({0: 4}, machine(cpus=2), cores_of=lambda model: 3.0) == 0
    )  # or nothing would ever begin


def test_what_was_measured_counts_before_what_was_guessed() -> None:
    some = fleet([10, 10, 10])
    some.embedded(0, 1.0, 1)  # so ten of a cost take a second
    some.embedded(1, 5.0, 1)
    assert start_all(some, {0: 2, 1: 2, 2: 3}, machine(cpus=1)) == [1]


def test_a_model_gets_a_second_actor_only_where_that_pays_and_all_have_one() -> None:
    some, there = fleet([1, 1]), machine(cpus=3)
    assert start_all(some, {0: 10, 1: 10}, there) == [0, 1]
    for replica in some.replicas:
        some.loaded(replica)
        some._start_s[replica.model] = 4.0
    some.embedded(0, 0.5, 1)  # 5 s left: as long as it takes to start and more, but not twice
    some.embedded(1, 1.0, 1)
    assert some.next_model({0: 10, 1: 10}, there) == 1


def test_an_actor_gets_as_many_short_shards_at_once_as_leave_something_to_the_others() -> None:
    some = fleet([1, 1])
    some.replicas = [Replica(0, None, None), Replica(1, None, None), Replica(1, None, None)]
    assert some.at_once(0, 100) == 1  # nobody knows yet how long they are
    for seconds, size, expected in (
        (0.01, 1000, 25),  # a quarter of a second
        (0.1, 1000, 2),
        (0.2, 1000, 1),
        (60.0, 1000, 1),
        (0.0, 1000, 32),
        (0.01, 30e6, 2),  # 64 MiB
        (0.01, 100e6, 1),
    ):
        some.embedded(0, seconds, size)
        assert some.at_once(0, 100) == expected
    some.embedded(1, 0.01, 1000)
    assert [some.at_once(1, waiting) for waiting in (0, 1, 5, 49, 51)] == [1, 1, 3, 25, 25]


def test_big_models_get_their_gpus_first_and_small_ones_share_one() -> None:
    pending = {0: 9, 1: 1, 2: 9, 3: 9, 4: 9}
    some = fleet([9, 1, 9, 9, 9], gpus=[0.5, 2, 0.5, 1, 0.5])
    assert start_all(some, pending, machine(gpus=4)) == [1, 3, 0, 2]
    assert some.next_model({4: 9}, machine(gpus=4)) is None
    assert some.next_model({4: 9}, machine(gpus=4), leaving=some.replicas[2]) == 4


def test_what_is_free_is_kept_for_a_big_model_that_waits() -> None:
    some = fleet([1, 1, 1], gpus=[1, 1, 2])
    assert start_all(some, {0: 3, 1: 3}, machine(gpus=2)) == [0, 1]
    some.replicas.pop()
    assert some.next_model({1: 3, 2: 1}, machine(gpus=2)) is None
    some.replicas.pop()
    assert some.next_model({1: 3, 2: 1}, machine(gpus=2)) == 2


def test_without_gpus_they_run_on_cores_or_all_ask_for_what_may_come() -> None:
    assert start_all(fleet([3, 2, 1], gpus=[2, 2, 2]), {0: 1, 1: 1, 2: 1}, machine(cpus=2)) == [0, 1]
    waiting = fleet([3, 2, 1], gpus=[1, 1, 4], device="gpu")
    assert start_all(waiting, {0: 1, 1: 1, 2: 1}, machine()) == [2, 0, 1]
    assert waiting.most_gpus({0: 1}, machine()) == 4


def test_more_is_asked_for_than_there_is_as_far_as_a_study_says_and_where_it_pays() -> None:
    pending = {0: 100, 1: 1}
    for run, there in (({"ask_gpus": 4}, machine(gpus=2)), ({"ask_cpus": 4}, machine(cpus=2))):
        some = fleet([9, 1], gpus=[1, 1], **run)
        assert start_all(some, pending, there) == [0, 1]  # nobody knows yet what a shard takes
        for replica in some.replicas:
            some.loaded(replica)
        some.embedded(0, 1.0, 1)
        some.embedded(1, 1.0, 1)
        some._start_s = {0: 5.0, 1: 5.0}
        assert start_all(some, pending, there) == [0, 1, 0, 0]
    for device in ("gpu", "auto"):  # whoever asks for GPUs does not go on without them
        none_yet = fleet([3, 2, 1], device=device, ask_gpus=2)
        assert start_all(none_yet, {0: 1, 1: 1, 2: 1}, machine()) == [0, 1]


def test_the_first_asks_for_what_it_needs_even_beyond_what_there_is_and_may_be_asked_for() -> None:
    for run in ({"device": "gpu"}, {"ask_gpus": 1}, {"device": "gpu", "ask_gpus": 1}):
        some = fleet([2, 1], gpus=[4, 4], **run)
        assert start_all(some, {0: 1, 1: 1}, machine(gpus=2)) == [0]  # the other when this one has ended
        assert some.next_model({1: 1}, machine(gpus=2), leaving=some.replicas[0]) == 1


def test_more_gpus_than_any_node_has_are_refused_unless_they_may_come() -> None:
    with pytest.raises(StudyError, match="asks for 4 GPUs"):
        fleet([1], gpus=[4]).next_model({0: 1}, machine(gpus=4, node_gpus=2))
    assert fleet([1], gpus=[4], device="gpu").next_model({0: 1}, machine(gpus=4, node_gpus=2)) == 0
