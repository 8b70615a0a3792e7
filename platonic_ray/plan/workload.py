"""A study as its planner sees it: shapes alone. Pure, and of the same size whatever the number of tasks.

`Workload.of` takes the shapes of a plan that is to be run; `scales` has those of runs that nobody has
made yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from platonic_ray.kernels import CLAMPED, MOST_PERMUTED, Kernel
from platonic_ray.plan.blocks import TASK_BYTES, choose_block_rows, choose_product_rows
from platonic_ray.plan.plan import Plan

VALUE_BYTES = {"float32": 4, "float16": 2}
"""What a stored feature takes, by the study's `features`."""


@dataclass(frozen=True)
class ModelShape:
    """What a model costs: the width of every layer that is kept, its parameters, tokens a sample.

    `weight_bytes` are those of the network as it is loaded. Features that exist already have no
    parameters.
    """

    name: str
    widths: tuple[int, ...]
    parameters: int = 0
    weight_bytes: int = 0
    tokens: float = 0.0

    @property
    def width(self) -> int:
        """The sum of the widths of all layers: values a sample."""
        return sum(self.widths)

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self.widths)

    @property
    def sample_flops(self) -> float:
        """Floating-point operations to embed one sample: two for each parameter and token."""
        return 2.0 * self.parameters * self.tokens


@dataclass(frozen=True)
class Workload:
    """The shapes of everything a study computes.

    `k` is the largest k (None: no neighbors are wanted) and `neighbor_metrics` how many metrics use it;
    `permutations` of neighbors are drawn for each; `permuted` are (kernel, permutations). `row_layers` is
    how many layers of a model the rows family takes, 0 for none. With `queries`, only so many rows ask
    for neighbors, and the gallery is read once, as a stream. Linear kernels are summed as D × D products in
    one pass over ranges of `product_rows` rows, where that is not 0, instead of by tiles; with `covariances`,
    in trees of pairs and ranges, for more of them than a study's tasks would hold. `by_layer` cuts tiles of
    neighbors by layer too. A feature is stored, and read again, in `value_bytes`.
    """

    n: int
    shard_rows: int
    block_rows: int
    models: tuple[ModelShape, ...]
    k: int | None = None
    row_sums: bool = False
    neighbor_metrics: int = 0
    permutations: int = 0
    kernels: tuple[Kernel, ...] = ()
    permuted: tuple[tuple[Kernel, int], ...] = ()
    row_layers: int = 0
    clamped: bool = False
    queries: int | None = None
    product_rows: int = 0
    covariances: bool = False
    by_layer: bool = False
    value_bytes: int = 4

    @classmethod
    def of(
        cls,
        plan: Plan,
        shapes: Sequence[ModelShape],
        *,
        neighbor_metrics: int = 0,
        permutations: int = 0,
        row_layers: int = 0,
        value_bytes: int = 4,
    ) -> Workload:
        """Return the shapes of a plan whose models have these."""
        drawn: dict[Kernel, int] = {}
        for task in plan.permuted:
            drawn[task.kernel] = max(drawn.get(task.kernel, 0), task.stop)
        return cls(
            n=plan.n,
            shard_rows=plan.shard_rows,
            block_rows=plan.block_rows,
            models=tuple(shapes),
            k=plan.k,
            row_sums=plan.row_sums,
            neighbor_metrics=neighbor_metrics,
            permutations=permutations,
            kernels=plan.kernels,
            permuted=tuple(drawn.items()),
            row_layers=row_layers if plan.states or plan.winners else 0,
            clamped=plan.recipe in CLAMPED,
            product_rows=plan.product_rows,
            value_bytes=value_bytes,
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """For each model, the sum of the widths of its layers."""
        return tuple(model.width for model in self.models)

    @property
    def feature_bytes(self) -> int:
        """Bytes of all features, as they are stored."""
        return self.value_bytes * self.n * sum(self.widths)

    @property
    def pairs(self) -> int:
        """Pairs of models, each with itself included."""
        return len(self.models) * (len(self.models) + 1) // 2

    def at(self, n: int, task_bytes: float = TASK_BYTES) -> Workload:
        """Return the same study of n samples, in blocks that the planner would choose for them."""
        widths = [model.widths for model in self.models]
        # As `prepare` chooses them.
        products = {kernel: choose_product_rows(n, widths, kernel) for kernel in self.kernels}
        kernels = not all(products.values()) and not self.covariances
        rows = choose_block_rows(n, widths, self.k, kernels, task_bytes)
        ranges = [choose_product_rows(n, widths, kernel, rows) for kernel in self.kernels if products[kernel]]
        permuted = self.permuted if n <= MOST_PERMUTED else ()  # there is no such null beyond
        return replace(self, n=n, block_rows=rows, product_rows=max(ranges, default=0), permuted=permuted)
