"""Kernels and dissimilarities between rows: what is in a cell (i, j), one micro-tile at a time.

A `Kernel` says what a cell is; an `Anchor`, one a layer, what the cells are taken about. With it
the sums keep their digits: nothing that is scored from them (CKA, distance correlation, RSA)
changes when one vector is subtracted from all rows of a linear kernel or of distances, when rows
are scaled, or when one number is subtracted from all cells. Diagonals are kept apart from cells.

    from x, y to            euclidean  ‖x − y‖          rbf  exp(−‖x − y‖² / 2σ²)
    linear  x · y           cosine  1 − cos(x, y)       correlation  1 − cos(x − mean(x), y − mean(y))

All but the linear kernel come from squared distances ‖a‖² + ‖b‖² − 2 a·b of rows about the origin.
Precision "float32" makes a·b in float32 and rounds cells to float32; everything between is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import frexp, isnan, nan
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from platonic_ray.kernels.compiled import loops_for
from platonic_ray.kernels.dot import canonical_squared_distance, canonical_squares
from platonic_ray.kernels.threads import one_thread

MICRO = 256

Stack = Sequence[Tensor]
"""The prepared rows of a model's layers, `[rows, D_l] float32` each."""

Form = Literal["linear", "rbf", "euclidean", "cosine", "correlation"]
Precision = Literal["float32", "float64"]

FORMS: tuple[Form, ...] = ("linear", "rbf", "euclidean", "cosine", "correlation")
PRECISIONS: tuple[Precision, ...] = ("float32", "float64")

# Below this share of ‖a‖² + ‖b‖², a squared distance made of float32 products has too few digits
# left for a root; below that one, of float64 products.
_NEAR = {torch.float32: 1e-3, torch.float64: 1e-6}
# Where rows are longer than this many σ, float32 products would show in the exponent of an RBF.
_MOST_SIGMAS = 4.0
# Rows about their origin are scaled, by a power of two, only where float32 cells could leave its range.
_MOST_EXPONENT = 12
_NEAR_CELLS = 4096
_COLUMNS = 4096
_SMALLEST_SQUARE = 64


