"""Kernel sums of a table in memory: model by model from held cells, or from the rows of all at the end.

Where cells fit, they are made as a model comes, met with those of the models before it, and dropped
once no model is left that they have to meet: no prepared row stays. Of more samples, rows are smaller
than cells: they stay, and `super_tile` goes over them. Both ways give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from platonic_ray.kernels import (
    Cells,
    Kernel,
    blocks_of,
    inner_of_cells,
    linear_sums,
    root_level,
    super_tile,
    worthwhile,
)
from platonic_ray.kernels.permuted import kernel_square
from platonic_ray.metrics.cka import kernel_rows
from platonic_ray.metrics.states import KernelRows
from platonic_ray.metrics.unary import kernel_anchors

Side = tuple[str, str]
"""A model in a table: "x" or "y", and its name there."""

Inner = dict[tuple[Side, Side], Tensor]

_ALWAYS_BYTES = 2**30  # of all cells: then nobody minds
_SAMPLES = 2048  # of so many at most, layers that nobody has seen yet are held as cells (9 MB each)


@dataclass(frozen=True)
class KernelStates:
    """One kernel of every model: how many layers, each layer's cells `[n, n]`, and its unary states."""

    layers: Mapping[Side, int]
    square: Callable[[Side, int], Tensor]
    of: Mapping[Side, KernelRows]


def cells_fit(n: int, kernels: Sequence[Kernel], stacks: Iterable[Sequence[Tensor]] | None) -> bool:
    """Whether the cells of all models are to be held, and not their rows.

    :param stacks: the layers of all models, None where they are not there yet.
    """
    if stacks is None:
        return n <= _SAMPLES
    layers = [rows for stack in stacks for rows in stack]
    cells = len(layers) * sum(Cells.bytes_of_layer(n, kernel) for kernel in kernels)
    return cells <= max(_ALWAYS_BYTES, sum(4 * rows.numel() for rows in layers))


@dataclass
class KernelTables:
    """The sums of kernels over pairs of models, which come one by one.

    `keep` says whether somebody goes on with the cells.
    """

    n: int
    pairs: Sequence[tuple[Side, Side]]
    keep: bool
    _held: dict[Kernel, dict[Side, Cells]] = field(default_factory=dict)
    _unary: dict[Kernel, dict[Side, KernelRows]] = field(default_factory=dict)
    _inner: dict[Kernel, Inner] = field(default_factory=dict)

    def add_cells(self, side: Side, cells: Mapping[Kernel, Cells]) -> None:
        """Add a model by its cells, and forget those that no model to come needs."""
        for kernel, of_kernel in cells.items():
            self._unary.setdefault(kernel, {})[side] = kernel_rows(of_kernel.sums())[None]
            held, inner = self._held.setdefault(kernel, {}), self._inner.setdefault(kernel, {})
            held[side] = of_kernel
            ready = [pair for pair in self.pairs if pair not in inner and all(of in held for of in pair)]
            inner |= dict(zip(ready, inner_of_cells((held[x], held[y]) for x, y in ready), strict=True))
            if not self.keep:
                wanted = {of for pair in self.pairs if pair not in inner for of in pair}
                for gone in [of for of in held if of not in wanted]:
                    del held[gone]

    def of(self, kernel: Kernel, rows: Mapping[Side, Sequence[Tensor]]) -> tuple[Inner, KernelStates]:
        """Return Σ_{i≠j} K_ij L_ij of every pair and the states of every model, once all have come.

        :param rows: the prepared rows of every model, where no cells were added.
        """
        if kernel in self._inner:
            held = self._held[kernel]
            sizes = {side: len(cells.alone) for side, cells in held.items()}
            square = partial(lambda held, side, layer: held[side].square(layer), held)
            return self._inner[kernel], KernelStates(sizes, square, self._unary[kernel])
        models = list(dict.fromkeys(side for pair in self.pairs for side in pair))
        about = {side: kernel_anchors(rows[side], kernel) for side in models}
        widths = {side: [layer.shape[1] for layer in rows[side]] for side in models}
        if worthwhile(widths, self.pairs, self.n, kernel):
            sums = linear_sums(rows, self.pairs, self.n, kernel, about)
        else:
            level = root_level(blocks_of(self.n))
            sums = super_tile(rows, rows, self.pairs, level, 0, 0, self.n, kernel, about, unary=models)

        def square_of(side: Side, layer: int) -> Tensor:
            return kernel_square(rows[side][layer], kernel, about[side][layer])

        sizes = {side: len(rows[side]) for side in models}
        return sums.inner, KernelStates(sizes, square_of, kernel_rows(sums))
