"""The tile engine: the nearest rows of many queries, by one pass of tiles over rows of any number.

A search is over a sequence of rows, read block by block: from memory, or from wherever `read` has them.
Tiles of products go by, each made once and offered to the queries on both sides of it (`collect`), in rounds of
which no two threads share a query (`rounds`); what is held is two blocks, a tile a thread, and of every query its
candidates, whatever the number of rows. When the tiles have gone by, every candidate gets its canonical value, and
these decide: the bound on the error of a product (`frame`) says that no neighbor can be missing among the
candidates. Products are of bfloat16 or of 16-bit integers where these are fast (`factors`), else of float32; many
rows that coarse factors cannot part are gone over once more by float32. Queries with more near-ties than candidates
have room for, and all if the rows are not fit for float32, go through `search` instead.

The bound on its time, of a gallery of N rows against itself: N² D / 2 multiply-adds, half of what products without
symmetry take, at the speed of the format's products; N²/2 cells that are looked at from two sides while they are in
the cache; about N (k + 4) canonical dots; and of rows that are not in memory, (N / block)² / 2 blocks read twice, and
all of them once more for every `PAIRS` candidates.

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
from platonic_ray.kernels.factors import TILE, ByTorch, Factors, crowd_of, fastest, pieces, rounds_low
from platonic_ray.kernels.frame import measure
from platonic_ray.kernels.rounds import rounds
from platonic_ray.kernels.search import Search, padded
from platonic_ray.kernels.threads import workers
from platonic_ray.kernels.ties import TieRule
from platonic_ray.kernels.topk import TopK, merge_neighbors

Read = Callable[[int, int], Tensor]
"""Gives rows `start` to `stop` of a search, `[stop − start, D] float32`, prepared and finite."""

BLOCK_BYTES = 64 * 2**20
"""Bytes of the rows that are read at a time; three times as many are held."""

_MOST_GIVEN_UP = 1 / 8  # of the queries, before coarse factors are
PAIRS = 2**23  # candidates that get their values, and are sorted, at a time
_SORTED_BYTES = 80  # of each meanwhile


class Sweep:
    """A search over rows of which the first `queries` are queries, `keep` nearest of each wanted.

    Rows are given by their places in the search. Use: `add` what is to be compared, then `nearest`, as
    often as the gallery has grown.

    :param read: gives rows by their places; `rows`, where they are in memory, `[n, D] float32`.
    :param ids: `[n] int64`; a row with the query's own id is not its neighbor.
    :param block_rows: rows that are read at a time; by default `BLOCK_BYTES` of them.
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
        self._block = block_rows or block_rows_of(width)
        device = ids.device.type
        self._threads = torch.get_num_threads() if device == "cpu" else 1
        every = range(ids.shape[0])
        self._measured = measure(
            lambda: (self._read(s.start, s.stop) for s in self._blocks(every)),
            similarity,
            low=rounds_low(device),
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
        assert self._factors is not None
        assert self._candidates is not None
        self._added.append((rows, columns, both))
        self._go_over(rows, columns, both)
        coarse = self._factors.factors != torch.float32
        if coarse and self._candidates.given_up() > _MOST_GIVEN_UP * self._queries:
            # Many rows that coarse factors cannot part: to search each of them again would take longer than all of
            # it by float32 products.
            self._by(ByTorch(self._measured.frame, torch.float32))
            for ranges in self._added:
                self._go_over(*ranges)

    def _by(self, factors: Factors) -> None:
        """Begin, or begin again, with factors of a format."""
        assert self._measured is not None
        self._factors = factors
        self._candidates = candidates_for(self._measured, self._ids, self._queries, self._keep, factors)

    def _go_over(self, rows: range, columns: range, both: bool) -> None:
        factors, candidates = self._factors, self._candidates
        assert factors is not None
        assert candidates is not None
        with workers(self._threads) as run:
            for right in self._blocks(columns):
                held = factors.of(self._read(right.start, right.stop), run)
                # From near to far: rows next to each other are often alike, and early thresholds are worth most.
                for left in reversed(self._blocks(rows)):
                    if rows != columns or left.start <= right.start:
                        same = left == right
                        factor = held if same else factors.of(self._read(left.start, left.stop), run)
                        first = left.start, right.start
                        for pairs in rounds(left, right, self._threads, both):
                            run(
                                partial(
                                    factors.offer,
                                    factor,
                                    held,
                                    _within(a, left),
                                    _within(b, right),
                                    first,
                                    both,
                                    candidates,
                                )
                                for a, b in pairs
                            )

    def nearest(
        self, queries: range, gallery: range, tally: Counter[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ids `[q, keep] int64` and canonical values of the nearest rows of some queries.

        −1 and the worst value where there are no more.

        :param gallery: what has been added to all of these queries.
        :param tally: receives how many queries were settled by tiles ("bfloat16", "int16" or "float32") and how
            many had to be searched again ("again"), and how many pairs took a canonical value ("pairs").
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
        """Return the canonical value `[p] float64` of every pair of rows."""
        if self._rows is not None:
            return pair_values(self._rows, self._rows, row, column, self._similarity)
        # Pair by pair of blocks, either way round, so that few blocks are read.
        low, high = torch.minimum(row, column) // self._block, torch.maximum(row, column) // self._block
        key = high * (int(high.amax()) + 1 if high.shape[0] else 1) + low
        order = torch.argsort(key, stable=True)
        values = torch.empty(row.shape[0], dtype=torch.float64, device=row.device)
        held: dict[int, Tensor] = {}
        groups, lengths = torch.unique_consecutive(key[order], return_counts=True)
        for chosen in order.split(lengths.tolist()) if groups.shape[0] else ():
            first = [int(side[chosen[0]]) for side in (low, high)]
            held = {block: held[block] if block in held else self._block_rows(block) for block in first}
            i, j = torch.minimum(row[chosen], column[chosen]), torch.maximum(row[chosen], column[chosen])
            a, b = (held[block] for block in first)
            i, j = i - first[0] * self._block, j - first[1] * self._block
            values[chosen] = pair_values(a, b, i, j, self._similarity)
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
        groups = [self._searched(group, gallery) for group in lost.split(self._block)]
        return TopK(torch.cat([top.ids for top in groups]), torch.cat([top.values for top in groups]))

    def _searched(self, lost: Tensor, gallery: range) -> TopK:
        rows = self._gathered(lost)
        found: TopK | None = None
        for block in self._blocks(gallery):
            part = slice(block.start, block.stop)
            searched = Search(
                self._read(block.start, block.stop), self._ids[part], self._keep, self._rule, self._similarity
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

    def _block_rows(self, block: int) -> Tensor:
        start = block * self._block
        return self._read(start, min(start + self._block, self._ids.shape[0]))

    def _blocks(self, rows: range) -> list[range]:
        return pieces(rows, self._block)


def block_rows_of(width: int) -> int:
    """Return how many rows of a width are read at a time where nobody says."""
    return max(64, BLOCK_BYTES // (4 * width))


def sweep_bytes(queries: int, width: int, keep: int, device: str = "cpu") -> float:
    """Return the most bytes that a search holds beside its rows and what it returns.

    Candidates of all queries, blocks of rows and a tile, and pairs while they are sorted. See docs/neighbors.md.
    """
    crowd = crowd_of(width, device)
    pairs = min(PAIRS, queries * room_for(keep, crowd))
    blocks = 3 * BLOCK_BYTES + 4 * TILE.get(device, TILE["cuda"]) ** 2
    return queries * candidate_bytes(keep, crowd) + blocks + _SORTED_BYTES * pairs


def _within(rows: range, block: range) -> range:
    return range(rows.start - block.start, rows.stop - block.start)