@dataclass(frozen=True)
class Kernel:
    """What a cell (i, j) is made of: the form, its parameters, and the precision of products.

    An RBF has `sigma`, or `median`: σ is then that multiple of the median of the representation's
    pairwise distances, which is a pass of its own (`median_distances`). Two metrics that have equal
    kernels share their sums.
    """

    form: Form = "linear"
    sigma: float | None = None
    median: float | None = None
    precision: Precision = "float32"

    @property
    def key(self) -> dict[str, Any]:
        """The kernel as plain values, to enter digests."""
        return asdict(self)

    @property
    def label(self) -> str:
        """The kernel for people, in logs: `rbf(sigma=1.0)`."""
        given = {name: value for name, value in asdict(self).items() if name != "form" and value is not None}
        if self.precision == "float32":
            del given["precision"]
        inside = ", ".join(f"{name}={value}" for name, value in given.items())
        return f"{self.form}({inside})" if inside else self.form

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of products and cells."""
        return torch.float32 if self.precision == "float32" else torch.float64

    def at(self, n: int) -> Kernel:
        """Return the kernel as sums over n rows are made: of one micro-tile or less, in float64.

        There float64 costs nothing, and what is scored of few samples may be a small difference of sums.
        """
        return replace(self, precision="float64") if n <= MICRO else self


@dataclass(frozen=True)
class Anchor:
    """What the kernel of one layer is taken about; the same in all calls whose sums are merged.

    Rows become `scale` · (row − `origin`) (unit rows in place of rows where the form has cosines),
    and `offset` is subtracted from cells and diagonal. `sigma` is the RBF's, of rows as they were;
    NaN, and all cells with it, where the median distance that it is a multiple of is 0.
    """

    origin: Tensor
    scale: float = 1.0
    offset: float = 0.0
    sigma: float | None = None


def anchors(
    first_rows: Stack, kernel: Kernel, medians: Sequence[float] | None = None, micro: int = MICRO
) -> list[Anchor]:
    """Return the anchor of every layer, from its first `micro` rows alone.

    The origin is their mean, rounded to float32. Any vector near the rows serves; this one is known
    as soon as the first shard is, and for a constant layer it is the row itself. The offset is the
    mean of the cells between them; the linear kernel needs none beside its origin.

    :param first_rows: `[≥ min(n, micro), D_l] float32`, from row 0 of the dataset.
    :param medians: the median distance of every layer, for a kernel whose σ is a multiple of it.
    :raises ValueError: if the kernel needs medians and none are given.
    """
    if kernel.median is not None and medians is None:
        raise ValueError(f"{kernel.label} needs the median distances of the layers")
    made = []
    for layer, rows in enumerate(first_rows):
        sigma = kernel.sigma
        if kernel.median is not None and medians is not None:
            sigma = kernel.median * medians[layer] or nan
        with one_thread():
            made.append(_anchor(rows[:micro], kernel, sigma))
    return made


def kernel_tile(rows_a: Stack, rows_b: Stack, kernel: Kernel, about: Sequence[Anchor], same: bool) -> Tensor:
    """Return the cells of every layer between rows a and rows b, flattened: `[L, |a| · |b|]`.

    :param same: whether rows a are rows b; the cells of the diagonal are then 0.
    :returns: float32 or float64 after the kernel's precision.
    """
    tiles = []
    for a, b, anchor in zip(rows_a, rows_b, about, strict=True):
        side = move(a, kernel, anchor)
        tiles.append(cells(side, side if same else move(b, kernel, anchor), same).reshape(-1))
    return torch.stack(tiles)


@dataclass(frozen=True)
class Side:
    """Rows of one layer, ready for products with other rows of it."""

    kernel: Kernel
    anchor: Anchor
    rows: Tensor
    """As given, `[r, D] float32`."""
    moved: Tensor
    """About the origin and scaled, `[r, D]`, in the precision of products."""
    norms: Tensor
    """‖moved‖², `[r] float64`."""
    directed: Tensor
    """1 where a unit row could be made, 0 where the row has no direction, `[r] float64`."""

    @property
    def diagonal(self) -> Tensor:
        """What the kernel is of a row with itself, `[r] float64`."""
        if self.kernel.form == "linear":
            return self.norms
        if self.kernel.form in ("cosine", "correlation"):
            return 1.0 - self.directed - self.anchor.offset
        of_same = 1.0 if self.kernel.form == "rbf" else 0.0
        return torch.full_like(self.norms, of_same - self.anchor.offset)


def move(rows: Tensor, kernel: Kernel, anchor: Anchor) -> Side:
    """Make prepared rows `[r, D] float32` of one layer ready for `cells`."""
    dtype = kernel.dtype
    directed = torch.ones(rows.shape[0], dtype=torch.float64, device=rows.device)
    if kernel.form in ("cosine", "correlation"):
        unit, directed = _unit_rows(rows, kernel.form)
        moved = (unit - anchor.origin).to(dtype)
        return Side(kernel, anchor, rows, moved, canonical_squares(moved.double()), directed)
    shift = (anchor.origin * anchor.scale).to(dtype)
    compiled = loops_for(rows, rows.numel()) if dtype == torch.float32 else None
    if compiled is not None:
        moved = torch.empty_like(rows)
        norms = torch.empty(rows.shape[0], dtype=torch.float64)
        scale = np.float32(anchor.scale)
        compiled.moved_rows(rows.numpy(), scale, shift.numpy(), moved.numpy(), norms.numpy())
    else:
        # A fresh tensor, aligned like all others, which the bytes of a matrix product may depend on.
        moved = torch.mul(rows.to(dtype), anchor.scale).sub_(shift)
        norms = canonical_squares(moved.double())
    return Side(kernel, anchor, rows, moved, norms, directed)


def cells(a: Side, b: Side, same: bool) -> Tensor:
    """Return the cells `[|a|, |b|]` of one layer; see `kernel_tile`."""
    kernel, anchor = a.kernel, a.anchor
    if kernel.form == "linear":
        found = _square_products(a.moved) if same else _products(a.moved, b.moved)
    else:
        wide = _of_distances(kernel.form, a, b, squared_distances(a, b, same))
        found = (wide - anchor.offset).to(kernel.dtype)
    return found.fill_diagonal_(0) if same else found


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return a·b of all rows, a few columns at a time, so that both stay in a core's cache."""
    found = a[:, :_COLUMNS] @ b[:, :_COLUMNS].T
    for start in range(_COLUMNS, a.shape[1], _COLUMNS):
        found.addmm_(a[:, start : start + _COLUMNS], b[:, start : start + _COLUMNS].T)
    return found


