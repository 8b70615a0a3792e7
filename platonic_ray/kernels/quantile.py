"""Quantiles of |feature| for the clamp of Huh et al. (2024): exact, out of core, without a sort.

An order statistic of many values is found by counting. A sample brackets it; one pass counts the values
below the bracket and keeps the few within; the counts prove whether the bracket holds it. Where it does
not, two passes of a radix select over the bits of the floats do. Counts add up over blocks, so the
result is a function of the values alone, whatever the blocks and their order.

On one core of a cloud machine the pass takes 0.8 ns a value, each pass of the select 1.2 ns, and
`np.partition` 12 to 30 ns and a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from platonic_ray.kernels.threads import each

SHARE = 0.95
"""The share of |features| that the clamp leaves as they are."""

Stacks = Callable[[], Iterable[Sequence[Tensor]]]
"""Gives all rows of a model, block by block, each as its layers `[b, D_l] float32`; once a call.

Values are finite, widths are those of the model in every block.
"""

_CHUNK = 2**17  # values at a time: they and their masks stay in a core's cache
_SAMPLE = 2**16
_DEVIATIONS = 6  # of the sample's share of values below, on either side of the bracket
_AT_ONCE = 8  # layers, of which all values may have to be kept for a moment
_COMPRESS = 2**22
_MOST_KEPT = 2**25
_LOW_BITS = 15
_ROW_BYTES = 2**25
_LONG_ROW = 2**13
_ROW_SAMPLE = 2**11

_Floats = npt.NDArray[np.float32]


def exact_bounds(stacks: Stacks, peek: Stacks | None = None) -> tuple[float, ...]:
    """Return the clamp of every layer: `sort(|x|.flatten())[int(0.95 · numel)]`, a float32 value each.

    Layers of one width share the clamp of all their values, as the N × L × D tensor of the published
    code has it; where widths differ every layer has its own.

    :param stacks: read once; a second and third time if a bracket missed.
    :param peek: some of the rows, from which the brackets are drawn; all of them by default. It changes
        how often `stacks` is read, never the result.
    """
    samples = _samples((peek or stacks)())
    layers = len(samples)
    grouped = len({sample[0] for sample in samples}) == 1
    groups = [np.concatenate([s for _, s in samples])] if grouped else [sample for _, sample in samples]
    brackets = [_Bracket(*_bracket(group)) for group in groups]
    for stack in stacks():
        pairs = [(brackets[0 if grouped else index], values) for index, values in enumerate(stack)]
        for start in range(0, len(pairs), _AT_ONCE):
            part = pairs[start : start + _AT_ONCE]
            for (bracket, _), counted in zip(part, each(_counted, part), strict=True):
                bracket.add(*counted)
    found = [bracket.value() for bracket in brackets]
    missed = [index for index, value in enumerate(found) if value is None]
    if missed:
        ranks = {index: clamp_rank(brackets[index].total) for index in missed}
        for index, value in _radix_select(stacks, ranks, grouped).items():
            found[index] = value
    whole = [float(value) for value in found if value is not None]
    return tuple(whole * layers if grouped else whole)


def approximate_bounds(stacks: Stacks) -> tuple[float, ...]:
    """Return the published code's cheaper clamp of every layer, a float32 value each.

    Per sample the 0.95 quantile of |x|, interpolated linearly between the two order statistics around
    rank 0.95 · (m − 1); averaged over the samples (exactly, then rounded). Layers of one width form one
    vector of m = L · D values a sample; where widths differ every layer has its own m = D.
    """
    quantiles: list[list[float]] = []
    layers = 0
    for stack in stacks():
        layers = len(stack)
        grouped = len({layer.shape[1] for layer in stack}) == 1
        parts = [stack] if grouped else [[layer] for layer in stack]
        quantiles = quantiles or [[] for _ in parts]
        for of_group, part in zip(quantiles, parts, strict=True):
            of_group.extend(_row_quantiles(part))
    means = [float(np.float32(math.fsum(of_group) / len(of_group))) for of_group in quantiles]
    return tuple(means * layers if len(means) < layers else means)


def clamp_rank(count: int) -> int:
    """Return the rank (0 is the least) of the clamp among so many values, as the published code counts."""
    return int(SHARE * count)


class _Bracket:
    """Counts of values against a bracket [low, high]: how many are below, and those within."""

    def __init__(self, low: np.float32, high: np.float32) -> None:
        self.low, self.high = low, high
        self.total = self.below = 0
        self._kept: list[_Floats] = []
        self._pending = 0
        self._distinct: tuple[_Floats, npt.NDArray[np.int64]] = (np.empty(0, np.float32), np.empty(0, int))
        self._gave_up = False

    def count(self, values: Tensor) -> tuple[int, int, list[_Floats]]:
        """Return how many values there are, how many are below, and those within; changes nothing."""
        flat = values.detach().cpu().contiguous().view(-1).numpy()
        return (flat.size, 0, []) if self._gave_up else (flat.size, *self._count(flat))

    def add(self, size: int, below: int, kept: list[_Floats]) -> None:
        """Take in what `count` found."""
        self.total += size
        if self._gave_up:
            return
        self.below += below
        self._kept += kept
        self._pending += sum(part.size for part in kept)
        if self._pending > _COMPRESS:
            self._compress()
            if self._distinct[0].size > _MOST_KEPT:
                self._gave_up, self._distinct = True, (np.empty(0, np.float32), np.empty(0, int))

    def _count(self, flat: _Floats) -> tuple[int, list[_Floats]]:
        size = min(_CHUNK, flat.size)
        magnitude, above, beyond = np.empty(size, np.float32), np.empty(size, bool), np.empty(size, bool)
        below, kept = 0, []
        for start in range(0, flat.size, size):
            part = flat[start : start + size]
            m, a, b = magnitude[: part.size], above[: part.size], beyond[: part.size]
            np.abs(part, out=m)
            np.greater_equal(m, self.low, out=a)
            np.greater(m, self.high, out=b)
            below += part.size - int(np.count_nonzero(a))
            np.not_equal(a, b, out=a)
            kept.append(m[a])
        return below, kept

    def _compress(self) -> None:
        """Turn what was kept into distinct values with their counts: ties take no room."""
        fresh, counts = np.unique(np.concatenate(self._kept), return_counts=True)
        values = np.concatenate([self._distinct[0], fresh])
        distinct, place = np.unique(values, return_inverse=True)
        totals = np.zeros(distinct.size, dtype=np.int64)
        np.add.at(totals, place, np.concatenate([self._distinct[1], counts]))
        self._distinct, self._kept, self._pending = (distinct, totals), [], 0

    def value(self) -> float | None:
        """Return the value of the clamp's rank, or None if the bracket does not hold it."""
        if self._gave_up:
            return None
        within = clamp_rank(self.total) - self.below
        values, counts = self._distinct
        if not 0 <= within < int(counts.sum()) + self._pending:
            return None
        if not values.size:
            return float(np.partition(np.concatenate(self._kept), within)[within])
        if self._kept:
            self._compress()
        values, counts = self._distinct
        return float(values[np.searchsorted(counts.cumsum(), within, side="right")])


