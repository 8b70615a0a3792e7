"""What scores are made of: unary states of a model's layers, and the sums of a pair of models.

No metric is known here: these are the terms in which metrics are declared (`base`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch import Tensor

from platonic_ray.kernels import Links

T = TypeVar("T")

Similarities = Literal["plain", "centered"]
"""Inner products of neighbors as they are, or minus the mean of their row of the kernel."""


@dataclass(frozen=True)
class Neighbors:
    """Unary state of the neighbor metrics: the tables of a model's layers.

    `ids` `[L, n, k + 1] int64` and `values` `[L, n, k + 1] float64`, as `kernels.TopK` a layer; k is
    at least the largest k of the metrics that are asked for. Where no metric goes on with them, values
    are NaN; where order matters to none either, ids may be `[L, n, k]`, ascending. `row_sums` `[L, n]
    float64` Σ_j K_ij, where a metric needs them.
    """

    ids: Tensor
    values: Tensor
    row_sums: Tensor | None = None
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def some(self, layers: Sequence[int] | slice) -> Neighbors:
        """Return the neighbors of some layers alone."""
        row_sums = None if self.row_sums is None else self.row_sums[layers]
        return Neighbors(self.ids[layers], self.values[layers], row_sums)

    def links(self, k: int, similarities: Similarities) -> Links:
        """Return the links of the k nearest, made once.

        :param similarities: "plain" for K_ij, "centered" for K_ij − Σ_l K_il / n.
        :raises ValueError: for "centered" without `row_sums`.
        """

        def make() -> Links:
            ids, values = self.ids[..., :k], self.values[..., :k]
            if similarities == "centered":
                if self.row_sums is None:
                    raise ValueError("similarities cannot be centered without the sums of their rows")
                values = values - (self.row_sums / ids.shape[1])[..., None]
            return Links.of(ids, values)

        return self.once(("links", k, similarities), make)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Return what `make` makes of this state alone, made when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made


@dataclass(frozen=True)
class KernelRows:
    """Unary state of the kernel metrics, of one kernel; all float64.

    `row_sums` `[L, n]` Σ_{j≠i} K_ij, `diagonal` `[L, n]` K_ii, `squares` `[L]` Σ_{i≠j} K_ij². Cells may
    have had a number subtracted, the same in all cells and the diagonal of a layer (`kernels.Anchor`).
    """

    row_sums: Tensor
    diagonal: Tensor
    squares: Tensor

    def some(self, layers: Sequence[int] | slice) -> KernelRows:
        """Return the state of some layers alone."""
        return KernelRows(self.row_sums[layers], self.diagonal[layers], self.squares[layers])


State = Mapping[str, Tensor]
"""Unary state of the rows family: what a metric keeps of one layer, as named tensors."""


@dataclass(frozen=True)
class LayerStates:
    """Both models' states under a metric of the rows family, and the layer pairs to be scored.

    `x` and `y` hold the states by layer, those alone that `cells` name; `shape` is (Lx, Ly).
    """

    x: Mapping[int, State]
    y: Mapping[int, State]
    cells: tuple[tuple[int, int], ...]
    shape: tuple[int, int]


@dataclass(frozen=True)
class PairSums:
    """All that a metric may need of a pair of models, over all n samples.

    Neighbor family: `joint` `[Lx, Ly]` or `[S, Lx, Ly]`, the metric's own sums over rows, and where it
    has them `own_x` `[S, Lx]` and `own_y` `[S, Ly]`, those of each layer with itself. Kernel family:
    `inner` `[Lx, Ly] float64` Σ_{i≠j} K_ij L_ij, with the unary states of both sides. Rows family:
    `states`.
    """

    n: int
    joint: Tensor | None = None
    inner: Tensor | None = None
    x: KernelRows | None = None
    y: KernelRows | None = None
    own_x: Tensor | None = None
    own_y: Tensor | None = None
    states: LayerStates | None = None


@dataclass(frozen=True)
class NeighborRows:
    """One side of what a neighbor metric sees of a pair: a block of rows of a model's tables.

    `ids` `[L, b, k] int64`, nearest first, k the metric's own; `start` is the block's first row. `table`
    `[L, n, k]` holds all rows, for a side that the metric declares in `whole`; else None. `links` are
    those of all rows, for a metric that goes on with `similarities`; else None.
    """

    ids: Tensor
    start: int
    table: Tensor | None = None
    links: Links | None = None

    @property
    def rows(self) -> slice:
        """The rows of the block."""
        return slice(self.start, self.start + self.ids.shape[1])
