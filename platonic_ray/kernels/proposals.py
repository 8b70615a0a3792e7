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

import warnings
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from platonic_ray.kernels.dot import dot_error, squared_distance_error

# Once a process, torch says that its sparse matrices may change; what is used of them here is tested.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

_SUM_COLUMNS = 512  # columns that one float32 sum of a refined score runs over; sums add in float64
_BIAS_COLUMNS = 256  # the same of a bias
_WIDE = 512  # from this width on half a product and its transposition cost less than a whole one
_U32, _U16 = 2.0**-24, 2.0**-9  # unit roundoff of float32 and of bfloat16
_UNDERFLOW = 2.0**-90  # far above what D operations can lose to underflow where norms are in range
_IN_RANGE = (2.0**-20, 2.0**30)  # largest norm of centered rows that float32 sums are trusted with


class Rows:
    """Rows as a `Proposer` has centered them.

    `centered` `[n, D] float32`; `norms` `[n] float64`, upper bounds on the exact norms; `low` `[n, D]`,
    the same rows in bfloat16, None where that is not fast.
    """

    def __init__(self, centered: Tensor) -> None:
        self.centered = centered
        self.norms = _norms(centered)
        self.low = centered.bfloat16() if fast_bfloat16(centered.device.type) else None


class Proposer:
    """A gallery that is ready to be ranked, `[g, D] float32`, by "inner" or "euclidean" similarity.

    `fit` is False where its numbers are too large, too small or too much alike for float32; then
    nothing else here may be called. `dtypes` are those of the products there are, fastest first.
    """

    def __init__(self, gallery: Tensor, similarity: Literal["inner", "euclidean"]) -> None:
        self._euclidean = similarity == "euclidean"
        self._scale = 1.0
        self._center = gallery.mean(0)
        self.own = Rows(gallery - self._center)
        if not self._in_range():
            largest = torch.stack(gallery.aminmax()).abs().amax().double()
            # Half of the largest entry's power of two, so that no difference reaches two.
            self._scale = 2.0 ** -(int(torch.frexp(largest).exponent) + 1)
            scaled = _scaled(gallery, self._scale)
            self._center = scaled.mean(0)
            self.own = Rows(scaled - self._center)
        self.fit = self._in_range()
        self._widest = float(self.own.norms.amax())
        self._center_norm = float(_norms(self._center[None]))
        bias = self._biases(self.own.centered)
        self._bias = bias - bias.mean()  # what is the same for all orders nothing
        self._highest = float(self._bias.abs().amax())
        self.dtypes = (torch.float32,) if self.own.low is None else (torch.bfloat16, torch.float32)

    def _in_range(self) -> bool:
        # A NaN fails both comparisons.
        return _IN_RANGE[0] < float(self.own.norms.amax()) < _IN_RANGE[1]

    def queries(self, rows: Tensor) -> Rows | None:
        """Return queries `[q, D] float32` for this gallery; None if they are not fit for float32."""
        centered = (rows if self._scale == 1 else _scaled(rows, self._scale)) - self._center
        found = Rows(centered)
        return found if float(found.norms.amax()) < _IN_RANGE[1] else None

    def scores(self, queries: Rows, chosen: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Return proposed scores `[c, g]` of the queries `chosen`, computed and returned in `dtype`."""
        if dtype == torch.bfloat16:
            assert queries.low is not None
            assert self.own.low is not None
            left, right = queries.low, self.own.low
        else:
            left, right = queries.centered, self.own.centered
        every = queries is self.own and isinstance(chosen, slice) and chosen == slice(0, right.shape[0])
        product = _gram(right) if every and right.shape[1] >= _WIDE else left[chosen] @ right.T
        return product.add_(self._bias.to(dtype))

    def threshold(self, queries: Rows, chosen: slice | Tensor, reached: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what proposals must reach `[c]` to be possible, where `keep` proposals are `reached` or more.

        Let e bound the error of the products, u the roundoff of `dtype`. A proposal is the score in
        which the product, the bias and their sum were each rounded to `dtype`. Each step is monotone,
        so that only numbers near the threshold matter: with |bias| ≤ B and K what is reached, `keep` rows
        have a score of K − e − u (2.1 |K| + 2.1 B) at least, and a row that has it is proposed with that
        less e + u (1.1 |K| + 2.2 B + 3 e) at least.
        """
        error = self._error(queries.norms[chosen], queries.centered.shape[1], dtype)
        roundoff = _U16 if dtype == torch.bfloat16 else 0.0
        threshold = reached - 2 * error
        threshold -= roundoff * (3.5 * reached.abs() + 4.5 * self._highest + 4 * error)
        rounded = threshold.to(dtype)
        lower = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
        return torch.where(rounded.double() > threshold, lower, rounded)

    def _error(self, norms: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """Bound |product + bias − score| of queries of such norms, `[c] float64`, before rounding to `dtype`."""
        # Factors: centered in float32, then rounded. A matrix product of float32 rounds its factors
        # to bfloat16 or TF32 where the user has allowed it.
        coarse = dtype == torch.bfloat16 or not _plain_float32(self.own.centered.device.type)
        factor = (_U16 if coarse else 0.0) + 2 * _U32
        products = norms * self._widest
        # Twice the operations, since tensor cores cut off where a CPU rounds.
        sums = _gamma(2 * (width + 8)) * (1.01 * products + self._highest)
        return (2 * factor + factor**2) * products + sums + self._common(norms, width)

    def refine(self, queries: Rows, row: Tensor, column: Tensor) -> Tensor:
        """Return scores `[p] float64` of the pairs (row, column), `row` ascending, to `refined_error`."""
        count, width = queries.centered.shape
        size = (count, self._bias.shape[0])
        starts = torch.zeros(count + 1, dtype=torch.int64, device=row.device)
        starts[1:] = torch.bincount(row, minlength=count).cumsum(0)
        zeros = torch.zeros(row.shape[0], device=row.device)
        pattern = torch.sparse_csr_tensor(starts, column, zeros, size, check_invariants=False)
        scores = self._bias[column]
        for start in range(0, width, _SUM_COLUMNS):
            part = slice(start, start + _SUM_COLUMNS)
            left, right = queries.centered[:, part], self.own.centered[:, part]
            scores += torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
        return scores

    def refined_error(self, queries: Rows) -> Tensor:
        """Bound |refined − score| of every query, `[q] float64`."""
        products = queries.norms * self._widest
        sums = (_gamma(_SUM_COLUMNS + 2) + 3 * _U32) * products
        return (
            sums
            + 2.0**-48 * (products + self._highest)
            + self._common(queries.norms, queries.centered.shape[1])
        )

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

    def _biases(self, centered: Tensor) -> Tensor:
        bias = torch.zeros(centered.shape[0], dtype=torch.float64, device=centered.device)
        for start in range(0, centered.shape[1], _BIAS_COLUMNS):
            part = slice(start, start + _BIAS_COLUMNS)
            with_what = centered[:, part] if self._euclidean else self._center[part]
            # Not a matrix product: its precision may have been lowered.
            bias += (centered[:, part] * with_what).sum(1)
        return bias * -0.5 if self._euclidean else bias


@cache
def fast_bfloat16(device: str) -> bool:
    """Return whether products of bfloat16 are faster there than those of float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    units = torch.cpu.get_capabilities()
    return bool(units.get("avx512_bf16") or units.get("amx_bf16"))


def _plain_float32(device: str) -> bool:
    if device == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        return False
    return device in ("cpu", "cuda") and torch.get_float32_matmul_precision() == "highest"


def _gamma(operations: int) -> float:
    return operations * _U32 / (1 - operations * _U32)


def _gram(rows: Tensor, block: int = 256) -> Tensor:
    """Return `rows @ rows.T`; what is above the diagonal blocks serves below them too."""
    count = rows.shape[0]
    products = torch.empty(count, count, dtype=rows.dtype, device=rows.device)
    for start in range(0, count, block):
        stop = min(start + block, count)
        strip = rows[start:stop] @ rows[start:].T
        products[start:stop, start:] = strip
        products[stop:, start:stop] = strip[:, stop - start :].T
    return products


def _norms(rows: Tensor) -> Tensor:
    """Return upper bounds `[n] float64` on the norms of rows that may each be off by float32's roundoff."""
    slack = 1.001 + _gamma(rows.shape[1] + 8)
    # Entries below 2⁻⁶³ have squares that float32 may lose.
    return torch.linalg.vector_norm(rows, dim=1).double() * slack + 2.0**-60 * rows.shape[1] ** 0.5


def _scaled(rows: Tensor, scale: float) -> Tensor:
    """Return float32 rows times a power of two, which may itself be out of float32's range."""
    return (rows.double() * scale).float()
