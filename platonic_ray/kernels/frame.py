"""What a search subtracts from rows before it multiplies them, and how far its products can be off.

Rows are centered (a center common to all is subtracted) before they are rounded: the error of a product
grows with the norms of its factors, and what all rows have in common orders none of them. With
u = x − m and v = y − m, for any m,

    x·y         = x·m + [m·v + u·v]
    −‖x − y‖²/2 = −‖u‖²/2 + [−‖v‖²/2 + u·v]

so that a query ranks the gallery by a **score**, the bracket `bias_j + u_i·v_j`; higher is nearer, and
what is left out is the same for the whole gallery. u·v is the same from either side: a product serves
both, each with the other's bias. Rows of extreme magnitude are scaled by a power of two first, which
changes no order.

The bounds are worst cases over every order of summation, with or without fused multiply-add (Higham
2002, section 3.1: γ_m = m u / (1 − m u)), and hold for the canonical value too: two rows whose scores
differ by more than twice the error are in that order by their canonical values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from platonic_ray.kernels.compiled import loops_for
from platonic_ray.kernels.dot import dot_error, squared_distance_error
from platonic_ray.kernels.threads import spreading

SUM_COLUMNS = 512
"""Columns that one float32 sum of a refined score or of a norm runs over; such sums add in float64."""

Kind = torch.dtype | Literal["refined"]
"""What proposals are: products of factors in a dtype; or such of bfloat16, made anew in float64 where they matter."""

_BIAS_COLUMNS = 256  # that a sum of a bias runs over
_IEEE = ("none", "ieee")
_U32, _U16 = 2.0**-24, 2.0**-8  # unit roundoff of float32 and of bfloat16
_LARGEST_INTEGER = 32767  # then no sum of products of `integers`, whole or in part, reaches 2³¹
_UNDERFLOW = 2.0**-90  # far above what D operations can lose to underflow where norms are in range
_SUMS_BELOW = 1e24  # of 2⁴⁰ such numbers float32 still holds the sum
_IN_RANGE = (2.0**-20, 2.0**30)  # largest norm of centered rows that float32 sums are trusted with


@dataclass(frozen=True)
class Frame:
    """The center and scale of a search, and bounds that hold for all rows of its gallery.

    `center` `[D] float32` is that of scaled rows, `center_norm` an upper bound on its norm; `widest` is the
    largest norm of centered gallery rows, `shift` is subtracted from every bias (what is the same for all
    orders nothing), and `highest` is the largest magnitude of a bias thereafter. No centered row of the gallery is
    further from itself in bfloat16 than `rounding` times its norm.
    """

    euclidean: bool
    center: Tensor
    scale: float
    center_norm: float
    widest: float
    shift: float
    highest: float
    rounding: float

    def centered(self, rows: Tensor) -> Tensor:
        """Return rows `[r, D] float32` less the center."""
        return centered(rows, self.center, self.scale)

    def threshold(self, norms: Tensor, reached: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what proposals must reach `[c]` to be possible, where `keep` proposals are `reached` or more.

        Let e bound the error of the products, u the roundoff of `dtype`. A proposal is the score in
        which the product, the bias and their sum were each rounded to `dtype`, or to `made`. Each step is monotone,
        so that only numbers near the threshold matter: with |bias| ≤ B and K what is reached, `keep` rows
        have a score of K − e − u (2.1 |K| + 2.1 B) at least, and a row that has it is proposed with that
        less e + u (1.1 |K| + 2.2 B + 3 e) at least.

        :param norms: of the queries, `[c] float64`.
        """
        fixed, share = self.margin(norms, dtype)
        threshold = reached - fixed - share * reached.abs() if share else reached - fixed
        return rounded_down(threshold, dtype)

    def margin(self, norms: Tensor, dtype: Kind, made: torch.dtype | None = None) -> tuple[Tensor, float]:
        """Return (m `[c] float64`, s): the threshold is K − m − s |K| where K is reached.

        :param dtype: of the factors of products.
        :param made: of the products and of what is reached; by default that of the factors.
        """
        error = self.error(norms, dtype)
        u = roundoff(made or dtype)
        return 2 * error + u * (4.5 * self.highest + 4 * error), 3.5 * u

    def reach(self, norms: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
        """Bound |proposal − score| `[c]` of proposals whose magnitude is at most `largest` `[c]`."""
        error = self.error(norms, dtype)
        return error + roundoff(dtype) * (2.2 * largest + 2.2 * self.highest + 2 * error)

    def error(self, norms: Tensor, dtype: Kind) -> Tensor:
        """Bound |product + bias − score| of queries of such norms, `[c] float64`, before rounding to `dtype`."""
        if dtype == torch.int16:
            return self._integer_error(norms) + self._common(norms)
        if dtype == "refined":
            return self._anew_error(norms) + self._common(norms)
        # Factors: centered in float32, then rounded. A matrix product of float32 rounds its factors
        # to bfloat16 or TF32 where the user has allowed it.
        if dtype == torch.bfloat16:
            factor = self.rounding + 2 * _U32
        else:
            factor = (0.0 if plain_float32(self.center.device.type) else _U16) + 2 * _U32
        products = norms * self.widest
        # Twice the operations, since tensor cores cut off where a CPU rounds.
        sums = _gamma(2 * (self.center.shape[0] + 8)) * (1.01 * products + self.highest)
        return (2 * factor + factor**2) * products + sums + self._common(norms)

    def lower(self, norms: Tensor) -> Tensor:
        """Return by how much refined proposals are lowered `[c] float32`, so that one threshold serves products too.

        Let K be what is reached by refined proposals, whose error e bounds, and f that of products. A neighbor's
        product is K − e − f at least, its refined proposal K − 2 e: lowered by f − e, that is K − e − f as well.
        """
        lower = self.error(norms, torch.bfloat16) - self.error(norms, "refined")
        return -rounded_down(-lower, torch.float32)

    def _anew_error(self, norms: Tensor) -> Tensor:
        """Bound what a product is off by that is summed in float64, of centered rows, and lowered and rounded."""
        products = norms * self.widest
        rounded = 1.01 * products + self.highest + self.error(norms, torch.bfloat16)
        return 6 * _U32 * rounded + 2.0**-48 * products

    def integers(self, rows: Tensor) -> Tensor:
        """Return centered rows in units of `unit`, `[r, D'] int16`; D' is D or, for pairs of columns, D + 1."""
        units = (self.centered(rows) / self.unit).round_().to(torch.int16)
        return torch.nn.functional.pad(units, (0, 1)) if rows.shape[1] % 2 else units.contiguous()

    @property
    def unit(self) -> float:
        """The unit of `integers`: their largest norm is `_LARGEST_INTEGER` before they are rounded."""
        return self.widest / _LARGEST_INTEGER

    def _integer_error(self, norms: Tensor) -> Tensor:
        """Bound what a product of `integers` is off by.

        Every entry by half a unit and what float32 loses of entry / unit ≤ 2¹⁵, less than 2⁻⁷; the sum by
        nothing. Centering, the conversion of the sum, its factor unit² and what is added are float32.
        """
        off = 0.51 * self.unit * self.center.shape[0] ** 0.5
        products = norms * self.widest
        rounded = _gamma(16) * (1.01 * products + self.highest)
        return off * (norms + self.widest + off) * 1.01 + rounded

    def refined_error(self, norms: Tensor) -> Tensor:
        """Bound |refined − score| of every query, `[q] float64`: sums of `SUM_COLUMNS` products in float32."""
        products = norms * self.widest
        sums = (_gamma(SUM_COLUMNS + 2) + 3 * _U32) * products
        return sums + 2.0**-48 * (products + self.highest) + self._common(norms)

    def _common(self, norms: Tensor) -> Tensor:
        """Bound what bias, underflow and the canonical value's own rounding add to any error."""
        width = self.center.shape[0]
        reach = norms + self.widest
        sums = _gamma(_BIAS_COLUMNS + 4) + 2 * _U32
        if self.euclidean:
            bias = sums * self.widest**2
            canonical = squared_distance_error(width) * reach**2
        else:
            bias = sums * self.center_norm * self.widest
            plain = (norms + self.center_norm) * (self.widest + self.center_norm)
            canonical = dot_error(width) * plain
        return bias + canonical + _UNDERFLOW * (1 + reach) ** 2 * (1 + self.center_norm)


@dataclass(frozen=True)
class Framed:
    """A frame, and of every row that it was measured on `norms` and `biases`, `[n] float64`."""

    frame: Frame
    norms: Tensor
    biases: Tensor


def measure(
    blocks: Callable[[], Iterable[Tensor]],
    similarity: Literal["inner", "euclidean"],
    low: bool = False,
    sample: Tensor | None = None,
) -> Framed | None:
    """Return the frame of rows that are read block by block; None if they are not fit for float32.

    Not fit are numbers that are too large, too small or too much alike.

    :param blocks: gives `[r, D] float32` blocks of all rows, in order, each time it is called: once, or up to four
        times where there is no sample or float32 is hardly enough.
    :param low: whether factors may be of bfloat16: then what that does to the rows is measured too.
    :param sample: `[s, D] float32` rows whose mean is the center; by default that of all rows, of a pass of its own.
    """
    # Any center is right, and one near the mean is good.
    found = None if sample is None else _about(sample.mean(0), 1.0, blocks, similarity, low)
    if found is not None:
        return found
    total, count, largest = None, 0, 0.0
    for rows in blocks():
        largest = max(largest, float(torch.stack(rows.aminmax()).abs().amax()))
        # Float32 does where it cannot overflow.
        wide = torch.float64 if largest > _SUMS_BELOW else torch.float32
        total = rows.sum(0, dtype=wide).double() + (0.0 if total is None else total)
        count += rows.shape[0]
    assert total is not None
    # Half of the largest entry's power of two, so that no difference reaches two.
    for scale in (1.0, 2.0 ** -(int(torch.frexp(torch.tensor(largest).double()).exponent) + 1)):
        found = _about((total / count * scale).float(), scale, blocks, similarity, low)
        if found is not None:
            return found
    return None


def _about(
    center: Tensor, scale: float, blocks: Callable[[], Iterable[Tensor]], similarity: Any, low: bool
) -> Framed | None:
    """Return the frame of rows about a center, or None where these are out of range."""
    measured = (_measured(rows, center, scale, similarity, low) for rows in blocks())
    norms, biases, rounding = zip(*measured, strict=True)
    every = torch.cat(norms)
    if not in_range(every):
        return None
    return framed(center, scale, every, torch.cat(biases), similarity, max(rounding))


def framed(
    center: Tensor, scale: float, norms: Tensor, biases: Tensor, similarity: str, rounding: float = _U16
) -> Framed:
    """Return the frame of rows whose norms and biases about a center are known, and what bfloat16 does to them."""
    shift = float(biases.mean())
    biases = biases - shift
    frame = Frame(
        euclidean=similarity == "euclidean",
        center=center,
        scale=scale,
        center_norm=float(center.double().norm()) * (1 + 1e-9),
        widest=float(norms.amax()),
        shift=shift,
        highest=float(biases.abs().amax()),
        rounding=rounding,
    )
    return Framed(frame, norms, biases)


def in_range(norms: Tensor) -> bool:
    """Return whether float32 sums are trusted with rows of such norms."""
    # A NaN fails both comparisons.
    return _IN_RANGE[0] < float(norms.amax()) < _IN_RANGE[1]


def not_too_long(norms: Tensor) -> bool:
    """Return whether queries of such norms are fit for float32."""
    return float(norms.amax()) < _IN_RANGE[1]


def centered(rows: Tensor, center: Tensor, scale: float) -> Tensor:
    """Return float32 rows, scaled by a power of two, less a center."""
    return scaled(rows, scale) - center


def upper_norms(squares: Tensor, width: int) -> Tensor:
    """Turn sums of squared norms of `SUM_COLUMNS` columns each into upper bounds on norms, in place."""
    slack = 1.001 + _gamma(SUM_COLUMNS + 8)
    # Entries below 2⁻⁶³ have squares that float32 may lose.
    return squares.sqrt_().mul_(slack).add_(2.0**-60 * width**0.5)


def bias_of(parts: Iterable[tuple[Tensor, Tensor]], similarity: str) -> Tensor:
    """Return the bias `[r] float64` of centered rows that come as parts of columns, with the center's."""
    bias: Tensor | float = 0.0
    for part, center in parts:
        for start in range(0, part.shape[1], _BIAS_COLUMNS):
            columns = slice(start, start + _BIAS_COLUMNS)
            with_what = part[:, columns] if similarity == "euclidean" else center[columns]
            # Not a matrix product: its precision may have been lowered.
            bias = bias + (part[:, columns] * with_what).sum(1).double()
    assert isinstance(bias, Tensor)
    return bias * -0.5 if similarity == "euclidean" else bias


def fast_bfloat16(device: str) -> bool:
    """Return whether torch's products of bfloat16 are faster there than those of float32, and add up in it.

    Not on a CPU: there products that are made in bfloat16, and read again, take longer than `matrix_units` do.
    """
    if device == "cuda":
        reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        return not reduced and torch.cuda.is_bf16_supported(including_emulation=False)
    return False


def roundoff(dtype: Kind) -> float:
    """Return what rounding to the dtype adds to the bounds; for float32 they have it already."""
    return _U16 if dtype == torch.bfloat16 else 0.0


def rounded_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float64 values in a dtype, none of them larger than it was."""
    rounded = values.to(dtype)
    lower = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded.double() > values, lower, rounded)


def plain_float32(device: str) -> bool:
    """Return whether matrix products of float32 round nothing to fewer bits first."""
    backends: Any = torch.backends  # some of it is not in the type stubs
    if device == "cuda":
        return backends.cuda.matmul.fp32_precision in _IEEE and backends.fp32_precision in _IEEE
    math = os.environ.get("ONEDNN_DEFAULT_FPMATH_MODE", os.environ.get("DNNL_DEFAULT_FPMATH_MODE", "STRICT"))
    allowed = (backends.fp32_precision, backends.mkldnn.fp32_precision, backends.mkldnn.matmul.fp32_precision)
    return device == "cpu" and math.upper() == "STRICT" and all(mode in _IEEE for mode in allowed)


def scaled(rows: Tensor, scale: float) -> Tensor:
    """Return float32 rows times a power of two, which may itself be out of float32's range."""
    return rows if scale == 1 else (rows.double() * scale).float()


def _measured(
    rows: Tensor, center: Tensor, scale: float, similarity: str, low: bool
) -> tuple[Tensor, Tensor, float]:
    width = rows.shape[1]
    squares, lost, biases = (
        torch.zeros(rows.shape[0], dtype=torch.float64, device=rows.device) for _ in range(3)
    )
    loops = loops_for(rows, rows.numel()) if scale == 1 else None
    if loops is not None:
        given = rows.numpy(), center.numpy(), low, similarity == "inner"

        def measure(start: int, stop: int) -> None:
            part = slice(start, stop)
            out = (each.numpy()[part] for each in (squares, lost, biases))
            loops.centered_rows(given[0][part], *given[1:], *out)

        with spreading(torch.get_num_threads()) as spread:
            spread(measure, rows.shape[0])
        norms = upper_norms(squares, width)
        return norms, biases if similarity == "inner" else biases * -0.5, _rounding(lost, norms, width, low)
    parts = []
    for start in range(0, rows.shape[1], SUM_COLUMNS):
        columns = slice(start, start + SUM_COLUMNS)
        part = centered(rows[:, columns], center[columns], scale)
        squares += torch.linalg.vector_norm(part, dim=1).double().square_()
        if low:  # the difference is exact
            lost += torch.linalg.vector_norm(part - part.bfloat16(), dim=1).double().square_()
        parts.append((part, center[columns]))
    norms = upper_norms(squares, width)
    return norms, bias_of(parts, similarity), _rounding(lost, norms, width, low)


def _rounding(lost: Tensor, norms: Tensor, width: int, low: bool) -> float:
    """Return the largest share of a norm that bfloat16 loses: of D entries hardly all lose its roundoff."""
    return float((upper_norms(lost, width) / norms).clamp(max=_U16).amax()) if low else _U16


def _gamma(operations: int) -> float:
    return operations * _U32 / (1 - operations * _U32)
