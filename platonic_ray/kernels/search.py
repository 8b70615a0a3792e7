"""The search for the nearest rows of a gallery: proposals, certification, and what is left to do.

A query passes through stages until one settles it:

1. on GPUs a product of bfloat16, then one of float32 for the queries that were left with too many candidates
   (`frame` has their bounds); a row whose score is below the best `keep` by more than
   twice the error is out for good;
2. candidates get a refined score; where twice its error parts two neighbors in the sorted list, their
   order is certain. A stretch of the list that it does not part is ordered by canonical values;
3. queries that still have too many candidates, and rows that are not fit for float32, go to
   `exhaustive`.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from platonic_ray.kernels.exhaustive import Similarity, cost_of, exhaustive, pair_values
from platonic_ray.kernels.proposals import Proposer, Rows
from platonic_ray.kernels.ties import TieRule

_CELLS = 2**22  # proposed scores held at a time
_FEW = 4  # times `keep` and more: so many candidates a query are refined, rather than proposed again
_SLACK = 64


_SURE = 1e300  # in place of a score, above all scores


class _Candidates(NamedTuple):
    """Pairs of a query and a gallery row, query by query; `sure` marks those that need no more work."""

    row: Tensor
    column: Tensor
    sure: Tensor | None


class Search:
    """A gallery `[g, D] float32` that is ready to be searched; see `neighbors.tile_neighbors`.

    What is wanted of the `keep` nearest: their canonical "values", their "order" alone, or, cheapest,
    which they are, in any order: the "set".
    """

    def __init__(
        self,
        gallery: Tensor,
        gallery_ids: Tensor,
        keep: int,
        rule: TieRule,
        similarity: Similarity,
        want: Literal["values", "order", "set"] = "values",
    ) -> None:
        self._gallery, self._ids, self._rule, self._similarity = gallery, gallery_ids, rule, similarity
        self._keep, self._want = keep, want
        self._most = _FEW * self._keep + _SLACK
        self._place: Tensor | None = None
        # Where every row is a candidate anyway, nothing is to be proposed.
        self._proposer = Proposer(gallery, similarity) if gallery.shape[0] > _FEW * self._keep else None

    def nearest(
        self,
        queries: Tensor,
        query_ids: Tensor,
        tally: Counter[str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return ids `[q, keep] int64` and canonical values of the nearest rows, but a query's own.

        Values are undefined unless the search wants them.
        """
        counts = Counter() if tally is None else tally
        worst = -torch.inf if self._similarity == "inner" else torch.inf
        size = (queries.shape[0], self._keep)
        ids = torch.full(size, -1, dtype=torch.int64, device=queries.device)
        values = torch.full(size, worst, dtype=torch.float64, device=queries.device)
        todo = torch.arange(queries.shape[0], device=queries.device)
        if self._proposer is not None and self._proposer.fit:
            alike = queries is self._gallery
            rows = self._proposer.own if alike else self._proposer.queries(queries)
            own = _positions(query_ids, self._ids)
            for dtype in self._proposer.dtypes if rows is not None else ():
                assert rows is not None
                before, crowded = todo.shape[0], []
                for chosen in todo.split(max(1, _CELLS // self._gallery.shape[0])):
                    candidates, left = self._propose(rows, chosen, own, dtype)
                    crowded.append(left)
                    settled, (got, value) = self._order(queries, rows, candidates, counts)
                    ids[settled, : got.shape[1]], values[settled, : got.shape[1]] = got, value
                todo = torch.cat(crowded)
                counts[str(dtype).removeprefix("torch.")] += before - todo.shape[0]
                if todo.shape[0] == 0:
                    return ids, values
        counts["float64"] += todo.shape[0]
        ids[todo], values[todo] = exhaustive(
            queries[todo], self._gallery, query_ids[todo], self._ids, self._keep, self._rule, self._similarity
        )
        return ids, values

    def _propose(
        self, rows: Rows, chosen: Tensor, own: Tensor, dtype: torch.dtype
    ) -> tuple[_Candidates, Tensor]:
        """Return candidates, and the queries that have too many of them, of which there are none."""
        assert self._proposer is not None
        first, last = int(chosen[0]), int(chosen[-1])
        # A slice where it is one: rows that are not gathered need not be copied.
        part = slice(first, last + 1) if last - first + 1 == chosen.shape[0] else chosen
        scores = self._proposer.scores(rows, part, dtype)
        mine = own[part]
        present = (mine >= 0).nonzero().squeeze(1)
        scores[present, mine[present]] = -torch.inf
        reached = _reached(scores, self._keep)
        near = scores >= self._proposer.frame.threshold(rows.norms[part], reached, dtype).unsqueeze(1)
        row, column = near.nonzero().unbind(1)
        few = torch.bincount(row, minlength=chosen.shape[0]) <= self._most
        take = mine[row] != column
        if not bool(few.all()):
            take &= few[row]
        row, column = row[take], column[take]
        sure = None
        if self._want == "set" and row.shape[0]:
            sure = self._sure(rows, part, scores[row, column].double(), row, dtype)
        return _Candidates(chosen[row], column, sure), chosen[~few]

    def _sure(
        self, rows: Rows, part: slice | Tensor, proposed: Tensor, row: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Mark the candidates that are surely among the `keep` nearest: there is no need to refine them.

        They are above the first proposal that is one too many, by more than twice the error.
        """
        assert self._proposer is not None
        line, lengths = torch.unique_consecutive(row, return_counts=True)
        values, at, _ = padded(proposed, lengths)
        if values.shape[1] <= self._keep:
            return torch.ones_like(row, dtype=torch.bool)
        next_best = values.topk(self._keep + 1, dim=1).values[:, -1]
        largest = torch.where(values.isinf(), 0.0, values.abs()).amax(1)
        count = rows.norms[part].shape[0]
        margin = torch.zeros(count, dtype=torch.float64, device=row.device)
        margin[line] = largest
        margin = self._proposer.frame.reach(rows.norms[part], margin, dtype)[line]
        return proposed > (next_best + 2 * margin)[at]

    def _order(
        self, queries: Tensor, rows: Rows, candidates: _Candidates, counts: Counter[str]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the queries among the candidates, and the ids and values of their nearest rows in order."""
        assert self._proposer is not None
        row, column, sure = candidates.row, candidates.column, candidates.sure
        if row.shape[0] == 0:
            return row, (row.new_empty(0, 0), self._proposer.refine(rows, row, column).reshape(0, 0))
        settled, lengths = torch.unique_consecutive(row, return_counts=True)
        if sure is None:
            refined = self._proposer.refine(rows, row, column)
        else:
            refined = torch.full(row.shape, _SURE, dtype=torch.float64, device=row.device)
            refined[~sure] = self._proposer.refine(rows, row[~sure], column[~sure])
        score, at, place = padded(refined, lengths)
        size = score.shape
        which = torch.zeros(size, dtype=torch.int64, device=row.device)
        which[at, place] = column
        score, best = score.sort(dim=1, descending=True)
        which = which.gather(1, best)
        apart = 2 * self._proposer.frame.refined_error(rows.norms)[settled].unsqueeze(1)
        alive = score > -torch.inf
        if size[1] > self._keep:
            alive &= score >= score[:, self._keep - 1, None] - apart
        # A stretch is a run of the list in which every score is within `apart` of the next.
        stretch = torch.zeros(size, dtype=torch.int64, device=row.device)
        open_ = alive.clone()
        if self._want != "values" and size[1] > 1:
            parted = score[:, :-1] - score[:, 1:] > apart
            stretch[:, 1:] = parted.cumsum(1)
            # That of the last neighbor wanted is the last that matters.
            last = min(self._keep, size[1])
            final = stretch[:, last - 1, None]
            if self._want == "order":
                alone = torch.ones_like(alive)
                alone[:, 1:] &= parted
                alone[:, :-1] &= parted
                open_ &= ~alone & (stretch <= final)
            else:
                beyond = alive[:, last:] & (stretch[:, last:] == final)
                open_ &= (stretch == final) & beyond.any(1, keepdim=True)
        cost = torch.zeros(size, dtype=torch.float64, device=row.device)
        cost[~alive] = torch.inf
        stretch[~alive] = size[1]
        line, position = open_.nonzero().unbind(1)
        counts["pairs"] += line.shape[0]
        if line.shape[0]:
            value = pair_values(
                queries, self._gallery, settled[line], which[line, position], self._similarity
            )
            cost[line, position] = cost_of(value, self._similarity)
            ordered = self._sorted(cost, stretch, which, open_)
            cost, which, alive = cost.gather(1, ordered), which.gather(1, ordered), alive.gather(1, ordered)
        found = slice(0, min(self._keep, size[1]))
        ids = self._ids[which[:, found]].masked_fill(~alive[:, found], -1)
        return settled, (ids, cost_of(cost[:, found], self._similarity))

    def _sorted(self, cost: Tensor, stretch: Tensor, which: Tensor, open_: Tensor) -> Tensor:
        """Return the order of every line by stretch, then cost, then tie rule."""
        order = torch.argsort(cost, dim=1, stable=True)
        order = order.gather(1, torch.argsort(stretch.gather(1, order), dim=1, stable=True))
        costs, runs, real = cost.gather(1, order), stretch.gather(1, order), open_.gather(1, order)
        same = (costs[:, 1:] == costs[:, :-1]) & (runs[:, 1:] == runs[:, :-1]) & real[:, 1:] & real[:, :-1]
        if not bool(same.any()):
            return order
        if self._place is None:
            self._place = torch.argsort(self._rule.order(self._ids))
        order = torch.argsort(self._place[which], dim=1, stable=True)
        for key in (cost, stretch):
            order = order.gather(1, torch.argsort(key.gather(1, order), dim=1, stable=True))
        return order


def padded(values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a list of lists `[c, W] float64`, padded by −∞, and the line and place of every value."""
    at = torch.repeat_interleave(lengths)
    place = torch.arange(values.shape[0], device=values.device) - (lengths.cumsum(0) - lengths)[at]
    size = (lengths.shape[0], int(lengths.max()))
    padded = torch.full(size, -torch.inf, dtype=torch.float64, device=values.device)
    padded[at, place] = values
    return padded, at, place


def _reached(scores: Tensor, keep: int) -> Tensor:
    """Return a score `[c] float64` that at least `keep` of every row `[c, g]` reach, near the best such.

    The `keep`-th largest of the maxima of groups of columns: cheap, and exact but for groups that hold
    several of the best.
    """
    count, width = scores.shape
    groups = max(64, 1 << (4 * keep - 1).bit_length())
    if width >= 2 * groups:
        whole = width // groups * groups
        maxima = scores[:, :whole].reshape(count, width // groups, groups)
        scores = torch.cat([maxima.amax(1), scores[:, whole:]], dim=1)
    return scores.float().topk(keep, dim=1, sorted=True).values[:, -1].double()


def _positions(ids: Tensor, among: Tensor) -> Tensor:
    """Return where every id is in `among` (distinct), −1 where it is not."""
    order = torch.argsort(among)
    at = torch.searchsorted(among[order], ids).clamp(max=among.shape[0] - 1)
    position = order[at]
    return torch.where(among[position] == ids, position, -1)
