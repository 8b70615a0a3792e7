"""How many rows a block has: the planner's one choice, which changes no number.

Pure: a function of the number of samples.
"""

from __future__ import annotations

from platonic_ray.kernels import MICRO

_MOST_BLOCKS = 4
_LARGEST_BLOCK = 4096


def choose_block_rows(n: int) -> int:
    """Return the rows of a block: few blocks where n is small, so that small problems stay small.

    >>> choose_block_rows(100), choose_block_rows(1300), choose_block_rows(1_000_000)
    (256, 512, 4096)
    """
    rows = MICRO
    while rows * _MOST_BLOCKS < n and rows < _LARGEST_BLOCK:
        rows *= 2
    return rows
