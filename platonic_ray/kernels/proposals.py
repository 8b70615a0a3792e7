"""Fast products that propose neighbors, and rigorous bounds on how far they can be from the truth.

Rows are centered (the center of the gallery is subtracted) before they are rounded: the error of a
product grows with the norms of its factors, and what all rows have in common orders none of them.
With u = x − m and v = y − m,

    x·y         = x·m + [m·v + u·v]
    −‖x − y‖²/2 = −‖u‖²/2 + [−‖v‖²/2 + u·v]

so that a query ranks the gallery by a **score**, the bracket `bias_j + u_i·v_j`; higher is nearer, and
what is left out is the same for the whole gallery. Rows of extreme magnitude are scaled by a power of
two first, which changes no order.

The bounds are worst cases over every order of summation, with or without fused multiply-add (Higham
2002, section 3.1: γ_m = m u / (1 − m u)), and hold for the canonical value too: two rows whose scores
differ by more than twice the error are in that order by their canonical values.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from platonic_ray.kernels.dot import dot_error, squared_distance_error

# Once a process, torch says that its sparse matrices may change; what is used of them here is tested.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

_SUM_COLUMNS = 512  # columns that one float32 sum of a refined score runs over; sums add in float64
_BIAS_COLUMNS = 256  # the same of a bias
_WIDE = 512  # from this width on half a product and its transposition cost less than a whole one
_IEEE = ("none", "ieee")
_U32, _U16 = 2.0**-24, 2.0**-9  # unit roundoff of float32 and of bfloat16
_UNDERFLOW = 2.0**-90  # far above what D operations can lose to underflow where norms are in range
_IN_RANGE = (2.0**-20, 2.0**30)  # largest norm of centered rows that float32 sums are trusted with


class Rows:
    """Rows as a `Proposer` has centered them.

    `centered` holds their columns, `_SUM_COLUMNS` at a time, each part `[n, ≤ 512] float32`; `low` all of
    them in bfloat16, `[n, D]`, None where that is not fast; `norms` `[n] float64` are upper bounds on the
    exact norms.
    """

    def __init__(self, rows: Tensor, center: Tensor, scale: float) -> None:
        count, self.width = rows.shape
        self.centered: list[Tensor] = []
        self.low: Tensor | None = None
        if fast_bfloat16(rows.device.type):
            self.low = torch.empty(count, self.width, dtype=torch.bfloat16, device=rows.device)
        squares = torch.zeros(count, dtype=torch.float64, device=rows.device)
        # A part stays in the cache while all is made of it.
        for start in range(0, self.width, _SUM_COLUMNS):
            columns = slice(start, start + _SUM_COLUMNS)
            part = rows[:, columns] if scale == 1 else _scaled(rows[:, columns], scale)
            part = part - center[columns]
            squares += torch.linalg.vector_norm(part, dim=1).double().square_()
            if self.low is not None:
                self.low[:, columns] = part
            self.centered.append(part)
        slack = 1.001 + _gamma(_SUM_COLUMNS + 8)
        # Entries below 2⁻⁶³ have squares that float32 may lose.
        self.norms = squares.sqrt_() * slack + 2.0**-60 * self.width**0.5

    def parts(self, dtype: torch.dtype) -> list[Tensor]:
        """Return the columns in a dtype of products."""
        if dtype == torch.bfloat16:
            assert self.low is not None
            return [self.low]
        return self.centered


class Proposer:
    """A gallery that is ready to be ranked, `[g, D] float32`, by "inner" or "euclidean" similarity.

    `fit` is False where its numbers are too large, too small or too much alike for float32; then
    nothing else here may be called. `dtypes` are those of the products there are, fastest first.
    """

    def __init__(self, gallery: Tensor, similarity: Literal["inner", "euclidean"]) -> None:
        self._euclidean = similarity == "euclidean"
        self._scale = 1.0
        self._center = gallery.mean(0)
        self.own = Rows(gallery, self._center, 1.0)
        if not self._in_range():
            largest = torch.stack(gallery.aminmax()).abs().amax().double()
            # Half of the largest entry's power of two, so that no difference reaches two.
            self._scale = 2.0 ** -(int(torch.frexp(largest).exponent) + 1)
            self._center = _scaled(gallery, self._scale).mean(0)
            self.own = Rows(gallery, self._center, self._scale)
        self.fit = self._in_range()
        self._widest = float(self.own.norms.amax())
        self._center_norm = float(self._center.double().norm()) * (1 + 1e-9)
        bias = self._biases()
        self._bias = bias - bias.mean()  # what is the same for all orders nothing
        self._highest = float(self._bias.abs().amax())
        self.dtypes = (torch.float32,) if self.own.low is None else (torch.bfloat16, torch.float32)

    def _in_range(self) -> bool:
        # A NaN fails both comparisons.
        return _IN_RANGE[0] < float(self.own.norms.amax()) < _IN_RANGE[1]

    def queries(self, rows: Tensor) -> Rows | None:
        """Return queries `[q, D] float32` for this gallery; None if they are not fit for float32."""
        found = Rows(rows, self._center, self._scale)
        return found if float(found.norms.amax()) < _IN_RANGE[1] else None

    def scores(self, queries: Rows, chosen: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Return proposed scores `[c, g]` of the queries `chosen`, computed and returned in `dtype`."""
        every = queries is self.own and isinstance(chosen, slice) and chosen == slice(0, self._bias.shape[0])
        right = self.own.parts(dtype)
        if every and queries.width >= _WIDE:
            product = _gram(right)
        else:
            product = _product([part[chosen] for part in queries.parts(dtype)], right)
        return product.add_(self._bias.to(dtype))

    def threshold(self, queries: Rows, chosen: slice | Tensor, reached: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what proposals must reach `[c]` to be possible, where `keep` proposals are `reached` or more.

        Let e bound the error of the products, u the roundoff of `dtype`. A proposal is the score in
        which the product, the bias and their sum were each rounded to `dtype`. Each step is monotone,
        so that only numbers near the threshold matter: with |bias| ≤ B and K what is reached, `keep` rows
        have a score of K − e − u (2.1 |K| + 2.1 B) at least, and a row that has it is proposed with that
        less e + u (1.1 |K| + 2.2 B + 3 e) at least.
        """
        error = self._error(queries.norms[chosen], queries.width, dtype)
        threshold = reached - 2 * error
        threshold -= _roundoff(dtype) * (3.5 * reached.abs() + 4.5 * self._highest + 4 * error)
        rounded = threshold.to(dtype)
        lower = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
        return torch.where(rounded.double() > threshold, lower, rounded)

    def reach(self, queries: Rows, chosen: slice | Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
        """Bound |proposal − score| `[c]` of proposals whose magnitude is at most `largest` `[c]`."""
        error = self._error(queries.norms[chosen], queries.width, dtype)
        return error + _roundoff(dtype) * (2.2 * largest + 2.2 * self._highest + 2 * error)

    def _error(self, norms: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """Bound |product + bias − score| of queries of such norms, `[c] float64`, before rounding to `dtype`."""
        # Factors: centered in float32, then rounded. A matrix product of float32 rounds its factors
        # to bfloat16 or TF32 where the user has allowed it.
        coarse = dtype == torch.bfloat16 or not _plain_float32(self._bias.device.type)
        factor = (_U16 if coarse else 0.0) + 2 * _U32
        products = norms * self._widest
        # Twice the operations, since tensor cores cut off where a CPU rounds.
        sums = _gamma(2 * (width + 8)) * (1.01 * products + self._highest)
        return (2 * factor + factor**2) * products + sums + self._common(norms, width)

    def refine(self, queries: Rows, row: Tensor, column: Tensor) -> Tensor:
        """Return scores `[p] float64` of the pairs (row, column), `row` ascending, to `refined_error`."""
        count = queries.norms.shape[0]
        starts = torch.zeros(count + 1, dtype=torch.int64, device=row.device)
        starts[1:] = torch.bincount(row, minlength=count).cumsum(0)
        zeros = torch.zeros(row.shape[0], device=row.device)
        size = (count, self._bias.shape[0])
        pattern = torch.sparse_csr_tensor(starts, column, zeros, size, check_invariants=False)
        scores = self._bias[column]
        for left, right in zip(queries.centered, self.own.centered, strict=True):
            scores += torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
        return scores

    def refined_error(self, queries: Rows) -> Tensor:
        """Bound |refined − score| of every query, `[q] float64`."""
        products = queries.norms * self._widest
        sums = (_gamma(_SUM_COLUMNS + 2) + 3 * _U32) * products
        return sums + 2.0**-48 * (products + self._highest) + self._common(queries.norms, queries.width)

    def _common(self, norms: Tensor, width: int) -> Tensor:
        """Bound what bias, underflow and the canonical value's own rounding add to any error."""
        reach = norms + self._widest
        sums = _gamma(_BIAS_COLUMNS + 4) + 2 * _U32
        if self._euclidean:
            bias = sums * self._widest**2
            canonical = squared_distance_error(width) * reach**2
        else:
            bias = sums * self._center_norm * self._widest
            plain = (norms + self._center_norm) * (self._widest + self._center_norm)
            canonical = dot_error(width) * plain
        return bias + canonical + _UNDERFLOW * (1 + reach) ** 2 * (1 + self._center_norm)

    def _biases(self) -> Tensor:
        bias = torch.zeros(self.own.norms.shape[0], dtype=torch.float64, device=self._center.device)
        centers = self._center.split(_SUM_COLUMNS)
        for part, center in zip(self.own.centered, centers, strict=True):
            for start in range(0, part.shape[1], _BIAS_COLUMNS):
                columns = slice(start, start + _BIAS_COLUMNS)
                with_what = part[:, columns] if self._euclidean else center[columns]
                # Not a matrix product: its precision may have been lowered.
                bias += (part[:, columns] * with_what).sum(1)
        return bias * -0.5 if self._euclidean else bias


def fast_bfloat16(device: str) -> bool:
    """Return whether products of bfloat16 are faster there than those of float32, and add up in it."""
    if device == "cuda":
        reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        return not reduced and torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and _has_units()


@cache
def _has_units() -> bool:
    units = torch.cpu.get_capabilities()
    return bool(units.get("avx512_bf16") or units.get("amx_bf16"))


def _plain_float32(device: str) -> bool:
    """Return whether matrix products of float32 round nothing to fewer bits first."""
    backends: Any = torch.backends  # some of it is not in the type stubs
    if device == "cuda":
        return backends.cuda.matmul.fp32_precision in _IEEE and backends.fp32_precision in _IEEE
    math = os.environ.get("ONEDNN_DEFAULT_FPMATH_MODE", os.environ.get("DNNL_DEFAULT_FPMATH_MODE", "STRICT"))
    allowed = (backends.fp32_precision, backends.mkldnn.fp32_precision, backends.mkldnn.matmul.fp32_precision)
    return device == "cpu" and math.upper() == "STRICT" and all(mode in _IEEE for mode in allowed)


def _roundoff(dtype: torch.dtype) -> float:
    """Return what rounding to the dtype adds to the bounds; for float32 they have it already."""
    return _U16 if dtype == torch.bfloat16 else 0.0


def _gamma(operations: int) -> float:
    return operations * _U32 / (1 - operations * _U32)


def _product(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """Return the products of rows that are given as parts of their columns."""
    product = left[0] @ right[0].T
    for a, b in zip(left[1:], right[1:], strict=True):
        product.addmm_(a, b.T)
    return product


def _gram(rows: list[Tensor], block: int = 256) -> Tensor:
    """Return the products of rows with each other; what is above the diagonal serves below it too."""
    count = rows[0].shape[0]
    products = torch.empty(count, count, dtype=rows[0].dtype, device=rows[0].device)
    for start in range(0, count, block):
        stop = min(start + block, count)
        strip = _product([part[start:stop] for part in rows], [part[start:] for part in rows])
        products[start:stop, start:] = strip
        products[stop:, start:stop] = strip[:, stop - start :].T
    return products


def _scaled(rows: Tensor, scale: float) -> Tensor:
    """Return float32 rows times a power of two, which may itself be out of float32's range."""
    return (rows.double() * scale).float()
