"""Row sums of linear kernels without the kernels: Σ_j K_ij = x_i · Σ_j x_j, block by block.

For each block of the fixed grid of `MICRO` rows, the sum of its rows is dotted with x_i, and these are
added in the fixed tree, so that no cut into tiles changes a bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from platonic_ray.kernels.grams import MICRO, one_thread
from platonic_ray.kernels.trees import tree_sum


def kernel_row_sums(rows: Sequence[Tensor], gallery: Sequence[Tensor]) -> Tensor:
    """Return Σ_j x_i · y_j over the rows y of a gallery, of every layer: `[L, rows] float64`.

    Sums over galleries that are consecutive runs of 2^m blocks are merged by `tree_sum`.

    :param rows: `[rows, D_l] float32` a layer, from a row that is a multiple of `MICRO`.
    :param gallery: the same of the other rows, likewise.

    >>> kernel_row_sums([torch.eye(2)], [torch.ones(3, 2)]).tolist()
    [[3.0, 3.0]]
    """
    with one_thread():
        return torch.stack([_layer(mine, other) for mine, other in zip(rows, gallery, strict=True)])


def _layer(rows: Tensor, gallery: Tensor) -> Tensor:
    sums = [block.double().sum(0) for block in gallery.split(MICRO)]
    # Blocks of one size in memory of their own: a product's bytes may depend on both.
    blocks = [block.to(torch.float64, copy=True) for block in rows.split(MICRO)]
    return torch.cat([tree_sum(block @ total for total in sums) for block in blocks])