def _square_products(a: Tensor) -> Tensor:
    """Return a·a of all rows: of halves with each other once, and so on within them."""
    half = a.shape[0] // 2
    if a.shape[0] <= _SMALLEST_SQUARE:
        return _products(a, a)
    upper, lower = a[:half], a[half:]
    found = a.new_empty(a.shape[0], a.shape[0])
    found[:half, :half], found[half:, half:] = _square_products(upper), _square_products(lower)
    found[:half, half:] = _products(upper, lower)
    found[half:, :half] = found[:half, half:].T
    return found


def squared_distances(a: Side, b: Side, same: bool) -> Tensor:
    """Return ‖x − y‖² of moved rows, `[|a|, |b|] float64`, good enough for what the form makes of them.

    In units of the anchor's scale; 0 on the diagonal if a is b.
    """
    form, dtype = a.kernel.form, a.kernel.dtype
    if dtype == torch.float32 and form == "rbf" and _long_in_sigmas(a, b):
        return squared_distances(*_wide(a, b), same)
    sums = a.norms.unsqueeze(1) + b.norms
    squared = (sums - 2 * _products(a.moved, b.moved).double()).clamp_(min=0)
    if same:
        squared.fill_diagonal_(0)
    if form == "euclidean":
        near = squared < _NEAR[dtype] * sums
        if same:
            near.fill_diagonal_(False)
        if near.any():
            if dtype == torch.float32:
                return squared_distances(*_wide(a, b), same)
            _take_differences(squared, near.nonzero(), a, b)
    return squared


def _of_distances(form: Form, a: Side, b: Side, squared: Tensor) -> Tensor:
    if form == "euclidean":
        return squared.sqrt_()
    if form == "rbf":
        assert a.anchor.sigma is not None
        sigma = a.anchor.sigma * a.anchor.scale
        return squared.div_(sigma).div_(-2 * sigma).exp_()
    # 1 − u·v, which for rows of length 1 is half their squared distance.
    return squared.mul_(0.5).add_(1 - (a.directed.unsqueeze(1) + b.directed) / 2)


def _wide(a: Side, b: Side) -> tuple[Side, Side]:
    kernel = replace(a.kernel, precision="float64")
    return move(a.rows, kernel, a.anchor), move(b.rows, kernel, b.anchor)


def _long_in_sigmas(a: Side, b: Side) -> bool:
    assert a.anchor.sigma is not None
    longest = max(float(a.norms.max()), float(b.norms.max())) ** 0.5
    return longest > _MOST_SIGMAS * a.anchor.sigma * a.anchor.scale


def _take_differences(squared: Tensor, at: Tensor, a: Side, b: Side) -> None:
    """Put distances of rows near each other in place, by differences: duplicates are exactly 0."""
    for some in at.split(_NEAR_CELLS):
        i, j = some.T
        exact = canonical_squared_distance(a.rows[i], b.rows[j])
        squared[i, j] = exact * a.anchor.scale * a.anchor.scale


def _unit_rows(rows: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    wide = rows.double()
    if form == "correlation":
        wide = wide - wide.mean(1, keepdim=True)
    norms = torch.linalg.vector_norm(wide, dim=1)
    directed = (norms > 0).double()
    return wide / torch.where(norms > 0, norms, 1.0).unsqueeze(1), directed


def _anchor(rows: Tensor, kernel: Kernel, sigma: float | None) -> Anchor:
    unit = kernel.form in ("cosine", "correlation")
    about = _unit_rows(rows, kernel.form)[0] if unit else rows
    count = torch.full((), rows.shape[0], dtype=torch.float64, device=rows.device)
    # Rounded, so that float32 rows less it are rounded once, and a constant layer is 0.
    origin = (about.sum(0, dtype=torch.float64) / count).float().double()
    most = torch.maximum(about.amax(0) - origin, origin - about.amin(0))  # |x − origin| of every column
    exponent = 0 if unit else frexp(float(most.max()))[1]
    # Not beyond 2^±120, so that the scale is a normal float32 itself.
    scale = 1.0 if abs(exponent) <= _MOST_EXPONENT else 2.0 ** -max(-120, min(exponent, 120))
    start = Anchor(origin, scale, 0.0, sigma)
    size = rows.shape[0]
    if kernel.form == "linear" or size < 2 or (sigma is not None and isnan(sigma)):
        return start
    side = move(rows, kernel, start)
    total = float(cells(side, side, same=True).double().sum())
    return replace(start, offset=total / (size * (size - 1)))
