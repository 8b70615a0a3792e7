"""What is made once of a model whose features are in memory: prepared rows, neighbors, facts for a result.

Layers are worked on side by side, and no more than a few are held in prepared form at a time unless
somebody goes on with the rows, so that a table needs little memory beyond the features themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from platonic_ray.digest import digest_streams
from platonic_ray.kernels import (
    Anchor,
    Cells,
    Digest,
    Kernel,
    TopK,
    anchors,
    blocks_of,
    clamp_bounds,
    each,
    exact_ids,
    exact_neighbors,
    kernel_row_sums,
    median_distances,
    prepare,
    root_level,
    zero_rows,
)
from platonic_ray.metrics.base import Metric
from platonic_ray.metrics.heap import give_back
from platonic_ray.metrics.states import Neighbors

_MUCH_BYTES = 16 * 2**20  # of one layer's rows: with smaller ones it costs a tenth of the time


@dataclass(frozen=True)
class Wanted:
    """What metrics want of every model.

    `k` is the largest number of neighbors, None for none; `values` says whether their similarities are
    wanted, `ordered` whether it matters in which order neighbors are, `rows` whether prepared rows are,
    `row_sums` those of the linear kernel, `cells` the kernels whose cells are.
    """

    k: int | None
    values: bool
    ordered: bool
    rows: bool
    row_sums: bool = False
    cells: tuple[Kernel, ...] = ()

    @classmethod
    def of(cls, metrics: Sequence[Metric], by_cells: bool = False) -> Wanted:
        """Return what some metrics want together.

        :param by_cells: whether those of kernels want cells, and not rows to make cells of later.
        """
        knn = [metric for metric in metrics if metric.family == "neighbors"]
        ks = {metric.k for metric in knn if metric.k is not None}
        return cls(
            k=max(ks, default=None),
            values=any(metric.similarities is not None for metric in knn),
            # The k nearest are the first of more only where these are in order.
            ordered=len(ks) > 1 or any(metric.ordered for metric in knn),
            rows=any(
                metric.family == "rows" or (metric.family == "kernel" and not by_cells) for metric in metrics
            ),
            row_sums=any(metric.similarities == "centered" for metric in knn),
            cells=kernels_of(metrics) if by_cells else (),
        )


def kernels_of(metrics: Sequence[Metric]) -> tuple[Kernel, ...]:
    """Return the kernels whose sums some metrics need, each once."""
    return tuple(dict.fromkeys(kernel for metric in metrics if (kernel := metric.kernel) is not None))


@dataclass(frozen=True)
class ModelState:
    """A model as the joint sums need it.

    `zeros` and `widths` are the number of zero rows and the width of each layer; `bounds` what the recipe
    clamps each layer to, None if it clamps none; `rows` the prepared rows of each layer, none if nobody
    wants them; `cells` those of the kernels that are wanted.
    """

    zeros: list[int]
    widths: list[int]
    bounds: tuple[float, ...] | None
    rows: list[Tensor]
    neighbors: Neighbors | None
    cells: dict[Kernel, Cells]


def model_state(
    layers: Sequence[Tensor], recipe: str, wanted: Wanted, digests: Sequence[str] | None = None
) -> ModelState:
    """Prepare the layers of a model and find what is wanted of them.

    :param layers: finite features, `[n, D_l] float32` each.
    :param digests: digests of the layers that seed their tie rules; by default those of their prepared
        rows, which are made only for layers that have ties.
    """
    bounds = clamp_bounds(lambda: [layers], recipe)
    n = layers[0].shape[0]
    cells = {kernel: Cells.of(len(layers), n, kernel) for kernel in wanted.cells}

    def layer_state(layer: int) -> tuple[Tensor | None, int, TopK | None, Tensor | None]:
        rows = prepare(layers[layer], recipe, None if bounds is None else bounds[layer])
        digest: Digest = cache(lambda: rows_digest(rows)) if digests is None else digests[layer]
        top = None if wanted.k is None else _nearest(rows, wanted.k, digest, wanted)
        sums = kernel_row_sums([rows], [rows])[0] if wanted.row_sums else None
        for kernel, of_kernel in cells.items():
            of_kernel.fill(layer, rows, kernel_anchors([rows], kernel)[0])
        if cells and rows.nbytes > _MUCH_BYTES:
            give_back()  # else the threads' heaps keep about as much again as the model's features take
        return rows if wanted.rows else None, len(zero_rows(rows)), top, sums

    # The neighbors of a single layer are the same on any number of threads, which it alone can use.
    alone = len(layers) == 1 and not wanted.row_sums
    made = [layer_state(0)] if alone else each(layer_state, range(len(layers)))
    tops = [top for _, _, top, _ in made if top is not None]
    row_sums = [sums for *_, sums in made if sums is not None]
    return ModelState(
        zeros=[zeros for _, zeros, *_ in made],
        widths=[rows.shape[1] for rows in layers],
        bounds=bounds,
        rows=[rows for rows, *_ in made if rows is not None],
        neighbors=stack_neighbors(tops, row_sums) if tops else None,
        cells=cells,
    )


def kernel_anchors(layers: Sequence[Tensor], kernel: Kernel) -> list[Anchor]:
    """Return what a kernel of some layers is taken about, of all prepared rows `[n, D_l] float32` of them."""
    if kernel.median is None:
        return anchors(layers, kernel)
    n = layers[0].shape[0]
    return anchors(
        layers, kernel, median_distances(partial(_only, layers), n, kernel, root_level(blocks_of(n)))
    )


def _only(layers: Sequence[Tensor], block: int) -> Sequence[Tensor]:
    """Return the rows of the only block that there is in memory."""
    return layers


def stack_neighbors(tables: Sequence[TopK], row_sums: Sequence[Tensor] = ()) -> Neighbors:
    """Return the unary state of a model from the finished tables of its layers.

    :param row_sums: of the kernel, `[n] float64` a layer, where a metric needs them.
    """
    return Neighbors(
        ids=torch.stack([table.ids for table in tables]),
        values=torch.stack([table.values for table in tables]),
        row_sums=torch.stack(list(row_sums)) if row_sums else None,
    )


def rows_digest(rows: Tensor) -> str:
    """Return the digest of an in-memory representation: of its shape and prepared float32 rows."""
    return blocks_digest([rows], *rows.shape)


def blocks_digest(blocks: Iterable[Tensor], n: int, width: int) -> str:
    """Return the digest of a representation `[n, width]` whose prepared rows come block by block."""
    shape = f"float32 {n} {width}".encode()
    parts = (block.cpu().numpy().astype("<f4", copy=False).tobytes() for block in blocks)
    return digest_streams([(len(shape), (shape,)), (4 * n * width, parts)])


def _nearest(rows: Tensor, k: int, digest: Digest, wanted: Wanted) -> TopK:
    if wanted.values:
        return exact_neighbors(rows, k, digest)
    ids = exact_ids(rows, k, digest, ordered=wanted.ordered)
    # Not a number: whoever asks for similarities that nobody wanted shall see it.
    return TopK(ids, torch.full((), torch.nan, dtype=torch.float64, device=ids.device).expand(ids.shape))
