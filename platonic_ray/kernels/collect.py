"""What a search holds of its queries while tiles go by: their candidates, filtered while a tile is hot.

A query's threshold is the score that its `keep`-th best proposal so far has, less twice the error of
proposals (`frame`): a row whose proposal is below it is out for good. The threshold only rises, so later
tiles yield few candidates: of a gallery of g rows in random order about keep (1 + ln(g / keep)).
Each query has room for `room_for(keep)` candidates and no more, so that memory is fixed beforehand. A
query that needs more, for it has many near-ties, is given up here and left to another search.

`NativeCandidates` is for CPUs with numba, `TorchCandidates` for all else; both find the same neighbors.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from platonic_ray.kernels.compiled import native
from platonic_ray.kernels.frame import Framed, Kind, rounded_down

MOST_IN_ORDER = 64
"""The most neighbors of a query whose best proposals are kept in order."""


_NO_ROWS = np.zeros((0, 0), np.float32)


class Format(Protocol):
    """What proposals come from: `factors` are rounded to one kind of number, products and scores `made` in another."""

    made: torch.dtype
    crowd: float
    """How many times `keep` proposals may be too close to be told apart, beyond what is usual."""

    @property
    def factors(self) -> Kind: ...


class Candidates(Protocol):
    """The candidates of the first `queries` rows of a search, `keep` neighbors of each wanted.

    Rows are given by their place in the search. A row is no candidate of a query with the same id.
    """

    def offer_rows(self, tile: Tensor, start: int, stop: int, row: int, col: int) -> None:
        """Take the candidates of queries from rows `start` to `stop` of a tile `[r, c]` of products u_i·v_j.

        Its first cell is that of rows (row, col). Calls for different queries may run side by side.
        """

    def offer_columns(self, tile: Tensor, start: int, stop: int, row: int, col: int) -> None:
        """The same of some of its columns, which are queries as well, and the tile's rows their gallery."""

    def full(self, rows: range) -> bool:
        """Return whether all queries of some rows have been given up."""

    def given_up(self) -> int:
        """Return how many queries have been given up."""

    def take(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and columns `[p] int64` of the candidates of some queries, query by query, and
        the queries `[g] int64` that were given up, which have none."""


def candidates_for(framed: Framed, ids: Tensor, queries: int, keep: int, proposals: Format) -> Candidates:
    """Return empty candidates, for proposals from factors of a format."""
    if ids.device.type == "cpu" and native() is not None:
        return NativeCandidates(framed, ids, queries, keep, proposals)
    return TorchCandidates(framed, ids, queries, keep, proposals)


def room_for(keep: int, crowd: float = 0.0) -> int:
    """Return how many candidates a query has room for; `crowd` is that of the format."""
    return 2 * keep + 64 + int(crowd * keep)


def usual_for(keep: int, crowd: float = 0.0) -> int:
    """Return how many candidates hardly any query has in the end, where a format parts the rows."""
    return int((2 + crowd) * keep) + 8


def candidate_bytes(keep: int, crowd: float = 0.0) -> int:
    """Return the bytes that are held of a query, whatever the gallery."""
    return 8 * room_for(keep, crowd) + (4 * keep if keep <= MOST_IN_ORDER else 0) + 48


class NativeCandidates:
    """Candidates in flat arrays, filtered by compiled loops."""

    def __init__(self, framed: Framed, ids: Tensor, queries: int, keep: int, proposals: Format) -> None:
        room = room_for(keep, proposals.crowd)
        margin, share = framed.frame.margin(framed.norms[:queries], proposals.factors, proposals.made)
        self._best = np.full((queries, keep if keep <= MOST_IN_ORDER else 0), -np.inf, np.float32)
        self._threshold = np.full(queries, -np.inf, np.float32)
        self._count = np.zeros(queries, np.int32)
        self._score = np.empty((queries, room), np.float32)
        self._column = np.empty((queries, room), np.int32)
        self._keep, self._usual = keep, usual_for(keep, proposals.crowd)
        self._bounds = share, margin.numpy(), self._best, self._threshold, self._count, self._score
        self._state = framed.biases.float().numpy(), ids.numpy(), keep, *self._bounds, self._column
        refined = proposals.factors == "refined"
        lower = framed.frame.lower(framed.norms[:queries]) if refined else framed.norms[:0].float()
        self._lower = lower.numpy()

    def state(
        self, left: Tensor | None = None, right: Tensor | None = None, first: tuple[int, int] = (0, 0)
    ) -> Any:
        """Return what the compiled loops take of it all, last.

        :param left: and `right`, for refined proposals, the blocks' centered rows `[r, D] float32`; `first` are the
            places of their first.
        """
        blocks = (_NO_ROWS if side is None else side.numpy() for side in (left, right))
        return *self._state, (self._lower, *blocks, *first)

    def offer_rows(self, tile: Tensor, start: int, stop: int, row: int, col: int) -> None:
        # A part of the tile, so that what is converted is what is looked at.
        part = tile[start:stop].float().numpy()
        native().offer_rows(part, 0, stop - start, row + start, col, *self.state())

    def offer_columns(self, tile: Tensor, start: int, stop: int, row: int, col: int) -> None:
        native().offer_columns(tile.float().numpy(), start, stop, row, col, *self.state())

    def full(self, rows: range) -> bool:
        return bool((self._count[rows.start : rows.stop] < 0).all())

    def given_up(self) -> int:
        return int((self._count < 0).sum())

    def crowded(self, rows: range) -> float:
        """Return the share of some queries that have more candidates than `usual_for` them, or have been given up."""
        native().tighten(rows.start, rows.stop, self._keep, *self._bounds)
        count, threshold = (array[rows.start : rows.stop, None] for array in (self._count, self._threshold))
        held = np.arange(self._score.shape[1]) < count
        held &= self._score[rows.start : rows.stop] >= threshold
        return float(((held.sum(1) > self._usual) | (count[:, 0] < 0)).mean())

    def take(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        native().tighten(start, stop, self._keep, *self._bounds)
        count = self._count[start:stop]
        held = np.arange(self._score.shape[1]) < count[:, None]
        held &= self._score[start:stop] >= self._threshold[start:stop, None]
        row, place = held.nonzero()
        column = self._column[start:stop][row, place].astype(np.int64)
        lost = start + (count < 0).nonzero()[0]
        return torch.from_numpy(start + row), torch.from_numpy(column), torch.from_numpy(lost)


class TorchCandidates:
    """Candidates as tensors on any device: each tile's are merged into what is held.

    On a GPU this has been tested for its results on CPU tensors only, and not been timed.
    """

    def __init__(self, framed: Framed, ids: Tensor, queries: int, keep: int, proposals: Format) -> None:
        self._keep, self._room, self._ids = keep, room_for(keep, proposals.crowd), ids
        made = proposals.made
        self._margin, self._share = framed.frame.margin(
            framed.norms[:queries], proposals.factors, proposals.made
        )
        self._bias = framed.biases.to(made)
        device = ids.device
        self._threshold = torch.full((queries,), -torch.inf, dtype=made, device=device)
        self._lost = torch.zeros(queries, dtype=torch.bool, device=device)
        self._score = torch.full((queries, self._room), -torch.inf, dtype=made, device=device)
        self._column = torch.zeros((queries, self._room), dtype=torch.int64, device=device)

    def offer_rows(self, tile: Tensor, start: int, stop: int, row: int, col: int) -> None:
        self._merge(tile[start:stop] + self._bias[col : col + tile.shape[1]], row + start, col)

    def offer_columns(self, tile: Tensor, start: int, stop: int, row: int, col: int) -> None:
        bias = self._bias[row : row + tile.shape[0]].unsqueeze(1)
        self._merge((tile[:, start:stop] + bias).T, col + start, row)

    def full(self, rows: range) -> bool:
        return bool(self._lost[rows.start : rows.stop].all())

    def given_up(self) -> int:
        return int(self._lost.sum())

    def take(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        held = self._score[start:stop] >= self._threshold[start:stop, None]
        held &= (self._score[start:stop] > -torch.inf) & ~self._lost[start:stop, None]
        row, place = held.nonzero().unbind(1)
        lost = self._lost[start:stop].nonzero().squeeze(1)
        return start + row, self._column[start:stop][row, place], start + lost

    def _merge(self, scores: Tensor, row: int, col: int) -> None:
        mine = slice(row, row + scores.shape[0])
        own = self._ids[mine].unsqueeze(1) == self._ids[col : col + scores.shape[1]]
        scores = scores.masked_fill(own, -torch.inf)
        # As many as there is room for, and one more: whether there was room for all shows.
        best, at = scores.topk(min(self._room + 1, scores.shape[1]), dim=1)
        best = torch.cat([self._score[mine], best], 1)
        at = torch.cat([self._column[mine], at + col], 1)
        best, order = best.topk(min(self._room + 1, best.shape[1]), dim=1)
        at = at.gather(1, order)
        reached = best[:, self._keep - 1].double()
        margin = self._margin[mine] + (self._share * reached.abs() if self._share else 0.0)
        threshold = torch.where(reached.isinf(), reached, reached - margin)
        self._threshold[mine] = rounded_down(threshold, scores.dtype)
        if best.shape[1] > self._room:
            over = best[:, self._room]
            self._lost[mine] |= (over > -torch.inf) & (over >= self._threshold[mine])
        self._score[mine], self._column[mine] = best[:, : self._room], at[:, : self._room]
