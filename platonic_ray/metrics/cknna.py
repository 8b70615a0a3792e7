"""Centered kernel nearest-neighbor alignment: similarities compared among shared neighbors alone.

With m_ij = 1 iff j ∈ S_X(i) ∩ S_Y(i), K = X Xᵀ and L = Y Yᵀ, there are two definitions, and they give
different numbers:

- `cknna` is what the code of Huh et al. (2024) computes, and what figures made with it show: HSIC_u of
  m∘K and m∘L, over √ of the same of each side with itself, where m holds the side's own neighbors. m is
  not symmetric: the inner product Σ_ij (m∘K)_ij (m∘L)_ji counts neighbors that are mutual in both, and
  1ᵀ(m∘K)(m∘L)1 depends, a little, on the order of the arguments. The self terms have other masks than
  the cross term, so Cauchy–Schwarz does not apply, and no bound holds.
- `cknna_paper` is what the paper's equations 16–18 say: Σ_ij m_ij K̄_ij L̄_ij over √ of the same of each
  side with itself, with K̄_ij = K_ij − Σ_l K_il / n (the mean over all n samples, i included). The terms of
  a self term are squares, and its mask holds at least the shared neighbors: so Cauchy–Schwarz does apply,
  and the score lies between −1 and 1.

Both need how near neighbors are, the canonical inner products, and nothing of other pairs of samples,
but for the row means of the paper's form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels import (
    linked_products,
    masked_kernel_sums,
    one_thread,
    own_kernel_sums,
    own_products,
)
from platonic_ray.metrics.base import Metric, Scored
from platonic_ray.metrics.hsic import NOT_POSITIVE, ROUNDING, Hsic, Self, normalized, unbiased, with_epsilon
from platonic_ray.metrics.states import NeighborRows, Neighbors, PairSums


def _joint(x: NeighborRows, y: NeighborRows) -> Tensor:
    assert x.links is not None
    assert y.links is not None
    return masked_kernel_sums(x.links, y.links, x.rows)


def _joint_turned(x: NeighborRows, y: NeighborRows) -> Tensor:
    return _joint(y, x).transpose(1, 2)


def _own(x: Neighbors, k: int) -> Tensor:
    return own_kernel_sums(x.links(k, "plain"))


def _joint_paper(x: NeighborRows, y: NeighborRows) -> Tensor:
    assert x.links is not None
    assert y.links is not None
    return linked_products(x.links, y.links, x.rows)


def _own_paper(x: Neighbors, k: int) -> Tensor:
    assert x.row_sums is not None
    # Beside the sum of squares, that of what they are differences of: it says what rounding can leave.
    n = x.ids.shape[1]
    terms = x.values[..., :k].abs() + (x.row_sums / n).abs()[..., None]
    with one_thread():
        return torch.stack([own_products(x.links(k, "centered")), terms.square().sum((1, 2))])


def _score(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    cross, own_x, own_y = _hsics(sums)
    return normalized(cross.value, _self(own_x), _self(own_y), CKNNA.bounds)


def _score_reference(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    cross, own_x, own_y = _hsics(sums)
    return with_epsilon(cross.value, _self(own_x), _self(own_y), sums.n * (sums.n - 3))


def _hsics(sums: PairSums) -> tuple[Hsic, Hsic, Hsic]:
    """Return HSIC_u n (n − 3) of a pair `[Lx, Ly]` and of each side with itself, `[Lx]` and `[Ly]`."""
    assert sums.joint is not None
    inner, total_x, total_y, sides = sums.joint
    return (
        unbiased(sums.n, inner, sides, total_x * total_y),
        _own_hsic(sums.own_x, sums),
        _own_hsic(sums.own_y, sums),
    )


def _own_hsic(own: Tensor | None, sums: PairSums) -> Hsic:
    assert own is not None
    inner, total, sides = own
    return unbiased(sums.n, inner, sides, total.square())


def _self(own: Hsic) -> Self:
    return own.value, _not_positive(own.value, ROUNDING * own.terms)


def _score_paper(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    assert sums.joint is not None
    assert sums.own_x is not None
    assert sums.own_y is not None
    # What is left of a difference of equal numbers, squared.
    of_x, of_y = (
        (squares, _not_positive(squares, ROUNDING**2 * terms)) for squares, terms in (sums.own_x, sums.own_y)
    )
    return normalized(sums.joint, of_x, of_y, CKNNA_PAPER.bounds)


def _not_positive(value: Tensor, rounding: Tensor) -> list[str | None]:
    return [NOT_POSITIVE if low else None for low in (value <= rounding).tolist()]


_COST = "neighbors once a representation, N² D; then about N {} a layer pair, u the distinct shared neighbors"

CKNNA = Metric(
    name="cknna",
    family="neighbors",
    needs=("joint", "own_x", "own_y"),
    bounds=(-torch.inf, torch.inf),
    min_samples=4,
    description="unbiased CKA of the kernels of shared nearest neighbors, as the code of Huh et al. has it",
    cost=_COST.format("4 u"),
    scorer=_score,
    joint=_joint,
    null="masked",
    own=_own,
    similarities="plain",
    symmetric=False,
    ordered=False,
    options={"k": 10},
    reference={
        "joint": _joint_turned,
        "scorer": _score_reference,
        "null": "turned masked",
        "symmetric": True,
        "min_k": 2,
    },
)
"""HSIC_u(m∘K, m∘L) / √(HSIC_u(m_X∘K, m_X∘K) HSIC_u(m_Y∘L, m_Y∘L)), as the code of Huh et al. has it.

There, each HSIC_u is divided by n (n − 3), and 1e-6 is added to the normalizer: a representation's score
with itself is then below 1, and falls as n grows. Its tables score (x, y) as (y, x), and take a pair of
models once; k = 1 is refused.
"""

CKNNA_PAPER = Metric(
    name="cknna_paper",
    family="neighbors",
    needs=("joint", "own_x", "own_y"),
    bounds=(-1.0, 1.0),
    min_samples=4,
    description="correlation of row-centered similarities over shared nearest neighbors, as the paper has it",
    cost=_COST.format("u"),
    scorer=_score_paper,
    joint=_joint_paper,
    null="products",
    own=_own_paper,
    similarities="centered",
    ordered=False,
    options={"k": 10},
)
"""Σ m_ij K̄_ij L̄_ij / √(Σ m^X_ij K̄_ij² Σ m^Y_ij L̄_ij²) (Huh et al. 2024, eq. 16–18)."""
