"""What the tasks of tiles do: neighbors and kernel sums. The same functions in this process and on Ray.

Every task reads what it is handed as Arrow tables, takes the rest from the store, and commits what
is durable before it returns. A task that finds its result in the store already returns that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from platonic_ray.digest import digest
from platonic_ray.engine.context import Context, MissingInputError
from platonic_ray.engine.features import Blocks, read_parts
from platonic_ray.kernels import (
    MICRO,
    Anchor,
    Kernel,
    TieRule,
    TopK,
    anchors,
    kernel_row_sums,
    kernel_square,
    median_distances,
    merge_neighbors,
    super_tile,
    tied_share,
    tile_neighbors,
    tile_neighbors_of_both,
    tree_sum,
)
from platonic_ray.plan import Embed, KernelTile, NeighborBlock, NeighborTile, PermutedKernel, Scale, Task
from platonic_ray.statistics import permuted_products
from platonic_ray.store import arrays_table, table_arrays

UNARY = ("squares", "rows", "columns", "diagonal")
"""The sums that a model with itself brings to its kernel tiles."""


def tie_rule(context: Context, model: int, layer: int) -> TieRule:
    """Return how a representation of the study orders equal similarities."""
    return TieRule(layer_digest(context, model, layer))


def layer_digest(context: Context, model: int, layer: int) -> str:
    """Return the digest of a representation that seeds its tie rule."""
    return digest([context.plan.models[model].tie_digest, layer])


def neighbor_tile(context: Context, task: NeighborTile, blocks: Blocks) -> pa.Table:
    """Return the top-k of block a's rows among block b's, and the other way round.

    A table of the arrays `ids.a`, `values.a` and, off the diagonal, `ids.b`, `values.b`, each
    `[L, rows, k + 1]`; where the plan wants them, `row_sums.a`, `row_sums.b` `[L, rows]`, of one block's
    rows over the other's columns. Empty if another run has merged both blocks meanwhile.
    """
    k = context.plan.k
    assert k is not None
    keys = (context.plan.neighbors_key(task.model, block) for block in (task.a, task.b))
    if all(context.store.manifest("neighbors", key) is not None for key in keys):
        return arrays_table({})
    rows = {block: blocks.prepared(task.model, block) for block in {task.a, task.b}}
    ids = {block: _ids(context, block) for block in rows}
    sides: list[list[TopK]] = [[] for _ in rows]
    for layer, (x, y) in enumerate(zip(rows[task.a], rows[task.b], strict=True)):
        of = (x, y, ids[task.a], ids[task.b], k, tie_rule(context, task.model, layer))
        found = (tile_neighbors(*of),) if task.a == task.b else tile_neighbors_of_both(*of)
        for tops, top in zip(sides, found, strict=True):
            tops.append(top)
    arrays: dict[str, np.ndarray] = {}
    for side, tops, mine, other in zip("ab", sides, (task.a, task.b), (task.b, task.a), strict=False):
        arrays[f"ids.{side}"] = torch.stack([top.ids for top in tops]).numpy()
        arrays[f"values.{side}"] = torch.stack([top.values for top in tops]).numpy()
        if context.plan.row_sums:
            arrays[f"row_sums.{side}"] = kernel_row_sums(rows[mine], rows[other]).numpy()
    return arrays_table(arrays)


def neighbor_block(
    context: Context, task: NeighborBlock, partials: Mapping[NeighborTile, pa.Table]
) -> pa.Table:
    """Merge the tiles of a block's rows, commit and return `ids`, `values` `[L, rows, k + 1]`.

    With them, where the plan wants them, `row_sums` `[L, rows]`.

    :raises MissingInputError: naming tiles that are empty, for what they had found in the store is damaged.
    """
    empty = [tile for tile, table in partials.items() if not table.num_rows]
    if empty:
        raise MissingInputError(empty)
    merged: list[TopK] | None = None
    row_sums: list[Tensor] = []
    for tile in sorted(partials, key=lambda tile: (tile.a, tile.b)):
        arrays = table_arrays(partials[tile])
        side = "a" if tile.a == task.a else "b"
        ids, values = (torch.from_numpy(arrays[f"{name}.{side}"].copy()) for name in ("ids", "values"))
        if context.plan.row_sums:
            row_sums.append(torch.from_numpy(arrays[f"row_sums.{side}"].copy()))
        tops = [TopK(i, v) for i, v in zip(ids, values, strict=True)]
        merged = (
            tops
            if merged is None
            else [
                merge_neighbors(old, new, tie_rule(context, task.model, layer))
                for layer, (old, new) in enumerate(zip(merged, tops, strict=True))
            ]
        )
    assert merged is not None
    made = {
        "ids": torch.stack([top.ids for top in merged]).numpy(),
        "values": torch.stack([top.values for top in merged]).numpy(),
    }
    if context.plan.row_sums:
        # Tiles come in the order of the other block, each a whole subtree of the fixed tree.
        made["row_sums"] = tree_sum(row_sums).numpy()
    table = arrays_table(made)
    key = context.plan.neighbors_key(task.model, task.a)
    tied = [round(tied_share(top) * top.ids.shape[0]) for top in merged]
    context.store.put("neighbors", key, {"topk": table}, {"tied_rows": tied})
    return table


def merged_already(context: Context, task: NeighborBlock) -> pa.Table | None:
    """Return what `neighbor_block` would, if another run has committed it meanwhile."""
    manifest = context.store.manifest("neighbors", context.plan.neighbors_key(task.model, task.a))
    parts = None if manifest is None else read_parts(context, manifest)
    return parts[0] if parts else None


def scale(context: Context, task: Scale, blocks: Blocks) -> pa.Table:
    """Find the median distance of every layer of a model, commit and return `medians` `[L] float64`.

    Two blocks of rows are held at a time.
    """
    plan = context.plan

    def rows_of(block: int) -> list[Tensor]:
        blocks.forget()
        return blocks.prepared(task.model, block)

    kernel = Kernel("euclidean", precision="float64" if task.precision == "float64" else "float32")
    medians = median_distances(rows_of, plan.n, kernel, level_of(context))
    table = arrays_table({"medians": np.array(medians)})
    context.store.put("scales", plan.scales_key(task), {"medians": table})
    return table


def kernel_tile(
    context: Context, task: KernelTile, blocks: Blocks, scales: Mapping[Scale, pa.Table]
) -> pa.Table:
    """Compute the kernel sums of every pair of models that the store lacks, commit and return them.

    The arrays of pair (x, y) are named `x.y.inner`; a model with itself brings its `squares`,
    `rows`, `columns` and `diagonal` too.

    :param scales: the median distances that are at hand; others are read from the store.
    :raises MissingInputError: naming shards and scales that cannot be had.
    """
    plan, store = context.plan, context.store
    keys = {pair: plan.kernels_key(task.a, task.b, task.kernel, *pair) for pair in plan.pairs}
    pairs = [pair for pair, key in keys.items() if store.manifest("kernels", key) is None]
    at_once = -(-len(pairs) // 2 ** (2 * context.pieces)) or 1
    made: dict[str, np.ndarray] = {}
    for start in range(0, len(pairs), at_once):
        if start:
            blocks.forget()
        made |= _kernel_sums(context, task, blocks, scales, pairs[start : start + at_once])
    return arrays_table(made)


def _kernel_sums(
    context: Context,
    task: KernelTile,
    blocks: Blocks,
    scales: Mapping[Scale, pa.Table],
    pairs: Sequence[tuple[int, int]],
) -> dict[str, np.ndarray]:
    """Compute and commit the kernel sums of some pairs; return their arrays by name."""
    plan = context.plan
    models = sorted({model for pair in pairs for model in pair})
    medians = _medians(context, task.kernel, models, scales)
    blocks.require([Embed(model, shard) for model in models for shard in plan.kernel_shards(task.a, task.b)])
    stacks_a = {model: blocks.prepared(model, task.a) for model in models}
    stacks_b = stacks_a if task.a == task.b else {m: blocks.prepared(m, task.b) for m in models}
    about: dict[int, list[Anchor]] = {}
    for model in models:
        first = stacks_a[model] if task.a == 0 else blocks.prepared(model, 0)
        about[model] = anchors(first, task.kernel, medians.get(model))
    sums = super_tile(
        stacks_a,
        stacks_b,
        pairs,
        level_of(context),
        task.a,
        task.b,
        plan.n,
        task.kernel,
        about,
        unary=[x for x, y in pairs if x == y],
    )
    made: dict[str, np.ndarray] = {}
    for x, y in pairs:
        arrays = {"inner": sums.inner[x, y].numpy()}
        if x == y:
            for name in UNARY:
                found = getattr(sums, name).get(x)
                if found is not None:
                    arrays[name] = found.numpy()
        key = plan.kernels_key(task.a, task.b, task.kernel, x, y)
        context.store.put("kernels", key, {"sums": arrays_table(arrays)})
        made.update({f"{x}.{y}.{name}": array for name, array in arrays.items()})
    return made


def permuted_kernel(
    context: Context, task: PermutedKernel, blocks: Blocks, scales: Mapping[Scale, pa.Table]
) -> pa.Table:
    """Compute a kernel's inner products under permutations for every pair of models that the store lacks.

    Commits and returns them. The array of pair (x, y) is named `x.y`, `[stop − start, Lx, Ly] float64`; y is permuted.

    :param scales: as of `kernel_tile`.
    :raises MissingInputError: naming shards and scales that cannot be had.
    """
    plan, null, store = context.plan, context.null, context.store
    assert null is not None
    keys = {(x, y): plan.permuted_key(task, x, y) for x, y in plan.pairs if x != y}
    lacking = [pair for pair, key in keys.items() if store.manifest("permuted", key) is None]
    # Within groups, bytes depend on what is multiplied together: then all pairs are, as in a study of its own.
    pairs = list(keys) if plan.grouped and lacking else lacking
    models = sorted({model for pair in pairs for model in pair})
    medians = _medians(context, task.kernel, models, scales)
    blocks.require([Embed(model, shard) for model in models for shard in range(len(plan.shards))])
    stacks = {model: _all_rows(blocks, model, len(plan.blocks)) for model in models}
    about = {model: anchors(stacks[model], task.kernel, medians.get(model)) for model in models}
    products = permuted_products(
        lambda model, layer: kernel_square(stacks[model][layer], task.kernel, about[model][layer]),
        {model: len(stacks[model]) for model in models},
        pairs,
        null.draws(plan.n, task.stop - task.start, task.start),
    )
    for pair, product in products.items():
        store.put("permuted", keys[pair], {"sums": arrays_table({"products": product.numpy()})})
    return arrays_table({f"{x}.{y}": array.numpy() for (x, y), array in products.items()})


def _all_rows(blocks: Blocks, model: int, count: int) -> list[Tensor]:
    stacks = [blocks.prepared(model, block) for block in range(count)]
    return [torch.cat(layer) for layer in zip(*stacks, strict=True)]


def _medians(
    context: Context, kernel: Kernel, models: Sequence[int], given: Mapping[Scale, pa.Table]
) -> dict[int, list[float]]:
    """Return the median distances of models, for a kernel that needs them."""
    medians: dict[int, list[float]] = {}
    missing: list[Task] = []
    for model in models:
        task = context.plan.scale_of(kernel, model)
        if task is None:
            continue
        table = given.get(task)
        if table is None:
            manifest = context.store.manifest("scales", context.plan.scales_key(task))
            parts = None if manifest is None else read_parts(context, manifest)
            table = parts[0] if parts else None
        if table is None:
            missing.append(task)
        else:
            medians[model] = table_arrays(table)["medians"].tolist()
    if missing:
        raise MissingInputError(missing)
    return medians


def level_of(context: Context) -> int:
    """Return the level of the tree of sums whose nodes are this plan's blocks."""
    return (context.plan.block_rows // MICRO).bit_length() - 1


def _ids(context: Context, block: int) -> Tensor:
    span = context.plan.blocks[block]
    return torch.arange(span.start, span.stop)
