"""HSIC from sums over two kernels, and the score that two representations' HSICs are normalized to.

With kernels K and L of n samples (not necessarily symmetric), their inner product Σ_ij K_ij L_ji, the
product of their sides Σ_j (Σ_i K_ij)(Σ_i L_ji), and their totals S (Kornblith et al. 2019 for the biased
form; Song et al. 2012, eq. 5, for the unbiased one, whose kernels have no diagonal):

    HSIC_b n²      = Σ K∘Lᵀ − (2/n) Σ_j c^K_j r^L_j + S^K S^L / n²
    HSIC_u n (n−3) = Σ K∘Lᵀ + S^K S^L / ((n−1)(n−2)) − 2 Σ_j c^K_j r^L_j / (n−2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from platonic_ray.kernels import MICRO, gamma
from platonic_ray.metrics.base import Scored, Status, no_status

NOT_POSITIVE = "self term not positive"

NO_SCALE = "median distance is zero"
OVERFLOW = 'sums overflow; take precision = "float64"'

ROUNDING = gamma(2 * (2 * MICRO**2 + 128))
"""A self term is a difference of sums; it is told from 0 only if it exceeds the rounding of their terms.

A term is a dot of at most MICRO² numbers (the width), added up over at most MICRO² cells of a micro-tile
in an order we do not know; the tree over tiles adds 128 levels at most.
"""

_ROUNDING_FLOAT32 = 1e-6
"""The same of float32 products, of which that bound says nothing: their errors are independent and add up
to far less; below this, no digit that is left would be trusted.
"""


@dataclass(frozen=True)
class Trust:
    """When a self term is not to be divided by: at no more than `least` of its terms, or not finite."""

    least: float
    lost: str

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Trust:
        """Return what the options of a kernel metric imply.

        Cells of an RBF cannot overflow, and are numbers unless their width is a multiple of 0.
        """
        least = ROUNDING if options["precision"] == "float64" else _ROUNDING_FLOAT32
        return cls(least, NO_SCALE if options.get("kernel") == "rbf" else OVERFLOW)


@dataclass(frozen=True)
class Hsic:
    """An unnormalized HSIC and the size of the terms it is a difference of, both `[…] float64`."""

    value: Tensor
    terms: Tensor


def biased(n: int, inner: Tensor, sides: Tensor, totals: Tensor) -> Hsic:
    """Return HSIC_b n² from the inner product, the product of sides and the product of totals."""
    second, third = 2 / n * sides, totals / n / n
    return Hsic(inner - second + third, inner.abs() + second.abs() + third.abs())


def unbiased(n: int, inner: Tensor, sides: Tensor, totals: Tensor) -> Hsic:
    """Return HSIC_u n (n − 3) from the same; n ≥ 3."""
    second, third = 2 / (n - 2) * sides, totals / (n - 1) / (n - 2)
    return Hsic(inner - second + third, inner.abs() + second.abs() + third.abs())


Self = tuple[Tensor, list[str | None]]
"""A model's self terms `[L] float64`, and why a layer's is not to be divided by."""


def self_term(hsic: Hsic, trust: Trust, why: str) -> Self:
    """Return the self terms of a model's layers, with the reason `why` where one is lost in rounding."""
    reasons: list[str | None] = []
    for value, terms in zip(hsic.value.tolist(), hsic.terms.tolist(), strict=True):
        low = why if value <= trust.least * terms else None
        reasons.append(low if np.isfinite(terms) else trust.lost)
    return hsic.value, reasons


def normalized(cross: Tensor, self_x: Self, self_y: Self, bounds: tuple[float, float]) -> Scored:
    """Return cross / √(self of x · self of y), NaN with a reason where a self term is no divisor.

    :param cross: `[Lx, Ly] float64`.
    :param bounds: where the exact score lies; rounding may carry it past them by an ulp.
    """
    (value_x, why_x), (value_y, why_y) = self_x, self_y
    # Two roots, because the product of self terms can leave float64's range.
    below = torch.outer(value_x.clamp(min=0).sqrt(), value_y.clamp(min=0).sqrt())
    scores = (cross / below).clamp(*bounds).cpu().numpy()
    scores[[why is not None for why in why_x]] = np.nan
    scores[:, [why is not None for why in why_y]] = np.nan
    return scores, _status(why_x, why_y)


def _status(why_x: list[str | None], why_y: list[str | None]) -> Status:
    if not any(why_x) and not any(why_y):
        return no_status((len(why_x), len(why_y)))
    return [
        ["; ".join(f"{side}: {why}" for side, why in (("x", x), ("y", y)) if why) or None for y in why_y]
        for x in why_x
    ]


def with_epsilon(cross: Tensor, self_x: Self, self_y: Self, divisor: float = 1.0) -> Scored:
    """Return cross / (√(self of x · self of y) + 1e-6), as the code of Huh et al. normalizes.

    Self terms are divided by nothing but 1e-6 where they are 0, and two negative ones have a root: the
    number is what that arithmetic gives, and the status says what is odd about it.

    :param divisor: what that code divides each HSIC by before the 1e-6 is added.
    """
    (value_x, why_x), (value_y, why_y) = self_x, self_y
    below = torch.outer(value_x / divisor, value_y / divisor).sqrt() + 1e-6
    scores = (cross / divisor / below).cpu().numpy()
    return scores, _status(why_x, why_y)
