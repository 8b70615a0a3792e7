"""What the tasks of linear kernels do where D × D products of rows are less work than cells.

Two passes over the rows: sums of columns, a model a task; then products, a range of rows a task. See
`kernels.moments`. As in `tiles`, every task commits what is durable before it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from platonic_ray.engine.context import Context, MissingInputError
from platonic_ray.engine.features import Blocks, read_parts
from platonic_ray.kernels import MICRO, Anchor, Kernel, RangeSums, anchors
from platonic_ray.kernels import column_sums as sums_of_columns
from platonic_ray.kernels import range_sums as sums_of_range
from platonic_ray.plan import ColumnSums, KernelProducts
from platonic_ray.store import arrays_table, table_arrays


def column_sums(context: Context, task: ColumnSums, blocks: Blocks) -> pa.Table:
    """Sum the columns of every layer of a model; commit and return them, `[D_l] float64` by number of layer.

    A leaf of rows is held at a time.
    """
    plan = context.plan
    about = _anchors(context, task.model, task.kernel, blocks)
    found = sums_of_columns(_reader(blocks), task.model, plan.n, task.kernel, about, threads=1)
    table = arrays_table({str(layer): sums.numpy() for layer, sums in enumerate(found)})
    context.store.put("columns", plan.columns_key(task), {"sums": table})
    return table


def kernel_products(
    context: Context, task: KernelProducts, blocks: Blocks, columns: Mapping[ColumnSums, pa.Table]
) -> pa.Table:
    """Make the products of a range for every pair of models that the store lacks, commit and return them.

    The arrays of pair (x, y) are `x.y.product.i.j` `[D_i, D_j] float64` of their layers; a model with itself
    brings its `rows` and `diagonal` `[L, rows]` too.

    :param columns: the sums of columns that are at hand; others are read from the store.
    :raises MissingInputError: naming shards and sums of columns that cannot be had.
    """
    plan, store = context.plan, context.store
    keys = {pair: plan.products_key(task, *pair) for pair in plan.pairs}
    pairs = [pair for pair, key in keys.items() if store.manifest("kernels", key) is None]
    at_once = -(-len(pairs) // 2 ** (2 * context.pieces)) or 1
    span = plan.ranges[task.part]
    made: dict[str, np.ndarray] = {}
    for start in range(0, len(pairs), at_once):
        some = pairs[start : start + at_once]
        models = sorted({model for pair in some for model in pair})
        sums = _columns(context, task.kernel, models, columns)
        about = {model: _anchors(context, model, task.kernel, blocks) for model in models}
        rows = range(span.start, span.stop)
        found = sums_of_range(_reader(blocks), some, rows, task.kernel, about, sums, threads=1)
        for x, y in some:
            arrays = arrays_of(found, x, y)
            store.put("kernels", keys[x, y], {"sums": arrays_table(arrays)})
            made.update({f"{x}.{y}.{name}": array for name, array in arrays.items()})
    return arrays_table(made)


def arrays_of(found: RangeSums, x: int, y: int) -> dict[str, np.ndarray]:
    """Return what is kept of one pair of models."""
    products = {
        f"product.{i}.{j}": product.numpy()
        for (of_x, i, of_y, j), product in found.products.items()
        if (of_x, of_y) == (x, y)
    }
    if x != y:
        return products
    return products | {"rows": found.rows[x].numpy(), "diagonal": found.diagonal[x].numpy()}


def range_of(arrays: Mapping[tuple[int, int], Mapping[str, np.ndarray]]) -> RangeSums:
    """Put the sums of a range together again, of pairs of models by their arrays."""
    products = {}
    for (x, y), found in arrays.items():
        for name, array in found.items():
            kind, *layers = name.split(".")
            if kind == "product":
                i, j = map(int, layers)
                products[x, i, y, j] = torch.tensor(array)
    alone = {x: found for (x, y), found in arrays.items() if x == y}
    rows, diagonal = (
        {x: torch.tensor(found[name]) for x, found in alone.items()} for name in ("rows", "diagonal")
    )
    return RangeSums(products, rows, diagonal)


def _reader(blocks: Blocks):  # type: ignore[no-untyped-def]
    """Return what reads rows and forgets those it read before: a leaf at a time is held, and one thread asks."""

    def read(model: int, start: int, stop: int) -> list[Tensor]:
        blocks.forget()
        return blocks.within(model, start, stop)

    return read


def _anchors(context: Context, model: int, kernel: Kernel, blocks: Blocks) -> list[Anchor]:
    return anchors(blocks.within(model, 0, min(MICRO, context.plan.n)), kernel)


def _columns(
    context: Context, kernel: Kernel, models: Sequence[int], given: Mapping[ColumnSums, pa.Table]
) -> dict[int, list[Tensor]]:
    """Return the sums of columns of models, from what is at hand or the store."""
    found: dict[int, list[Tensor]] = {}
    missing: list[ColumnSums] = []
    for model in models:
        task = ColumnSums(model, kernel)
        table = given.get(task)
        if table is None:
            manifest = context.store.manifest("columns", context.plan.columns_key(task))
            parts = None if manifest is None else read_parts(context, manifest)
            table = parts[0] if parts else None
        if table is None:
            missing.append(task)
            continue
        arrays = table_arrays(table)
        found[model] = [torch.tensor(arrays[str(layer)]) for layer in range(len(arrays))]
    if missing:
        raise MissingInputError(missing)
    return found