def _counted(pair: tuple[_Bracket, Tensor]) -> tuple[int, int, list[_Floats]]:
    bracket, values = pair
    return bracket.count(values)


def _samples(stacks: Iterable[Sequence[Tensor]]) -> list[tuple[int, _Floats]]:
    """Draw |values| from every layer, in proportion to its size: (width, values) a layer."""
    drawn: list[tuple[int, list[_Floats]]] = []
    seed = np.random.default_rng(0)
    for stack in stacks:
        drawn = drawn or [(layer.shape[1], []) for layer in stack]
        every = max(1, sum(layer.numel() for layer in stack) // _SAMPLE)
        for layer, (_, parts) in zip(stack, drawn, strict=True):
            flat = layer.detach().contiguous().view(-1)
            if every > 1:
                at = torch.from_numpy(seed.integers(0, flat.numel(), -(-flat.numel() // every)))
                flat = flat[at.to(flat.device)]
            parts.append(np.abs(flat.cpu().numpy()))
    return [(width, np.concatenate(parts)) for width, parts in drawn]


def _bracket(sample: _Floats) -> tuple[np.float32, np.float32]:
    """Return values of a sample between which the clamp of all values lies in all likelihood."""
    size = sample.size
    at, off = clamp_rank(size), math.ceil(_DEVIATIONS * math.sqrt(size * SHARE * (1 - SHARE))) + 1
    ranks = [rank for rank in (at - off, at + off) if 0 <= rank < size]
    ordered = np.partition(sample, ranks) if ranks else sample
    low = ordered[at - off] if at >= off else np.float32(0)
    high = ordered[at + off] if at + off < size else np.float32(np.inf)
    return low, high


def _radix_select(stacks: Stacks, ranks: dict[int, int], grouped: bool) -> dict[int, float]:
    """Return the value of a rank in each group: its high bits by one pass, the low bits by another."""
    high = {group: np.zeros(2 ** (31 - _LOW_BITS), dtype=np.int64) for group in ranks}
    for group, bits in _bits(stacks, ranks, grouped):
        high[group] += np.bincount(bits >> _LOW_BITS, minlength=high[group].size)
    prefix, left = {}, {}
    for group, rank in ranks.items():
        upto = high[group].cumsum()
        prefix[group] = int(np.searchsorted(upto, rank, side="right"))
        left[group] = rank - int(upto[prefix[group]] - high[group][prefix[group]])
    low = {group: np.zeros(2**_LOW_BITS, dtype=np.int64) for group in ranks}
    for group, bits in _bits(stacks, ranks, grouped):
        rest = bits[bits >> _LOW_BITS == prefix[group]] & (2**_LOW_BITS - 1)
        low[group] += np.bincount(rest, minlength=low[group].size)
    found = {}
    for group in ranks:
        last = int(np.searchsorted(low[group].cumsum(), left[group], side="right"))
        found[group] = float(np.array(prefix[group] << _LOW_BITS | last, dtype=np.uint32).view(np.float32))
    return found


def _bits(
    stacks: Stacks, groups: dict[int, int], grouped: bool
) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Iterate over the bits of |values|, which are ordered as the values are."""
    for stack in stacks():
        for index, layer in enumerate(stack):
            group = 0 if grouped else index
            if group in groups:
                flat = layer.detach().cpu().contiguous().view(-1).numpy().view(np.uint32)
                for start in range(0, flat.size, _CHUNK):
                    yield group, flat[start : start + _CHUNK] & np.uint32(0x7FFFFFFF)


def _row_quantiles(layers: Sequence[Tensor]) -> Iterator[float]:
    """Iterate over the interpolated quantile of |values| of every row, its layers side by side."""
    width = sum(layer.shape[1] for layer in layers)
    position = SHARE * (width - 1)
    lower = math.floor(position)
    upper, part = min(lower + 1, width - 1), position - lower
    step = max(1, _ROW_BYTES // (4 * width))
    for start in range(0, layers[0].shape[0], step):
        rows = torch.cat([layer[start : start + step].detach().cpu() for layer in layers], dim=1).abs_()
        around = [lower, upper]
        if width < _LONG_ROW:
            ordered = np.partition(rows.numpy(), around, axis=1)[:, around]
        else:
            ordered = np.array([_around(row, around) for row in rows.numpy()])
        low, high = ordered.astype(np.float64).T
        yield from (low + part * (high - low)).tolist()


def _around(row: _Floats, ranks: list[int]) -> _Floats:
    """Return the values of ascending ranks of a row: of its largest values, where a sample finds them."""
    sample = row[:: row.size // _ROW_SAMPLE]
    off = math.ceil(_DEVIATIONS * math.sqrt(sample.size * SHARE * (1 - SHARE)))
    place = max(0, clamp_rank(sample.size) - off)
    tail = row[row >= np.partition(sample, place)[place]]
    below = row.size - tail.size
    if below > ranks[0]:
        tail, below = row, 0
    at = [rank - below for rank in ranks]
    found: _Floats = np.partition(tail, at)[at]
    return found
