"""Simulated runs keep their work, respect the bounds of any schedule, and repeat only what was lost."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.plan.costs import Group, Work, groups_of, seconds_of
from platonic_ray.plan.machines import Cluster, Machine, Speed, gpu_machine
from platonic_ray.plan.scales import corpus, internet
from platonic_ray.plan.simulate import Losses, critical_path_s, efficiency, simulate, total_work_s

MACHINE = Machine("m", 2, 2**30, Speed(1.0), dispatch_s=0.0, store_bytes_s=1e30, network_bytes_s=1e30)

counts = st.integers(1, 400)
flops = st.floats(0.1, 50)


@st.composite
def graphs(draw):
    """Groups of tasks of some seconds each, which read rows, tiles or all of earlier ones."""
    groups: list[Group] = []
    for at in range(draw(st.integers(1, 5))):
        before = draw(st.lists(st.integers(0, at - 1), max_size=2, unique=True)) if at else []
        after = tuple((other, draw(st.sampled_from(["rows", "tiles", "all"]))) for other in before)
        durable = draw(st.booleans())
        groups.append(Group("kind", str(at), draw(counts), Work(flops=draw(flops)), after, durable=durable))
    return groups


@given(graphs(), st.integers(1, 9))
@settings(max_examples=60)
def test_all_work_is_done_once_and_no_schedule_beats_its_bounds(groups, workers):
    cluster = Cluster(MACHINE).of(workers)
    outcome = simulate(groups, cluster)
    total = total_work_s(groups, cluster)
    assert outcome.busy_s == pytest.approx(total)
    assert outcome.tasks == sum(group.count for group in groups)
    assert outcome.repeated_s == 0
    assert outcome.seconds >= max(total / workers, critical_path_s(groups, cluster)) * (1 - 1e-9)
    assert 0 < outcome.busy_share <= 1 + 1e-9


@given(graphs(), st.integers(1, 9))
@settings(max_examples=60)
def test_no_run_takes_longer_than_its_groups_one_after_another(groups, workers):
    cluster = Cluster(MACHINE).of(workers)
    phases = sum((-(-group.count // workers) + 1) * seconds_of(group, cluster) for group in groups)
    assert simulate(groups, cluster).seconds <= phases * (1 + 1e-9)


@given(graphs(), st.integers(1, 5))
@settings(max_examples=40)
def test_twice_the_workers_are_never_slower_than_a_chain_of_tasks_more(groups, workers):
    few, many = (simulate(groups, Cluster(MACHINE).of(count)).seconds for count in (workers, 2 * workers))
    slack = 2 * sum(group.work.flops for group in groups)
    assert many <= few + slack


@given(graphs(), st.integers(1, 9), st.integers(0, 1000))
@settings(max_examples=60)
def test_losses_repeat_the_tasks_in_progress_and_what_lived_on_the_node_alone(groups, workers, seed):
    cluster = Cluster(MACHINE).of(workers)
    calm = simulate(groups, cluster)
    rate = 3600 * 3 / (calm.seconds * cluster.busy_nodes)  # three losses in a run
    outcome = simulate(groups, cluster, Losses(rate, replaced_s=1.0), seed)
    assert outcome.busy_s == pytest.approx(total_work_s(groups, cluster))
    if all(group.durable for group in groups):
        longest = max(group.work.flops for group in groups)
        assert outcome.repeated_s <= outcome.losses * MACHINE.workers * longest * (1 + 1e-9)
        assert outcome.repeated_tasks <= outcome.losses * MACHINE.workers
    assert outcome == simulate(groups, cluster, Losses(rate, replaced_s=1.0), seed)


def test_a_loss_costs_what_was_in_progress_and_the_way_back():
    group = Group("kind", "one", 10, Work(flops=100.0))
    alone = Machine("m", 1, 2**30, Speed(1.0), dispatch_s=0.0)
    outcome = simulate([group], Cluster(alone), Losses(4.0, replaced_s=60.0), seed=3)
    assert outcome.losses > 0
    assert outcome.busy_s == pytest.approx(1000)
    idle = outcome.seconds - outcome.busy_s - outcome.repeated_s
    assert idle == pytest.approx(60 * outcome.losses)


def test_the_driver_bounds_how_many_tasks_start_in_a_second():
    machine = Machine("m", 100, 2**30, Speed(1.0), dispatch_s=0.01)
    groups = [Group("kind", "short", 100_000, Work(flops=0.1))]
    outcome = simulate(groups, Cluster(machine))
    assert outcome.seconds == pytest.approx(1000, rel=0.05)  # 100 s of work on 100 workers
    assert outcome.dispatch_s == pytest.approx(1000)


def test_a_path_that_all_share_bounds_what_moves():
    machine = Machine("m", 8, 2**30, Speed(1.0), dispatch_s=0.0, store_bytes_s=10.0)
    groups = [Group("kind", "wide", 1000, Work(flops=1.0, store_bytes=5.0))]
    assert simulate(groups, Cluster(machine)).seconds == pytest.approx(500, rel=0.05)
    assert simulate(groups, Cluster(machine).of(1)).seconds == pytest.approx(1000, rel=0.01)


def test_a_group_that_reads_a_later_one_is_refused():
    with pytest.raises(ValueError, match="does not come before"):
        simulate([Group("kind", "one", 1, Work(flops=1.0), ((0, "all"),))], Cluster(MACHINE))


def test_the_internet_row_keeps_a_thousand_gpus_busy():
    cluster = Cluster(gpu_machine("8xH100"), 128)
    assert efficiency(groups_of(internet()), cluster, 1024) >= 0.9


def test_a_node_that_goes_takes_no_more_than_its_share_of_the_corpus_row():
    groups, cluster = groups_of(corpus()), Cluster(gpu_machine("8xH100"), 8)
    losses = Losses(5.0)  # a hundred times the usual, so that a short run sees some
    outcome = simulate(groups, cluster, losses, seed=1)
    assert outcome.losses > 5
    # Tiles of neighbors live where they were made until they are merged.
    assert 0 < outcome.repeated_share < outcome.losses / 8


def test_a_worker_loads_compiled_code_once_and_ray_takes_its_part_of_busy_cores():
    calm = replace(MACHINE, workers=2)
    work = [Group("kind", "0", 40, Work(flops=1.0))]
    assert simulate(work, Cluster(calm)).seconds == pytest.approx(20)
    assert simulate(work, Cluster(replace(calm, warm_s=3.0))).seconds == pytest.approx(23)
    shared = Cluster(replace(calm, control_s=0.5))
    assert simulate(work, shared).seconds == pytest.approx(30)
    # A core that nobody works on is Ray's to have.
    assert simulate(work, replace(shared, used=1)).seconds == pytest.approx(40)
