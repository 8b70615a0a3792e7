"""How many rows a block has, and whether linear kernels are summed by blocks at all. Pure.

The first changes no number; products of rows in place of tiles change scores by rounding alone. Both are
functions of the study and of its memory for a task alone, not of the machine: keys of what is stored name
rows, and what one machine has stored another is to find.
"""

from __future__ import annotations

from collections.abc import Sequence

from platonic_ray.kernels import LEAF, MICRO, Kernel, product_bytes, worthwhile

TASK_BYTES = 2 * 2**30
"""The memory that a task on tiles may take beside its process, where a study does not say."""

SCRATCH_BYTES = 256 * 2**20
"""What searching and summing take at a time, whatever the block."""

PANEL_BYTES = 2**30
"""The most that kernel cells take at a time."""

ID_BYTES = 16
"""An id and its similarity."""

_FEW_BLOCKS = 4
_USUAL_BLOCK = 8192
_MANY_BLOCKS = 16
_PARTIAL_SHARE = 0.05  # of the bytes of the features: so much may products of ranges take in the store
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


def choose_product_rows(
    n: int, widths: Sequence[Sequence[int]], kernel: Kernel, block_rows: int = MICRO
) -> int:
    """Return the rows of a range whose D × D products are one task; 0 where tiles are less work.

    Ranges are 2^m leaves of the products' tree and no shorter than a block. There are sixteen at most, and
    fewer where what they leave behind would not be small beside the features.

    :param widths: the widths of the layers of every model; unknown where empty.

    >>> choose_product_rows(1_000_000, [[384], [384]], Kernel()), choose_product_rows(1024, [[384], [384]], Kernel())
    (65536, 0)
    """
    models = dict(enumerate(widths))
    pairs = [(x, y) for y in models for x in range(y + 1)]
    if not widths or not worthwhile(models, pairs, n, kernel):
        return 0
    products, room = product_bytes(models, pairs), _PARTIAL_SHARE * 4 * n * sum(map(sum, widths))
    if products > 2 * room:
        return 0
    rows = LEAF
    while rows < n and (rows < block_rows or rows * _MANY_BLOCKS < n or -(-n // rows) * products > room):
        rows *= 2
    return rows


def products_bytes(width: int, products: float, rows: int = LEAF) -> float:
    """Return the memory of a task of products: a leaf of rows of all models, and the products that are held.

    :param width: values a row of all models.
    """
    return 4.0 * _COPIES * rows * width + 8 * products + SCRATCH_BYTES
