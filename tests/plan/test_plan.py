"""The plan: keys follow content, demand runs backwards, losses are answered."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.digest import digest
from platonic_ray.kernels import MICRO, Kernel
from platonic_ray.plan import (
    Clamp,
    Embed,
    KernelTile,
    NeighborBlock,
    NeighborTile,
    PermutedKernel,
    Plan,
    PlannedModel,
    Scale,
    Score,
    TaskGraph,
    choose_block_rows,
    cut,
    found,
    needed,
    permuted_kernels,
)

LINEAR = Kernel("linear")


def plan(n=1000, shard_rows=100, block_rows=512, models=("a", "b"), k=10, kernels=(LINEAR,), recipe="l2"):
    shards = len(cut(n, shard_rows))
    planned = tuple(
        PlannedModel(name, "text", digest(["ties", name]), tuple(digest([name, i]) for i in range(shards)))
        for name in models
    )
    return Plan(n, shard_rows, block_rows, recipe, k, kernels, planned)


@given(st.integers(1, 10**7))
@settings(deadline=None)
def test_blocks_are_a_power_of_two_of_micro_tiles(n):
    rows = choose_block_rows(n)
    assert rows % MICRO == 0
    assert (rows // MICRO).bit_count() == 1


@given(n=st.integers(1, 3000), shard_rows=st.integers(1, 700), blocks=st.sampled_from([256, 512, 1024]))
@settings(max_examples=50, deadline=None)
def test_the_shards_of_a_block_cover_its_rows(n, shard_rows, blocks):
    made = plan(n=n, shard_rows=shard_rows, block_rows=blocks)
    for block, span in enumerate(made.blocks):
        rows = {
            row
            for shard in made.shards_of(block)
            for row in range(made.shards[shard].start, made.shards[shard].stop)
        }
        assert set(range(span.start, span.stop)) <= rows
        # no shard is read without need
        assert len(made.shards_of(block)) <= len(span) // shard_rows + 2


def test_every_pair_of_blocks_is_one_tile():
    made = plan(n=2000, block_rows=256)
    assert sorted(made.tiles) == [(a, b) for a in range(8) for b in range(a, 8)]


def test_with_nothing_there_everything_is_needed():
    made = plan()
    assert needed(made, found(made, lambda kind, key: False)) == frozenset(made.prerequisites)


def test_with_everything_there_only_scores_are_needed():
    made = plan()
    left = needed(made, found(made, lambda kind, key: True))
    assert left == {Score(0, 0), Score(0, 1), Score(1, 1)}


def test_features_that_are_there_are_not_made_again():
    made = plan()
    left = needed(made, found(made, lambda kind, key: kind == "features"))
    assert not any(isinstance(task, Embed) for task in left)
    assert sum(isinstance(task, NeighborTile) for task in left) == 2 * 3


def test_neighbors_that_are_there_need_no_tiles():
    made = plan()
    left = needed(made, found(made, lambda kind, key: kind in ("features", "neighbors")))
    assert {type(task) for task in left} == {KernelTile, Score}


def test_a_lost_block_brings_back_its_own_tiles_alone():
    made = plan()
    lost = made.neighbors_key(1, 0)
    left = needed(made, found(made, lambda kind, key: key != lost))
    assert {task for task in left if not isinstance(task, Score)} == {
        NeighborBlock(1, 0),
        NeighborTile(1, 0, 0),
        NeighborTile(1, 0, 1),
    }


def test_an_added_model_changes_no_key_of_the_others():
    two, three = plan(models=("a", "b")), plan(models=("a", "b", "c"))
    keys = {artifact for task in two.prerequisites for artifact in two.artifacts(task)}
    assert keys < {artifact for task in three.prerequisites for artifact in three.artifacts(task)}


@pytest.mark.parametrize("change", [{"k": 11}, {"recipe": "none"}])
def test_what_changes_neighbors_changes_their_key(change):
    made = plan()
    other = Plan(**{**vars_of(made), **change})
    assert made.neighbors_key(0, 0) != other.neighbors_key(0, 0)


def vars_of(made):
    return {name: getattr(made, name) for name in made.__dataclass_fields__}


def test_kernel_sums_depend_on_the_rows_of_their_tile_alone():
    made = plan(n=1000)
    changed = (*made.models[0].shard_keys[:-1], digest("other"))
    other = Plan(
        **{
            **vars_of(made),
            "models": (PlannedModel("a", "text", made.models[0].tie_digest, changed), made.models[1]),
        }
    )
    assert made.kernels_key(0, 0, LINEAR, 0, 1) == other.kernels_key(0, 0, LINEAR, 0, 1)
    assert made.kernels_key(0, 1, LINEAR, 0, 1) != other.kernels_key(0, 1, LINEAR, 0, 1)
    assert made.neighbors_key(0, 0) != other.neighbors_key(0, 0)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_graph_with_losses_ends_and_never_runs_a_task_before_its_inputs(seed):
    rng = random.Random(seed)
    made = plan(n=600, shard_rows=150, block_rows=256)
    graph = TaskGraph(made.prerequisites, done=[])
    results: set = set()
    taken = []
    losses = 0
    for _ in range(10_000):
        if graph.finished and not taken:
            break
        pending = graph.pending_embeds()
        choices = []
        if pending:
            choices.append("embed")
        if taken:
            choices += ["finish", "finish", "fail"]
        choices.append("take")
        act = rng.choice(choices)
        if act == "embed":
            taken.append(graph.take_embed(rng.choice(list(pending))))
        elif act == "take":
            task = graph.take()
            if task is not None:
                taken.append(task)
        elif act == "fail" and losses < 30:
            losses += 1
            graph.give_back(taken.pop(rng.randrange(len(taken))))
        elif act == "finish":
            task = taken.pop(rng.randrange(len(taken)))
            lost = [need for need in made.prerequisites[task] if need not in results]
            if lost:  # an input went between dispatch and reading
                for need in lost:
                    graph.undo(need)
                graph.give_back(task)
                continue
            results.add(task)
            graph.complete(task)
        if results and losses < 30 and rng.random() < 0.05:
            gone = rng.choice(sorted(results, key=repr))
            if not isinstance(gone, Score):
                losses += 1
                results.discard(gone)
    assert graph.finished
    assert {task for task in results if isinstance(task, Score)} == {Score(0, 0), Score(0, 1), Score(1, 1)}


def test_results_are_released_when_their_last_reader_is_done():
    made = plan(n=200, models=("a",), kernels=())
    graph = TaskGraph(made.prerequisites, done=[])
    while (embed := graph.take_embed(0)) is not None:
        assert graph.complete(embed) == []
    assert graph.take() == NeighborTile(0, 0, 0)
    assert set(graph.complete(NeighborTile(0, 0, 0))) == {Embed(0, 0), Embed(0, 1)}


def test_a_tile_is_ready_as_soon_as_the_shards_of_its_blocks_are_done():
    made = plan(n=1000, shard_rows=100, block_rows=256, models=("a", "b"), kernels=())
    graph = TaskGraph(made.prerequisites, done=[])
    for _ in made.shards_of(0):
        assert graph.take() is None
        graph.complete(graph.take_embed(0))
    # seven shards of this model and all of the other are still to be embedded
    assert graph.pending_embeds() == {0: 7, 1: 10}
    assert graph.take() == NeighborTile(0, 0, 0)


def test_shards_are_taken_together_as_far_as_they_go_together():
    made = plan(n=1000, shard_rows=100, block_rows=512, models=("a", "b"), kernels=())
    graph = TaskGraph(made.prerequisites, done=[Embed(0, 2)])

    def shards(most, together=lambda first, other: first.shard // 5 == other.shard // 5):
        return [task.shard for task in graph.take_embeds(0, most, together)]

    assert [shards(1), shards(2), shards(9), shards(9, lambda first, other: False)] == [[0], [1, 3], [4], [5]]
    assert graph.pending_embeds() == {0: 4, 1: 10}
    graph.give_back(Embed(0, 3))
    assert [shards(9), shards(9), shards(9)] == [[6, 7, 8, 9], [3], []]


def test_the_longest_tiles_are_taken_first():
    made = plan(n=1000, shard_rows=500, block_rows=256, models=("a",))
    graph = TaskGraph(made.prerequisites, done=[], length=made.length)
    while (embed := graph.take_embed(0)) is not None:
        graph.complete(embed)
    taken = []
    while (task := graph.take()) is not None:
        taken.append(task)
    for kind in (NeighborTile, KernelTile):
        lengths = [made.length(task) for task in taken if isinstance(task, kind)]
        assert len(lengths) == 10
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] > lengths[-1]


def test_what_needs_a_refused_task_is_left_out_and_the_rest_goes_on():
    made = plan(n=600, shard_rows=150, models=("a", "b"), kernels=())
    graph = TaskGraph(made.prerequisites, done=[])
    running = graph.take_embed(0)
    graph.refuse(Embed(0, 2))
    graph.complete(running)
    while any(pending := graph.pending_embeds()):
        graph.complete(graph.take_embed(next(iter(pending))))
    done = set()
    while (task := graph.take()) is not None:
        done.add(task)
        graph.complete(task)
    assert graph.finished
    assert {task for task in done if isinstance(task, Score)} == {Score(1, 1)}
    assert {Score(0, 0), Score(0, 1), Embed(0, 2)} < graph.refused
    assert NeighborTile(0, 1, 1) in done  # it reads the last shard alone


def test_a_task_that_comes_back_after_its_input_was_refused_is_refused_too():
    made = plan(n=200, models=("a",), kernels=())
    graph = TaskGraph(made.prerequisites, done=[])
    while (embed := graph.take_embed(0)) is not None:
        graph.complete(embed)
    tile = graph.take()
    graph.undo(Embed(0, 0))
    graph.refuse(graph.take_embed(0))
    graph.give_back(tile)
    assert graph.finished
    assert tile in graph.refused


def test_kernel_sums_of_a_model_with_itself_have_a_key_of_their_own():
    twins = plan(models=("a", "a"))
    keys = {pair: twins.kernels_key(0, 0, LINEAR, *pair) for pair in twins.pairs}
    assert keys[0, 1] != keys[0, 0] == keys[1, 1]


def test_what_reads_rows_of_a_model_waits_for_its_clamp_and_for_no_other():
    made = plan(n=600, recipe="huh2024")
    embeds = {model: {Embed(model, shard) for shard in range(6)} for model in (0, 1)}
    assert {*made.prerequisites[Clamp(1)]} == embeds[1]
    assert Clamp(1) in made.prerequisites[NeighborTile(1, 0, 0)]
    assert Clamp(0) not in made.prerequisites[NeighborTile(1, 0, 0)]
    kernels = [task for task in made.prerequisites if isinstance(task, KernelTile)]
    assert kernels
    assert all({Clamp(0), Clamp(1)} < {*made.prerequisites[task]} for task in kernels)
    assert not any(isinstance(task, Clamp) for task in plan(n=600).prerequisites)


def test_tiles_of_a_model_start_when_it_is_embedded_while_others_still_are():
    graph = TaskGraph(plan(n=600, kernels=(), recipe="huh2024").prerequisites, done=[])
    while (embed := graph.take_embed(0)) is not None:
        assert graph.take() is None
        graph.complete(embed)
    assert graph.take() == Clamp(0)
    assert graph.take() is None
    graph.complete(Clamp(0))
    assert graph.take() == NeighborTile(0, 0, 0)
    assert graph.pending_embeds() == {1: 6}


def artifact_keys(made, kind):
    return {key for task in made.prerequisites for of, key in made.artifacts(task) if of == kind}


def test_appended_samples_change_every_key_under_a_recipe_that_clamps():
    for recipe, kept in (("l2", True), ("huh2024", False), ("huh2024-approx", False)):
        # 512 rows, then 100 more: the shards and the first block stay as they were
        few, more = (plan(n=n, shard_rows=128, block_rows=256, recipe=recipe) for n in (512, 640))
        assert artifact_keys(few, "features") < artifact_keys(more, "features")
        assert (artifact_keys(few, "kernels") <= artifact_keys(more, "kernels")) == kept
        assert artifact_keys(few, "recipes").isdisjoint(artifact_keys(more, "recipes"))
        assert artifact_keys(few, "neighbors").isdisjoint(artifact_keys(more, "neighbors"))
        assert kept or artifact_keys(few, "kernels").isdisjoint(artifact_keys(more, "kernels"))


def test_the_two_clamps_share_features_and_nothing_else():
    exact, approximate = plan(recipe="huh2024"), plan(recipe="huh2024-approx")
    assert artifact_keys(exact, "features") == artifact_keys(approximate, "features")
    for kind in ("recipes", "neighbors", "kernels"):
        assert artifact_keys(exact, kind).isdisjoint(artifact_keys(approximate, kind))


def test_a_clamp_that_is_lost_is_made_again_and_said_in_the_result():
    made = plan(recipe="huh2024")
    left = needed(made, found(made, lambda kind, key: key != made.clamp_key(1)))
    assert {task for task in left if not isinstance(task, Score)} == {Clamp(1)}


def test_every_kernel_has_tiles_and_keys_of_its_own():
    wide = Kernel("linear", precision="float64")
    made = plan(block_rows=256, kernels=(LINEAR, wide))
    tiles = [task for task in made.prerequisites if isinstance(task, KernelTile)]
    assert sorted((tile.a, tile.b, tile.kernel.precision) for tile in tiles) == sorted(
        (a, b, precision) for a, b in made.tiles for precision in ("float32", "float64")
    )
    assert set(tiles) <= set(made.prerequisites[Score(0, 1)])
    assert made.kernels_key(0, 0, LINEAR, 0, 1) != made.kernels_key(0, 0, wide, 0, 1)


def test_kernels_on_the_median_wait_for_all_rows_of_a_model_and_share_its_median():
    one, half = Kernel("rbf", median=1.0), Kernel("rbf", median=0.5)
    made = plan(n=1000, block_rows=256, kernels=(LINEAR, one, half, Kernel("rbf", sigma=1.0)))
    scales = [task for task in made.prerequisites if isinstance(task, Scale)]
    assert scales == [Scale(0, "float32"), Scale(1, "float32")]
    assert made.prerequisites[scales[1]] == tuple(Embed(1, shard) for shard in range(10))
    of_tile = {
        kernel: [need for need in made.prerequisites[KernelTile(0, 0, kernel)] if isinstance(need, Scale)]
        for kernel in made.kernels
    }
    assert list(of_tile.values()) == [[], scales, scales, []]


def test_a_new_last_shard_changes_all_sums_on_the_median_and_only_its_own_of_others():
    median = Kernel("rbf", median=1.0)
    made = plan(n=1000, block_rows=256, kernels=(LINEAR, median))
    first, *others = made.models
    changed = PlannedModel(first.name, first.view, first.tie_digest, (*first.shard_keys[:-1], digest("new")))
    other = Plan(1000, 100, 256, "l2", 10, (LINEAR, median), (changed, *others))
    assert made.kernels_key(0, 0, LINEAR, 0, 1) == other.kernels_key(0, 0, LINEAR, 0, 1)
    assert made.kernels_key(0, 0, median, 0, 1) != other.kernels_key(0, 0, median, 0, 1)
    assert made.kernels_key(0, 0, median, 1, 1) == other.kernels_key(0, 0, median, 1, 1)


def test_permuted_kernels_read_all_rows_and_serve_the_scores_of_different_models():
    made = Plan(
        **{**vars_of(plan()), "permuted": permuted_kernels(LINEAR, 202, grouped=True), "drawn": "seed 0"}
    )
    assert [task.stop - task.start for task in made.permuted] == [100, 100, 2]
    assert made.prerequisites[made.permuted[0]] == tuple(
        Embed(model, shard) for model in (0, 1) for shard in range(10)
    )
    assert set(made.permuted) < set(made.prerequisites[Score(0, 1)])
    assert not set(made.permuted) & set(made.prerequisites[Score(1, 1)])
    keys = {made.permuted_key(task, 0, 1) for task in made.permuted}
    assert len(keys) == 3
    for change in ({"drawn": "seed 1"}, {"recipe": "none"}, {"models": made.models[::-1]}):
        other = Plan(**{**vars_of(made), **change})
        assert not keys & {other.permuted_key(task, 0, 1) for task in other.permuted}
    # A third model changes nothing of the two, but where what is multiplied together counts.
    more = {"models": (*made.models, made.models[0])}
    assert Plan(**{**vars_of(made), **more}).permuted_key(made.permuted[0], 0, 1) in keys
    grouped = Plan(**{**vars_of(made), "grouped": True})
    larger = Plan(**{**vars_of(grouped), **more})
    assert grouped.permuted_key(made.permuted[0], 0, 1) != larger.permuted_key(made.permuted[0], 0, 1)
    assert isinstance(made.permuted[0], PermutedKernel)
