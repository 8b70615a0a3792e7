"""How many rows a block has: the planner's one choice, which changes no number. Pure.

A function of the study and of its memory for a task alone, not of the machine: keys of what is stored
name the rows of blocks, and what one machine has stored another is to find.
"""

from __future__ import annotations

from collections.abc import Sequence

from platonic_ray.kernels import MICRO

TASK_BYTES = 2 * 2**30
"""The memory that a task on tiles may take beside its process, where a study does not say."""

SCRATCH_BYTES = 256 * 2**20
"""What searching and summing take at a time, whatever the block."""

PANEL_BYTES = 2**30
"""The most that kernel cells take at a time."""

ID_BYTES = 16
"""An id and its similarity."""

_FEW_BLOCKS = 4
_USUAL_BLOCK = 4096
_MANY_BLOCKS = 16
_COPIES = 2.5  # shards as they came, the rows prepared, and a block on its way from one to the other


def neighbor_tile_bytes(rows: int, width: int, layers: int, k: int, blocks: int = 2) -> float:
    """Return the memory of a tile of neighbors of one model, of one block of rows or of two."""
    kept = blocks * rows * layers * (k + 1) * ID_BYTES
    return 4.0 * _COPIES * blocks * rows * width + kept + SCRATCH_BYTES


def kernel_tile_bytes(rows: int, width: int, layers: int, blocks: int = 3) -> float:
    """Return the memory of a kernel tile of all models: its blocks, and the first for the origin."""
    panel = min(PANEL_BYTES, 16 * MICRO**2 * layers)
    return 4.0 * _COPIES * blocks * rows * width + panel + SCRATCH_BYTES


def choose_block_rows(
    n: int,
    widths: Sequence[Sequence[int]] = (),
    k: int | None = None,
    kernels: bool = False,
    task_bytes: float = TASK_BYTES,
) -> int:
    """Return the rows of a block of a study of n samples.

    Few blocks where n is small, so that small problems stay small; where n is large no more than sixteen,
    so that what tiles leave behind, which grows with the number of blocks, stays small beside the
    features; and no larger than lets a task's rows fit its memory, if 256 do.

    :param widths: the widths of the layers of every model; unknown where empty.
    :param k: neighbors, if any are wanted.
    :param kernels: whether kernel tiles are, which hold rows of all models.

    >>> choose_block_rows(100), choose_block_rows(1300), choose_block_rows(1_000_000)
    (256, 512, 65536)
    >>> choose_block_rows(100_000, [[4096] * 33], k=10)
    512
    """

    def fits(rows: int) -> bool:
        one = [neighbor_tile_bytes(rows, sum(of), len(of), k) for of in widths if k]
        every = sum(map(sum, widths)), sum(map(len, widths))
        all_models = [kernel_tile_bytes(rows, *every)] if kernels and widths else []
        return max([*one, *all_models], default=0.0) <= task_bytes

    rows = MICRO
    while rows * _FEW_BLOCKS < n and rows < _USUAL_BLOCK:
        rows *= 2
    while rows * _MANY_BLOCKS < n and fits(2 * rows):
        rows *= 2
    while rows > MICRO and not fits(rows):
        rows //= 2
    return rows
