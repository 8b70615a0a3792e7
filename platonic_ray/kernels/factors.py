"""Rows as factors of fast products, in the format whose products take the least time, and how these are offered.

A search makes each product once, on one thread, and offers it to the candidates of its queries (`collect`) while
it is in the cache. Formats are bfloat16 on matrix units, which never store a product (`matrix_units`); 16-bit
integers on x86 without them (`integer_products`); float32, and bfloat16 on GPUs, by torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from platonic_ray.kernels.collect import Candidates, Format, NativeCandidates
from platonic_ray.kernels.compiled import integer_products, matrix_units
from platonic_ray.kernels.frame import Frame, Framed, Kind, fast_bfloat16, scaled
from platonic_ray.kernels.threads import Run

TILE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of products that are stored at a time."""

_CORNERS = 4  # parts that a tile on the diagonal is cut into, so that little of it is made twice
_LONGER = 8  # times the usual norm: so much longer may the longest row be for integers to do
_FEW = 64  # queries that are looked at after a round
_PACKED = 512  # rows that become factors at a time


class Factors(Format, Protocol):
    """A format, and what makes factors of rows and offers their products."""

    entry_bytes: int
    """Bytes of an entry of a gallery's factors."""

    def queries(self, rows: Tensor, run: Run) -> Any:
        """Return rows `[r, D] float32` as left factors."""

    def gallery(self, count: int) -> Any:
        """Return room for so many rows as right factors."""

    def hold(self, gallery: Any, start: int, rows: Tensor, run: Run) -> None:
        """Put rows into a gallery, from its row `start` on, a multiple of `GRAIN`."""

    def offer(
        self,
        left: Any,
        right: Any,
        rows: range,
        columns: range,
        first: tuple[int, int],
        both: bool,
        to: Candidates,
    ) -> None:
        """Offer the products of some queries with some of a gallery to candidates.

        :param rows: of the block `left`, `columns` of the block `right`. Where both are the same rows of the search,
            every two of them are offered to each other once.
        :param first: the places in the search of the blocks' first rows.
        :param both: whether the columns are queries too.
        """

    def too_coarse(self, some: range, candidates: Candidates) -> bool:
        """Return whether some queries that have met others show that it cannot part the rows, before they are given up.

        Only where finer factors take little longer.
        """

    def finer(self) -> Factors | None:
        """Return the format for rows of which this one cannot part too many; None if there is none."""


def fastest(framed: Framed, device: str) -> Factors:
    """Return the format whose products take the least time there."""
    frame = framed.frame
    if device == "cpu" and matrix_units() is not None:
        return OnMatrixUnits(frame)
    if fast_bfloat16(device):
        return ByTorch(frame, torch.bfloat16)
    if device == "cpu" and integer_products() is not None:
        # One unit serves all rows: it is too coarse where few are far longer than most.
        norms = framed.norms
        if float(norms.amax()) <= _LONGER * float(norms.square().mean().sqrt()):
            return Integers(frame)
    return ByTorch(frame, torch.float32)


def rounds_low(device: str) -> bool:
    """Return whether factors are of bfloat16 there."""
    return (device == "cpu" and matrix_units() is not None) or fast_bfloat16(device)


def crowd_of(width: int, device: str) -> float:
    """Return the `crowd` of the format that is `fastest` there for rows of a width, whatever the rows."""
    return _crowd_on_units(width) if device == "cpu" and matrix_units() is not None else _Stored.crowd


def _crowd_on_units(width: int) -> float:
    # What rounding leaves open grows as the norms, and what parts isotropic rows as these by √D: of 4,096 columns
    # five times as many stay as are wanted, measured.
    return width / 512


