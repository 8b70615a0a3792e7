"""Costs describe the plan that runs, and take as long for a billion samples as for a thousand."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.digest import digest
from platonic_ray.errors import StudyError
from platonic_ray.kernels import LEAF, MICRO, Kernel
from platonic_ray.plan import (
    Embed,
    KernelTile,
    NeighborTile,
    Plan,
    PlannedModel,
    cut,
    permuted_kernels,
)
from platonic_ray.plan.blocks import ID_BYTES, choose_block_rows, choose_product_rows
from platonic_ray.plan.costs import PROCESS_BYTES, Work, groups_of, task_seconds
from platonic_ray.plan.machines import Cluster, Machine, Speed, gpu_machine
from platonic_ray.plan.scales import corpus, internet
from platonic_ray.plan.workload import ModelShape, Workload

LINEAR = Kernel("linear")
SHAPES = (ModelShape("a", (8, 8)), ModelShape("b", (16,), parameters=1000, tokens=5))


def made(
    n, shard_rows, block_rows, recipe="l2", kernels=(LINEAR,), permutations=0, states=False, product_rows=0
):
    shards = len(cut(n, shard_rows))
    models = tuple(
        PlannedModel(
            shape.name, "text", digest(shape.name), tuple(digest([shape.name, i]) for i in range(shards))
        )
        for shape in SHAPES
    )
    permuted = permuted_kernels(LINEAR, permutations) if permutations else ()
    return Plan(
        n,
        shard_rows,
        block_rows,
        recipe,
        10,
        kernels,
        models,
        permuted,
        states=states,
        product_rows=product_rows,
    )


@given(
    n=st.integers(2, 3000),
    shard_rows=st.integers(1, 700),
    block_rows=st.sampled_from([256, 512, 1024]),
    recipe=st.sampled_from(["l2", "huh2024"]),
    kernels=st.sampled_from([(), (LINEAR,), (LINEAR, Kernel("rbf", median=1.0))]),
    permutations=st.sampled_from([0, 202]),
    states=st.booleans(),
    product_rows=st.sampled_from([0, 512, 2048]),
)
@settings(max_examples=40)
def test_groups_count_the_tasks_of_the_plan(
    n, shard_rows, block_rows, recipe, kernels, permutations, states, product_rows
):
    plan = made(n, shard_rows, block_rows, recipe, kernels, permutations, states, product_rows)
    counted: Counter[str] = Counter()
    for group in groups_of(Workload.of(plan, SHAPES, neighbor_metrics=1, row_layers=1)):
        counted[group.kind] += group.count
    assert counted == Counter(type(task).__name__ for task in plan.prerequisites)


@given(n=st.integers(2, 3000), block_rows=st.sampled_from([256, 512, 1024]))
@settings(max_examples=40)
def test_work_adds_up_to_that_of_the_plan_s_tiles(n, block_rows):
    plan = made(n, 100, block_rows)
    groups = groups_of(Workload.of(plan, SHAPES))
    size = [len(span) for span in plan.blocks]
    tiles = [task for task in plan.prerequisites if isinstance(task, NeighborTile)]
    cells = sum(
        size[tile.a] * size[tile.b] * (1 if tile.a == tile.b else 2) * SHAPES[tile.model].layers
        for tile in tiles
    )
    of_tiles = [group for group in groups if group.kind == "NeighborTile"]
    assert sum(group.total("cells") for group in of_tiles) == pytest.approx(cells)
    assert cells == n * n * 3
    products = (n * n + sum(rows * rows for rows in size)) / 2
    assert sum(group.total("flops") for group in of_tiles) == pytest.approx(2 * products * 32)
    embeds = [group for group in groups if group.kind == "Embed"]
    assert sum(group.total("written_bytes") for group in embeds) == pytest.approx(4 * n * 32)
    assert sum(group.total("flops") for group in embeds) == pytest.approx(2 * 1000 * 5 * n)
    kernel = [task for task in plan.prerequisites if isinstance(task, KernelTile)]
    off = sum(size[tile.a] * size[tile.b] for tile in kernel if tile.a != tile.b)
    on = sum(rows * (rows + min(block_rows, MICRO)) / 2 for rows in size)
    of_kernels = [group for group in groups if group.kind == "KernelTile"]
    assert sum(group.total("cells") for group in of_kernels) == pytest.approx(3 * (off + on))


def test_features_in_float16_are_written_and_read_in_half_the_bytes():
    plan = made(1000, 100, 256, "huh2024")
    wide, narrow = (Workload.of(plan, SHAPES, value_bytes=size) for size in (4, 2))
    assert narrow.feature_bytes == wide.feature_bytes / 2
    for kind, moved in {
        "Embed": "written_bytes",
        "Clamp": "store_bytes",
        "NeighborTile": "object_bytes",
        "KernelTile": "object_bytes",
    }.items():
        whole, half = (
            sum(group.total(moved) for group in groups_of(work) if group.kind == kind)
            for work in (wide, narrow)
        )
        assert 0 < half == whole / 2, kind


def test_every_group_comes_after_what_it_reads():
    for work in (corpus(), internet(), Workload.of(made(1000, 100, 256, "huh2024"), SHAPES)):
        groups = groups_of(work)
        assert all(other < at for at, group in enumerate(groups) for other, _ in group.after)
        assert all(group.work.peak_bytes > 0 for group in groups)


def test_the_plan_of_a_billion_samples_is_as_small_as_that_of_a_thousand():
    groups = groups_of(internet())
    assert len(groups) < 50
    assert sum(group.count for group in groups) > 10**6
    every = groups_of(Workload.of(made(1000, 100, 256), SHAPES).at(10**9))
    assert len(every) < 50


def test_queries_against_a_streamed_gallery_cost_their_own_products_alone():
    work = internet()
    strips = [group for group in groups_of(work) if group.kind == "NeighborStrip"]
    assert sum(group.total("flops") for group in strips) == pytest.approx(2 * 8192 * 10**9 * 100 * 1024)
    assert strips[0].work.output_bytes == 8192 * 11 * 10 * ID_BYTES


def test_durable_partial_results_of_the_large_scales_are_under_a_tenth_of_the_features():
    for work in (corpus(), internet()):
        written = sum(group.total("written_bytes") for group in groups_of(work) if group.partial)
        assert written < work.feature_bytes / 10


def test_a_task_takes_its_arithmetic_and_its_share_of_the_node():
    speed = {"Embed": Speed(1e-9, cell_s=1e-6, entry_s=1e-3, task_s=0.5)}
    machine = Machine(
        "m", 2, 2**30, Speed(1e-12), speed, store_bytes_s=100.0, network_bytes_s=50.0, overlaps=False
    )
    work = Work(flops=2e9, cells=1e6, entries=1000, store_bytes=60, written_bytes=40, object_bytes=100)
    assert task_seconds("Embed", work, Cluster(machine)) == pytest.approx(0.5 + 2 + 1 + 1 + 2)
    assert task_seconds("Embed", work, Cluster(machine, used=1)) == pytest.approx(0.5 + 2 + 1 + 1 + 1)
    assert task_seconds("Embed", work, Cluster(machine, 3)) == pytest.approx(0.5 + 2 + 1 + 1 + 2 + 4)


@pytest.mark.parametrize("text", ["9xTPU", "H100x8", "", "0xH100"])
def test_a_gpu_that_nobody_knows_is_refused_with_those_there_are(text):
    with pytest.raises(StudyError, match="8xH100"):
        gpu_machine(text)


def test_a_node_is_named_by_its_gpus():
    machine = gpu_machine("8xH100")
    assert (machine.name, machine.workers) == ("8xH100", 8)
    assert gpu_machine("l4").workers == 1
    assert any("half" in text or "50%" in text for text in machine.assumptions)
    cluster = Cluster(machine, 16)
    assert (cluster.workers, cluster.of(12).busy_nodes, cluster.of(4).workers_a_node) == (128, 2, 4)
    assert sum(isinstance(task, Embed) for task in made(100, 50, 256).prerequisites) == 4


@given(
    n=st.integers(2, 10**9),
    widths=st.lists(st.lists(st.integers(1, 8192), min_size=1, max_size=40), min_size=1, max_size=3),
    k=st.sampled_from([None, 10, 1000]),
    gib=st.sampled_from([1.0, 2.0, 16.0]),
)
def test_blocks_fit_the_memory_of_a_task_unless_even_the_smallest_does_not(n, widths, k, gib):
    rows = choose_block_rows(n, widths, k, kernels=True, task_bytes=gib * 2**30)
    assert rows % MICRO == 0
    assert (rows // MICRO).bit_count() == 1
    shapes = tuple(ModelShape(str(at), tuple(of)) for at, of in enumerate(widths))
    work = Workload(n, 256, rows, shapes, k, kernels=(LINEAR,))
    peaks = [
        group.work.peak_bytes - PROCESS_BYTES
        for group in groups_of(work)
        if group.kind in ("NeighborTile", "KernelTile")
    ]
    assert rows == MICRO or max(peaks) <= gib * 2**30


def partial_bytes(work):
    return sum(group.total("written_bytes") for group in groups_of(work) if group.partial)


@pytest.mark.parametrize("kernel", [LINEAR, Kernel("rbf", sigma=1.0)])
def test_partial_results_of_a_million_samples_are_under_a_tenth_of_the_features(kernel):
    shapes = (ModelShape("a", (384,)), ModelShape("b", (384,)))
    work = Workload(2, 256, 256, shapes, 10, kernels=(kernel,)).at(1_000_000)
    assert 0 < partial_bytes(work) < work.feature_bytes / 10
    if kernel != LINEAR:  # what tiles of 4,096 rows would leave
        assert partial_bytes(replace(work, block_rows=4096)) > work.feature_bytes / 2


@given(
    n=st.integers(2, 10**9),
    widths=st.lists(
        st.lists(st.sampled_from([1, 64, 384, 4096]), min_size=1, max_size=5), min_size=1, max_size=4
    ),
    block_rows=st.sampled_from([256, 4096, 2**16, 2**20]),
)
def test_products_are_taken_where_they_are_less_work_than_cells_and_leave_little(n, widths, block_rows):
    rows = choose_product_rows(n, widths, LINEAR, block_rows)
    assert not choose_product_rows(n, widths, Kernel("euclidean"), block_rows)
    if not rows:
        return
    assert rows % LEAF == 0
    assert (rows // LEAF).bit_count() == 1
    assert rows >= min(block_rows, n)
    shapes = tuple(ModelShape(str(at), tuple(of)) for at, of in enumerate(widths))
    by_products = Workload(n, 256, block_rows, shapes, kernels=(LINEAR,), product_rows=rows)
    by_tiles = replace(by_products, product_rows=0)
    flops = [sum(group.total("flops") for group in groups_of(work)) for work in (by_products, by_tiles)]
    assert flops[0] < 3 * flops[1]
    of_rows = 16 * n * sum(map(len, widths))  # two numbers a row and layer, whatever its width
    assert partial_bytes(by_products) - of_rows <= by_products.feature_bytes / 10
