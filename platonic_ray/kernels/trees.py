"""The fixed trees in which micro-tile contributions are added, whatever a plan groups together.

Floating-point addition is not associative, so byte-equal results need one order that no grouping
changes. Blocks of rows are numbered 0 … B − 1; node (level m, a, b) covers the aligned square of
blocks [a 2^m, (a + 1) 2^m) × [b 2^m, (b + 1) 2^m). Kernels are symmetric, so only nodes with a ≤ b
exist, and only where both intervals begin below B.

- 2-D sums: a node is ((c00 + c01) + c10) + c11 over its children (2a, 2b), (2a, 2b + 1),
  (2a + 1, 2b), (2a + 1, 2b + 1); children that do not exist are skipped.
- 1-D sums: a node is left + right over aligned intervals; a right child that does not exist is
  skipped.

Every aligned square of 2^m × 2^m micro-tiles is a whole subtree: a task may compute it alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def children(level: int, a: int, b: int, blocks: int) -> list[tuple[int, int]]:
    """Return the coordinates of the children of node (level ≥ 1, a, b), in the order they add."""
    below = (blocks - 1) >> (level - 1)  # the last coordinate at the children's level
    four = [(2 * a + i, 2 * b + j) for i in (0, 1) for j in (0, 1)]
    return [(i, j) for i, j in four if i <= j <= below]


def root_level(blocks: int) -> int:
    """Return the lowest level at which one node covers all blocks.

    >>> [root_level(blocks) for blocks in (1, 2, 3, 4, 5)]
    [0, 1, 2, 2, 3]
    """
    return (blocks - 1).bit_length()


def tree_sum(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of one tensor a block in the binary tree over aligned intervals.

    Holds one partial sum a level at a time, so the parts may be made as they are asked for.

    :param parts: one tensor for each of the blocks 0 … B − 1, at least one.
    """
    done: list[tuple[int, Tensor]] = []  # complete subtrees, left to right, each larger than the next
    for part in parts:
        level, total = 0, part
        while done and done[-1][0] == level:
            total = done.pop()[1] + total
            level += 1
        done.append((level, total))
    _, total = done.pop()
    while done:
        total = done.pop()[1] + total
    return total