class OnMatrixUnits:
    """Panels of bfloat16: products are in float32, filtered where they are made."""

    factors: Kind = torch.bfloat16
    made, entry_bytes = torch.float32, 2

    def __init__(self, frame: Frame) -> None:
        self._frame, self._units = frame, matrix_units()
        self.crowd = _crowd_on_units(frame.center.shape[0])

    def queries(self, rows: Tensor, run: Run) -> Any:
        panels = self._units.panels_of(*rows.shape)
        self._fill(panels, 0, rows, False, run)
        return panels

    def gallery(self, count: int) -> Any:
        return self._units.panels_of(count, self._frame.center.shape[0])

    def hold(self, gallery: Any, start: int, rows: Tensor, run: Run) -> None:
        self._fill(gallery, start, rows, True, run)

    def _fill(self, panels: Tensor, start: int, rows: Tensor, right: bool, run: Run) -> None:
        frame = self._frame

        def fill(at: int, part: Tensor) -> None:
            self._units.fill(panels, start + at, scaled(part, frame.scale), frame.center, right)

        _spread(fill, rows, run)

    def offer(
        self,
        left: Any,
        right: Any,
        rows: range,
        columns: range,
        first: tuple[int, int],
        both: bool,
        to: Candidates,
    ) -> None:
        if _done(rows, columns, first, both, to):
            return
        left, right, state = self._sides(left, right, first, to)
        alike = _alike(rows, columns, first)
        if alike:
            right = right[(first[0] - first[1]) // self._units.PANEL :]
            columns, first = rows, (first[0], first[0])
        self._units.offer_products(
            left.numpy(),
            right.numpy(),
            (rows.start, rows.stop),
            (columns.start, columns.stop),
            first,
            both,
            alike,
            self._units.PALETTE,
            *state,
        )

    def _sides(
        self, left: Any, right: Any, first: tuple[int, int], to: Candidates
    ) -> tuple[Tensor, Tensor, Any]:
        """Return the panels of both sides, and what the compiled loops take."""
        assert isinstance(to, NativeCandidates)
        return left, right, to.state()

    def too_coarse(self, some: range, candidates: Candidates) -> bool:
        assert isinstance(candidates, NativeCandidates)
        return candidates.crowded(some[:_FEW]) > 1 / 2

    def finer(self) -> Factors | None:
        return RefinedOnMatrixUnits(self._frame)


class RefinedOnMatrixUnits(OnMatrixUnits):
    """The same, and of each that is possible a product in float64 of the rows themselves, which are held beside."""

    factors: Kind = "refined"
    entry_bytes = 2 + 4

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame)
        self.crowd = 0.0

    def queries(self, rows: Tensor, run: Run) -> Any:
        return super().queries(rows, run), self._frame.centered(rows)

    def gallery(self, count: int) -> Any:
        return super().gallery(count), self._frame.center.new_empty(count, self._frame.center.shape[0])

    def hold(self, gallery: Any, start: int, rows: Tensor, run: Run) -> None:
        panels, own = gallery
        super().hold(panels, start, rows, run)
        torch.sub(scaled(rows, self._frame.scale), self._frame.center, out=own[start : start + rows.shape[0]])

    def _sides(
        self, left: Any, right: Any, first: tuple[int, int], to: Candidates
    ) -> tuple[Tensor, Tensor, Any]:
        assert isinstance(to, NativeCandidates)
        return left[0], right[0], to.state(left[1], right[1], first)

    def finer(self) -> Factors | None:
        return None


