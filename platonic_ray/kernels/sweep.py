"""The tile engine: the nearest rows of many queries, by one pass of tiles over rows of any number.

A search is over a sequence of rows, read block by block: from memory, or from wherever `read` has them. As much of
the gallery as fits a fixed room is held as factors, and blocks of queries go by it. Each product is made once and
offered to the queries on both sides of it (`collect`), in rounds of which no two threads share a query (`rounds`);
what is held is that room, a tile a thread, and of every query its candidates, whatever the number of rows. When all
has gone by, every candidate gets its canonical value, and these decide: the bound on the error of a product (`frame`)
says that no neighbor can be missing among the candidates. Products are of bfloat16 or of 16-bit integers where these
are fast (`factors`), else of float32; if there turn out to be many rows that coarse factors cannot part, all are gone
over by finer ones. Queries with more near-ties than candidates have room for, and all if the rows are not fit for
float32, go through `search` instead.

The bound on its time, of a gallery of N rows against itself: N² D / 2 multiply-adds, half of what products without
symmetry take, at the speed of the format's products; N²/2 cells that are looked at from two sides while they are in
the cache; about N (k + 4) canonical dots. Rows that are not in memory are read once to measure them, then as often
as the gallery has parts that are held (on average half as often, and a half); and again for every `PAIRS` candidates.

Measured on CPUs (`jobs/benchmark.py neighbors`). What it does on a GPU, where torch merges the candidates of a
tile, has been tested for its results and never timed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from platonic_ray.kernels.collect import Candidates, candidate_bytes, candidates_for, room_for
from platonic_ray.kernels.exhaustive import Similarity, cost_of, pair_values
from platonic_ray.kernels.factors import TILE, Factors, crowd_of, fastest, pieces, rounds_low
from platonic_ray.kernels.frame import measure
from platonic_ray.kernels.rounds import GRAIN, Pair, rounds
from platonic_ray.kernels.search import Search, padded
from platonic_ray.kernels.threads import Run, one_thread, threads, workers
from platonic_ray.kernels.ties import TieRule
from platonic_ray.kernels.topk import TopK, merge_neighbors

Read = Callable[[int, int], Tensor]
"""Gives rows `start` to `stop` of a search, `[stop − start, D] float32`, prepared and finite."""

BLOCK_BYTES = 16 * 2**20
"""Bytes of the rows that are read at a time."""

HELD_BYTES = 128 * 2**20
"""Bytes of the gallery that are held, as factors; of rows, when candidates get their values."""

_BLOCKS = (
    4  # that are in memory beside what is held: the last, and the next as stored, as rows and as factors
)
_AGAIN = 4  # blocks of queries that are searched again at a time
_MOST_GIVEN_UP = 1 / 8  # of the queries, before coarse factors are
PAIRS = 2**23  # candidates that get their values, and are sorted, at a time
_SORTED_BYTES = 80  # of each meanwhile
_ROW_BYTES = 4  # of an entry of float32
_PIECES, _PIECE = 32, 64  # of rows whose mean is the center


class Sweep:
    """A search over rows of which the first `queries` are queries, `keep` nearest of each wanted.

    Rows are given by their places in the search. Use: `add` what is to be compared, then `nearest`, as
    often as the gallery has grown.

    :param read: gives rows by their places; `rows`, where they are in memory, `[n, D] float32`.
    :param ids: `[n] int64`; a row with the query's own id is not its neighbor.
    :param block_rows: rows that are read at a time, up to a multiple of `GRAIN`; by default `BLOCK_BYTES` of them.
    """

    def __init__(
        self,
        read: Read,
        ids: Tensor,
        width: int,
        keep: int,
        rule: TieRule,
        similarity: Similarity,
        *,
        rows: Tensor | None = None,
        queries: int | None = None,
        block_rows: int | None = None,
    ) -> None:
        self._read, self._ids, self._keep, self._rows = read, ids, keep, rows
        self._rule, self._similarity = rule, similarity
        self._queries = ids.shape[0] if queries is None else queries
        self._width, self._block = width, _whole_grains(block_rows or max(1, BLOCK_BYTES // (4 * width)))
        device = ids.device.type
        self._threads = torch.get_num_threads() if device == "cpu" else 1
        every = range(ids.shape[0])
        self._measured = measure(
            lambda: map(self._block_of, self._blocks(every)),
            similarity,
            low=rounds_low(device),
            sample=self._sample(),
        )
        self._factors: Factors | None = None
        self._candidates: Candidates | None = None
        if self._measured is not None:
            self._by(fastest(self._measured, device))
        self._added: list[tuple[range, range, bool]] = []
        self._place: Tensor | None = None

    def add(self, rows: range, columns: range, both: bool = True) -> None:
        """Let `columns` be the gallery of the queries `rows`; if `both`, also the other way round.

        The same range twice are rows that are queries and gallery of each other.
        """
        if self._measured is None:
            return
        self._added.append((rows, columns, both))
        if not self._go_over(rows, columns, both):
            # To search each of the rows that were given up again would take longer than all of it by finer factors.
            assert self._factors is not None
            self._by(self._factors.finer())
            for ranges in self._added:
                self._go_over(*ranges)

    def _by(self, factors: Factors | None) -> None:
        """Begin, or begin again, with factors of a format."""
        assert self._measured is not None
        assert factors is not None
        self._factors, self._candidates = factors, None  # which makes room
        self._candidates = candidates_for(self._measured, self._ids, self._queries, self._keep, factors)

    def _go_over(self, rows: range, columns: range, both: bool) -> bool:
        """Return whether it has come to its end: not if there are finer factors, and too many queries are given up."""
        assert self._factors is not None
        with workers(self._threads) as run:
            parts = pieces(columns, self._rows_of(self._factors.entry_bytes))
            return all(self._pass_by(held, rows, rows == columns, both, run) for held in parts)

    def _pass_by(self, held: range, rows: range, own: bool, both: bool, run: Run) -> bool:
        """Let queries pass by a part of the gallery: all of them or, if they are the gallery, those before its end."""
        factors, candidates = self._factors, self._candidates
        assert factors is not None
        assert candidates is not None
        finer, right = factors.finer() is not None, factors.gallery(len(held))
        for block in [] if own else self._blocks(held):
            factors.hold(right, block.start - held.start, self._block_of(block), run)
        # Then from near to far: rows next to each other are often alike, and early thresholds are worth most.
        before = range(rows.start, held.start) if own else rows
        for left in (self._blocks(held) if own else []) + self._blocks(before)[::-1]:
            given = self._block_of(left)
            inside = own and left.start >= held.start
            if inside:
                factors.hold(right, left.start - held.start, given, run)
            offer = partial(
                factors.offer,
                factors.queries(given, run),
                right,
                first=(left.start, held.start),
                both=both,
                to=candidates,
            )
            for pairs in self._meetings(left, held, both, inside):
                run(partial(offer, rows=_within(a, left), columns=_within(b, held)) for a, b in pairs)
                if finer and factors.too_coarse(pairs[0][0], candidates):
                    return False
            if finer and candidates.given_up() > _MOST_GIVEN_UP * self._queries:
                return False
        return True

    def _meetings(self, left: range, held: range, both: bool, inside: bool) -> list[list[Pair]]:
        """Return rounds in which a block meets what is held; if it is a part of it, itself and what is before it."""
        if not inside:
            return rounds(left, held, self._threads, both)
        before = range(held.start, left.start)
        return rounds(left, left, self._threads) + (
            rounds(left, before, self._threads, both) if before else []
        )

    def nearest(
        self, queries: range, gallery: range, tally: Counter[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ids `[q, keep] int64` and canonical values of the nearest rows of some queries.

        −1 and the worst value where there are no more.

        :param gallery: what has been added to all of these queries.
        :param tally: receives how many queries were settled by tiles ("bfloat16", "refined", "int16" or "float32"),
            how many had to be searched again ("again"), and how many candidates took a canonical value ("pairs").
        """
        counts = Counter() if tally is None else tally
        worst = -torch.inf if self._similarity == "inner" else torch.inf
        size, device = (len(queries), self._keep), self._ids.device
        ids = torch.full(size, -1, dtype=torch.int64, device=device)
        values = torch.full(size, worst, dtype=torch.float64, device=device)
        lost = torch.arange(queries.start, queries.stop, device=device)
        if self._factors is not None and self._candidates is not None:
            given_up = []
            for part in pieces(queries, max(1, PAIRS // room_for(self._keep, self._factors.crowd))):
                row, column, without = self._candidates.take(part.start, part.stop)
                counts["pairs"] += row.shape[0]
                settled, found, best = self._sorted(row, column, self._canonical(row, column))
                at = settled - queries.start
                ids[at, : found.shape[1]], values[at, : found.shape[1]] = found, best
                given_up.append(without)
            lost = torch.cat([lost[:0], *given_up])
            counts[str(self._factors.factors).removeprefix("torch.")] += len(queries) - lost.shape[0]
        if lost.shape[0]:
            counts["again"] += lost.shape[0]
            again = self._again(lost, gallery)
            ids[lost - queries.start], values[lost - queries.start] = again.ids, again.values
        return ids, values

    def _canonical(self, row: Tensor, column: Tensor) -> Tensor:
        """Return the canonical value `[p] float64` of every pair of rows, the same either way round."""
        early, late, most = torch.minimum(row, column), torch.maximum(row, column), self._ids.shape[0]
        with one_thread():  # torch sorts so few numbers faster
            pairs, which = torch.unique(early * most + late, return_inverse=True)
        return self._values(pairs // most, pairs % most)[which]

    def _values(self, early: Tensor, late: Tensor) -> Tensor:
        """Return the canonical value of every pair of rows, of which the first comes before the second."""
        if self._rows is not None:
            return pair_values(self._rows, self._rows, early, late, self._similarity)
        # So that few rows are read, the later of a pair are held, many at a time, and blocks go by where the earlier
        # are not among them.
        size, most = self._rows_of(_ROW_BYTES), self._ids.shape[0]
        part = late // size
        block = (early // self._block).masked_fill(early >= part * size, most)
        key = part * (most + 1) + block
        order = torch.argsort(key, stable=True)
        values = torch.empty(late.shape[0], dtype=torch.float64, device=late.device)
        groups, lengths = torch.unique_consecutive(key[order], return_counts=True)
        before, held = -1, None
        for group, chosen in zip(groups.tolist(), order.split(lengths.tolist()), strict=True):
            which, at = divmod(group, most + 1)
            first = which * size
            if which != before:
                held = earlier = None  # which makes room for the next
                before, held = which, self._read_all(range(first, min(first + size, most)))
            assert held is not None
            earlier, start = held, first
            if at < most:
                start = at * self._block
                earlier = self._block_of(range(start, start + self._block))
            i, j = early[chosen] - start, late[chosen] - first
            values[chosen] = pair_values(earlier, held, i, j, self._similarity)
        return values

    def _sorted(self, row: Tensor, column: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries `[s]`, and ids and values `[s, ≤ keep]` of their nearest, of pairs query by query."""
        if row.shape[0] == 0:
            return row, row.new_empty(0, 0), value.reshape(0, 0)
        settled, lengths = torch.unique_consecutive(row, return_counts=True)
        score, at, place = padded(-cost_of(value, self._similarity), lengths)
        which = torch.zeros(score.shape, dtype=torch.int64, device=row.device)
        which[at, place] = column
        score, order = score.sort(dim=1, descending=True, stable=True)
        which = which.gather(1, order)
        most = min(self._keep, score.shape[1])
        tied = (score[:, 1:] == score[:, :-1]) & (score[:, 1:] > -torch.inf)
        lines = tied.any(1).nonzero().squeeze(1)
        if lines.shape[0]:
            if self._place is None:
                self._place = torch.argsort(self._rule.order(self._ids))
            order = torch.argsort(self._place[which[lines]], dim=1, stable=True)
            again = torch.argsort(score[lines].gather(1, order), dim=1, descending=True, stable=True)
            order = order.gather(1, again)
            score[lines], which[lines] = score[lines].gather(1, order), which[lines].gather(1, order)
        score, which = score[:, :most], which[:, :most]
        ids = self._ids[which].masked_fill(score == -torch.inf, -1)
        return settled, ids, -cost_of(score, self._similarity)

    def _again(self, lost: Tensor, gallery: range) -> TopK:
        """Search the gallery for queries that tiles could not settle, a block of them at a time."""
        groups = [self._searched(group, gallery) for group in lost.split(_AGAIN * self._block)]
        return TopK(torch.cat([top.ids for top in groups]), torch.cat([top.values for top in groups]))

    def _searched(self, lost: Tensor, gallery: range) -> TopK:
        rows = self._gathered(lost)
        found: TopK | None = None
        for block in self._blocks(gallery):
            part = slice(block.start, block.stop)
            searched = Search(
                self._block_of(block), self._ids[part], self._keep, self._rule, self._similarity
            )
            more = TopK(*searched.nearest(rows, self._ids[lost]))
            found = more if found is None else merge_neighbors(found, more, self._rule, self._similarity)
        assert found is not None
        return found

    def _gathered(self, places: Tensor) -> Tensor:
        if self._rows is not None:
            return self._rows[places]
        parts = []
        for block in self._blocks(range(int(places[-1]) + 1)):
            inside = places[(places >= block.start) & (places < block.stop)]
            if inside.shape[0]:
                parts.append(self._read(block.start, block.stop)[inside - block.start])
        return torch.cat(parts)

    def _read_all(self, rows: range) -> Tensor:
        held = torch.empty(len(rows), self._width, dtype=torch.float32, device=self._ids.device)
        for block in self._blocks(rows):
            held[block.start - rows.start : block.stop - rows.start] = self._block_of(block)
        return held

    def _sample(self) -> Tensor | None:
        """Return some rows from all over; none if there are few."""
        step = self._ids.shape[0] // _PIECES
        if step < 2 * _PIECE:
            return None
        return torch.cat([self._block_of(range(at, at + _PIECE)) for at in range(0, step * _PIECES, step)])

    def _block_of(self, rows: range) -> Tensor:
        with threads(self._threads):
            return self._read(rows.start, rows.stop)

    def _blocks(self, rows: range) -> list[range]:
        return pieces(rows, self._block)

    def _rows_of(self, entry_bytes: int) -> int:
        """Return how many rows are held at a time, in whole blocks."""
        row_bytes = entry_bytes * _whole_grains(
            self._width
        )  # panels of matrix units have whole grains of columns
        return max(1, HELD_BYTES // (row_bytes * self._block)) * self._block


def sweep_bytes(queries: int, width: int, keep: int, device: str = "cpu") -> float:
    """Return the most bytes that a search holds beside its rows and what it returns.

    Candidates of all queries, blocks of rows and a tile, and pairs while they are sorted. See docs/neighbors.md.
    """
    crowd = crowd_of(width, device)
    pairs = min(PAIRS, queries * room_for(keep, crowd))
    blocks = HELD_BYTES + _BLOCKS * BLOCK_BYTES + 4 * TILE.get(device, TILE["cuda"]) ** 2
    return queries * candidate_bytes(keep, crowd) + blocks + _SORTED_BYTES * pairs


def _within(rows: range, block: range) -> range:
    return range(rows.start - block.start, rows.stop - block.start)


def _whole_grains(rows: int) -> int:
    return -(-rows // GRAIN) * GRAIN
