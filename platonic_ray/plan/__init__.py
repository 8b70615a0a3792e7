"""Pure planning: shapes and keys in, tasks out. See `platonic_ray.plan.plan`."""

from platonic_ray.plan.graph import TaskGraph
from platonic_ray.plan.plan import (
    Clamp,
    Embed,
    KernelTile,
    NeighborBlock,
    NeighborTile,
    Plan,
    PlannedModel,
    Scale,
    Score,
    Span,
    Task,
    choose_block_rows,
    cut,
    features_key,
    found,
    needed,
)

__all__ = [
    "Clamp",
    "Embed",
    "KernelTile",
    "NeighborBlock",
    "NeighborTile",
    "Plan",
    "PlannedModel",
    "Scale",
    "Score",
    "Span",
    "Task",
    "TaskGraph",
    "choose_block_rows",
    "cut",
    "features_key",
    "found",
    "needed",
]