class _Stored(ABC):
    """Products that are made tile by tile, in memory."""

    factors: torch.dtype
    made: torch.dtype
    entry_bytes: int
    crowd = 0.0

    def __init__(self, frame: Frame) -> None:
        self._frame, self._tile = frame, TILE.get(frame.center.device.type, 8192)

    @abstractmethod
    def _of(self, rows: Tensor) -> Tensor:
        """Return rows `[r, D] float32` as factors."""

    @abstractmethod
    def _multiply(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        """Put the products of factors into `out`."""

    def queries(self, rows: Tensor, run: Run) -> Tensor:
        made = self.gallery(rows.shape[0])
        self.hold(made, 0, rows, run)
        return made

    def gallery(self, count: int) -> Tensor:
        center = self._frame.center
        width = self._of(center.new_empty(0, center.shape[0])).shape[1]
        return center.new_empty(count, width, dtype=self.factors)

    def hold(self, gallery: Tensor, start: int, rows: Tensor, run: Run) -> None:
        def fill(at: int, part: Tensor) -> None:
            gallery[start + at : start + at + part.shape[0]] = self._of(part)

        _spread(fill, rows, run)

    def too_coarse(self, some: range, candidates: Candidates) -> bool:
        return False

    def finer(self) -> Factors | None:
        return None if self.factors == torch.float32 else ByTorch(self._frame, torch.float32)

    def offer(
        self,
        left: Tensor,
        right: Tensor,
        rows: range,
        columns: range,
        first: tuple[int, int],
        both: bool,
        to: Candidates,
    ) -> None:
        cells = min(len(rows), self._tile) * min(len(columns), self._tile)
        buffer = torch.empty(cells, dtype=self.made, device=left.device)
        alike = _alike(rows, columns, first)
        if alike:
            right = right[first[0] - first[1] :]
            columns, first = rows, (first[0], first[0])

        def offer(some: range, others: range, mutual: bool) -> None:
            if _done(some, others, first, mutual, to):
                return
            tile = buffer[: len(some) * len(others)].view(len(some), len(others))
            self._multiply(left[some.start : some.stop], right[others.start : others.stop], tile)
            row, col = first[0] + some.start, first[1] + others.start
            to.offer_rows(tile, 0, len(some), row, col)
            if mutual:
                to.offer_columns(tile, 0, len(others), row, col)

        for others in pieces(columns, self._tile):
            for some in pieces(rows, self._tile):
                if not alike or some.start < others.start:
                    offer(some, others, both)
                elif some == others:
                    for corner in pieces(some, max(64, -(-len(some) // _CORNERS))):
                        offer(corner, corner, False)
                        if beyond := range(corner.stop, some.stop):
                            offer(corner, beyond, True)


class Integers(_Stored):
    """16-bit integers, whose sums are exact."""

    factors, made, entry_bytes = torch.int16, torch.float32, 2

    def _of(self, rows: Tensor) -> Tensor:
        return self._frame.integers(rows)

    def _multiply(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        pairs = (side.numpy().view(np.int32) for side in (left, right))
        integer_products()(*pairs, np.float32(self._frame.unit**2), out.numpy())


class ByTorch(_Stored):
    """Products of torch's, made in the format of their factors."""

    def __init__(self, frame: Frame, factors: torch.dtype) -> None:
        super().__init__(frame)
        self.factors = self.made = factors
        self.entry_bytes = factors.itemsize

    def _of(self, rows: Tensor) -> Tensor:
        return self._frame.centered(rows).to(self.factors)

    def _multiply(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        torch.mm(left, right.T, out=out)


def pieces(rows: range, size: int) -> list[range]:
    """Cut rows into pieces of a size, the last of which may be smaller."""
    return [range(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def _spread(fill: Callable[[int, Tensor], None], rows: Tensor, run: Run) -> None:
    run(partial(fill, at, rows[at : at + _PACKED]) for at in range(0, rows.shape[0], _PACKED))


def _alike(rows: range, columns: range, first: tuple[int, int]) -> bool:
    """Return whether rows of one block and columns of another are the same rows of the search."""
    return len(rows) == len(columns) and first[0] + rows.start == first[1] + columns.start


def _done(rows: range, columns: range, first: tuple[int, int], both: bool, to: Candidates) -> bool:
    """Return whether no query there is still looked for."""
    sides = [(rows, first[0]), (columns, first[1])] if both else [(rows, first[0])]
    return all(to.full(range(at + side.start, at + side.stop)) for side, at in sides)
