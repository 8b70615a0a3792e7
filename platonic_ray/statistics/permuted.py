"""The null of kernel metrics, scored from inner products of permuted kernels.

Permuting the samples of one model permutes its row sums and its diagonal, and changes no self term; Σ K ∘ L
under permutations is `kernels.rotated_inner` or, of others than rotations, `kernels.permuted_inner`. The
metric's own scorer does the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from platonic_ray.kernels import MOST_PERMUTED, Rotations, permuted_inner, rotated_inner
from platonic_ray.kernels.rotations import Squares
from platonic_ray.metrics import KernelRows, Metric, PairSums

SLACK = 1e-5
"""The rounding of a permuted score: cells are multiplied in float32. See `calibrate_best`."""

_LAYERS = 128  # of the permuted side that are scored at a time


def has_kernel_null(metric: Metric, n: int) -> bool:
    """Whether a metric's null is made of permuted kernels, of so many samples."""
    return metric.kernel is not None and metric.symmetric and n <= MOST_PERMUTED


def permuted_products(
    square: Squares,
    layers: Mapping[Any, int],
    pairs: Collection[tuple[Any, Any]],
    draws: Rotations | Tensor,
) -> dict[tuple[Any, Any], Tensor]:
    """Return Σ_{i≠j} K_ij L_π(i)π(j) of every layer pair of pairs of models, `[K, Lx, Ly] float64`.

    :param square: makes the cells of a layer of a model, `[n, n]`.
    :param layers: how many every model has.
    :param draws: of `Null.draws`.
    """
    if isinstance(draws, Rotations):
        return rotated_inner(square, layers, pairs, draws)
    return permuted_inner(square, layers, pairs, draws)


def kernel_null_scores(
    metric: Metric, inner: Tensor, x: KernelRows, y: KernelRows, perms: Tensor
) -> npt.NDArray[np.float64]:
    """Return the best score of a kernel metric over all layer pairs under every permutation, `[K] float64`.

    :param inner: `[K, Lx, Ly] float64`, Σ_{i≠j} K_ij L_π(i)π(j).
    :param x: unary state of the first model, as `y` of the second, whose samples are permuted.
    :param perms: `[K, n] int64`.
    """
    (count, layers_x, layers), n = inner.shape, perms.shape[1]
    step = max(1, _LAYERS // max(1, layers))
    found = []
    for start in range(0, count, step):
        some = perms[start : start + step]
        size = len(some)
        # The layers of y under every permutation, one permutation after another.
        moved = KernelRows(
            row_sums=y.row_sums[:, some].transpose(0, 1).reshape(size * layers, n),
            diagonal=y.diagonal[:, some].transpose(0, 1).reshape(size * layers, n),
            squares=y.squares.repeat(size),
        )
        products = inner[start : start + step].transpose(0, 1).reshape(layers_x, size * layers)
        scores, _ = metric.score(PairSums(n, inner=products, x=x, y=moved))
        by_permutation = scores.reshape(layers_x, size, layers).swapaxes(0, 1)
        found += [metric.best(each)[0] for each in by_permutation]
    return np.array(found)
