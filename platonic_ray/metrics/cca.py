"""Metrics of canonical correlations: between leading directions (SVCCA), or weighted by what they hold.

The canonical correlations of two centered representations are the singular values of Q_xᵀ Q_y, Q an
orthonormal basis of the space of a representation's columns (Björck & Golub 1973). Two such spaces, of
r_x and r_y of the n − 1 dimensions there are, share at least r_x + r_y − (n − 1), and so many
correlations are 1 whatever the data; where one rank reaches n − 1, all are. Status says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels import MICRO, tree_sum
from platonic_ray.metrics.rows import centered, constants, cross, reduced, rows_metric, square_sum
from platonic_ray.metrics.states import State

_TIED = 1e-9  # correlations that differ by less are equal, and their directions arbitrary
_GAP = 1e-9  # singular values likewise, relative to the first


def _left_vectors(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return left singular vectors `[n, m]` and singular values `[m]` of `[n, D] float64`, m = min(n, D)."""
    left, values, _ = torch.linalg.svd(reduced(columns), full_matrices=False)
    return left, values


def _permute(state: State, order: Tensor) -> State:
    return {**state, "basis": state["basis"][order]}


def _trivial(n: int, ranks: tuple[int, int]) -> str | None:
    """Say how many canonical correlations are 1 because of the ranks alone."""
    shared = sum(ranks) - (n - 1)
    if shared <= 0:
        return None
    return f"{shared} of {min(ranks)} correlations are 1 whatever the data: ranks {ranks[0]} + {ranks[1]} > n − 1"


# -- SVCCA ---------------------------------------------------------------------------------------------


def _standardized(rows: Tensor) -> Tensor:
    moved = centered(rows)
    spread = (tree_sum(part.square().sum(0) for part in moved.split(MICRO)) / (rows.shape[0] - 1)).sqrt()
    return moved / (spread + 1e-8)


def _leading_at_random(rows: Tensor, digest: str, options: Mapping[str, Any]) -> State:
    """Keep a randomized approximation of the same (Halko et al. 2011, algorithms 4.4 and 5.1).

    As `torch.svd_lowrank` with q = c and two power iterations; seeded by the layer's digest.
    """
    columns, count = _standardized(rows), options["components"]
    drawn = torch.Generator().manual_seed(int(digest[:8], 16))
    start = torch.randn(rows.shape[0], min(count, *rows.shape), generator=drawn, dtype=torch.float64)
    basis = torch.linalg.qr(columns.T @ start).Q
    for _ in range(2):
        basis = torch.linalg.qr(columns @ basis).Q
        basis = torch.linalg.qr(columns.T @ basis).Q
    left, values = _left_vectors(columns @ basis)
    rank = int((values > max(rows.shape) * torch.finfo(torch.float64).eps * values[0]).sum())
    return {"basis": left[:, : min(count, rank)].contiguous(), "tied": torch.tensor([False])}


def _leading(rows: Tensor, digest: str, options: Mapping[str, Any]) -> State:
    """Keep the leading left singular vectors, `basis` `[n, ≤ c]`, and whether they are `tied` with the next."""
    n, width = rows.shape
    left, values = _left_vectors(_standardized(rows))
    rank = int((values > max(n, width) * torch.finfo(torch.float64).eps * values[0]).sum())
    kept = min(options["components"], rank)
    tied = 0 < kept < rank and bool(values[kept - 1] - values[kept] <= _GAP * values[0])
    return {"basis": left[:, :kept], "tied": torch.tensor([tied])}


def _svcca(x: State, y: State, options: Mapping[str, Any]) -> tuple[float, str | None]:
    ranks = (x["basis"].shape[1], y["basis"].shape[1])
    reason = constants(ranks[0] == 0, ranks[1] == 0)
    if reason:
        return nan, reason
    correlations = torch.linalg.svdvals(cross(x["basis"], y["basis"])).clamp(max=1)
    said = [_trivial(x["basis"].shape[0], ranks)]
    if min(ranks) < options["components"]:
        said.append(f"{min(ranks)} components instead of {options['components']}: that is the rank")
    for side, state, kept in (("x", x, ranks[0]), ("y", y, ranks[1])):
        if state["tied"].item():
            said.append(
                f"{side}: singular values {kept} and {kept + 1} are equal, the leading directions arbitrary"
            )
    return float(correlations.mean()), "; ".join(text for text in said if text) or None


