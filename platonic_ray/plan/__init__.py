"""Pure planning: shapes and keys in; tasks, costs and forecasts out (docs/scaling.md says how it thinks)."""

from platonic_ray.plan.blocks import choose_block_rows, choose_product_rows
from platonic_ray.plan.graph import TaskGraph
from platonic_ray.plan.keys import PlannedModel, features_key
from platonic_ray.plan.plan import Plan, found, needed
from platonic_ray.plan.tasks import (
    Clamp,
    ColumnSums,
    Embed,
    KernelProducts,
    KernelTile,
    NeighborBlock,
    NeighborTile,
    PermutedKernel,
    RowState,
    Scale,
    Score,
    Span,
    Task,
    cut,
    permuted_kernels,
)

__all__ = [
    "Clamp",
    "ColumnSums",
    "Embed",
    "KernelProducts",
    "KernelTile",
    "NeighborBlock",
    "NeighborTile",
    "PermutedKernel",
    "Plan",
    "PlannedModel",
    "RowState",
    "Scale",
    "Score",
    "Span",
    "Task",
    "TaskGraph",
    "choose_block_rows",
    "choose_product_rows",
    "cut",
    "features_key",
    "found",
    "needed",
    "permuted_kernels",
]