def _refuse(options: Mapping[str, Any], n: int | None) -> str | None:
    count = options["components"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return f"components must be a whole number of at least 1 (given: {count!r})."
    if n is not None and count >= n - 1:
        return (
            f"{count} components of {n} samples are all the directions there are, and any two such sets agree. "
            f"Take at most {n - 2} components, better less than {n // 2}, or more samples."
        )
    return None


def _svcca_flops(n: int, dx: int, dy: int) -> float:
    return 1e7 + 200.0 * n


SVCCA = rows_metric(
    name="svcca",
    bounds=(0.0, 1.0),
    min_samples=3,
    description="mean canonical correlation of the leading singular directions of standardized columns",
    cost="a QR and a singular value decomposition a layer, about 1 s at n = D = 1,024; then n c² a layer pair",
    unary=_leading,
    pair=_svcca,
    permute=_permute,
    options={"components": 10},
    refuse=_refuse,
    pair_flops=_svcca_flops,
    reference={"unary": _leading_at_random},
)
"""Columns centered and divided by their sample standard deviation (+1e-8); the `components` = c leading
left singular vectors of each side; the mean of the canonical correlations between them (Raghu et al.
2017, in the form of Huh et al. 2024). The decomposition is exact. A direction whose singular value is
0 to rounding is none: of a rank below c the mean is over so many, and status says so.

The reference's decomposition is randomized, unseeded, and its subspace biased, so that its scores are lower
and move from run to run; under `compat` ours is randomized likewise, and seeded."""


# -- PWCCA ---------------------------------------------------------------------------------------------


def _whole_space(rows: Tensor, digest: str, options: Mapping[str, Any]) -> State:
    """Keep an orthonormal `basis` `[n, r]` of the columns, and the columns in it, `held` `[r, D]`.

    A direction counts if its singular value exceeds 2⁻²⁴ ‖X‖, X not yet centered: so much may come of
    rounding to float32, and CCA would weigh it like any other. Of a rank that reaches n − 1 only that
    is kept.
    """
    moved = centered(rows)
    left, values = _left_vectors(moved)
    rank = int((values > 2.0**-24 * square_sum(rows.double()).sqrt()).sum())
    basis = left[:, : rank if rank < rows.shape[0] - 1 else 0].contiguous()
    return {"basis": basis, "held": cross(basis, moved), "rank": torch.tensor([rank])}


def _pwcca(x: State, y: State, options: Mapping[str, Any]) -> tuple[float, str | None]:
    n, ranks = x["basis"].shape[0], (int(x["rank"]), int(y["rank"]))
    reason = constants(ranks[0] == 0, ranks[1] == 0)
    if reason is None and max(ranks) >= n - 1:
        reason = "; ".join(
            f"{side}: its rank reaches n − 1 = {n - 1}, every canonical correlation is 1"
            for side, rank in zip("xy", ranks, strict=True)
            if rank >= n - 1
        )
    if reason:
        return nan, reason
    left, correlations, _ = torch.linalg.svd(cross(x["basis"], y["basis"]), full_matrices=False)
    correlations = correlations.clamp(max=1)
    held = _principal(left.T @ x["held"], correlations)
    weights = held.abs().sum(1)
    return float((weights * correlations).sum() / weights.sum()), _trivial(n, ranks)


def _principal(held: Tensor, correlations: Tensor) -> Tensor:
    """Return what directions hold of the columns, `[m, D]`, those of equal correlations along principal axes.

    Equal correlations leave their directions undetermined up to a rotation among them, which the
    weights would follow.
    """
    starts = [0, *(((correlations[:-1] - correlations[1:]) > _TIED).nonzero().flatten() + 1).tolist()]
    turned = held.clone()
    for start, stop in zip(starts, [*starts[1:], correlations.shape[0]], strict=True):
        if stop - start > 1:
            group = held[start:stop]
            turned[start:stop] = torch.linalg.eigh(group @ group.T).eigenvectors.T @ group
    return turned


def _pwcca_flops(n: int, dx: int, dy: int) -> float:
    a, b = min(n, dx), min(n, dy)
    return 2.0 * n * a * b + 10.0 * a * b * min(a, b) + 2.0 * a * min(a, b) * dx


PWCCA = rows_metric(
    name="pwcca",
    bounds=(0.0, 1.0),
    min_samples=4,
    description="mean canonical correlation, each weighted by what its direction holds of x's columns",
    cost="a QR and a singular value decomposition a layer, about 1 s at n = D = 1,024; then n Dx Dy and a "
    "decomposition of Dx × Dy a layer pair: about 0.5 s at widths of 768",
    symmetric=False,
    unary=_whole_space,
    pair=_pwcca,
    permute=_permute,
    pair_flops=_pwcca_flops,
)
"""Σ α_i ρ_i / Σ α_i with α_i = Σ_j |⟨h_i, x_j⟩|: ρ_i the canonical correlations, h_i the canonical
variates of x (of length 1), x_j its centered columns (Morcos et al. 2018, eq. 3 and 4).

x is always the side that weighs (the authors' code takes the side of fewer directions). The weights
depend on x's coordinate axes, so a rotation of x changes the score; anything invertible that is done to
y does not. The directions of equal correlations are taken along x's principal axes among them, so that
the score is defined there too. NaN where a rank reaches n − 1, as it does for most language models at
n = 1,024."""

METRICS = (SVCCA, PWCCA)
