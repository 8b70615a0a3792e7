"""Sixty-four layer pairs a machine word: sets and lists of neighbors compared by boolean algebra.

A *plane* is `[rows · Ly, W] int64`: for a row and a layer of Y, one bit for each layer of X, layer l at
bit l mod 64 of word l // 64. `Matches` makes the planes from which all else follows ("the id that Y
lists here at rank t is in X's list, at rank s"); a `BitCounter` counts a plane's bits over many rows
without ever taking one apart before the end. Everything is exact, so no order of work changes a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Words of a plane that are worked on at a time: small enough for a core's cache, large enough that
# the arithmetic outweighs the calls.
_WORDS = 2**14


@dataclass(frozen=True)
class Entries:
    """What the layers of a stack X list for the rows of a block, one entry an id; all `[E] int64`.

    For row `row` (from 0), layer `layer` of X lists `ids` (≥ 0) at rank `rank` (from 0); entries are in
    the order of their rows. A layer lists an id at most once a row.
    """

    row: Tensor
    layer: Tensor
    rank: Tensor
    ids: Tensor

    @classmethod
    def of_lists(cls, ids: Tensor) -> Entries:
        """Return the entries of lists `[Lx, b, k]`; −1 is no entry."""
        row, layer, rank = (ids.permute(1, 0, 2) >= 0).nonzero().unbind(1)
        return cls(row, layer, rank, ids[layer, row, rank])

    @classmethod
    def of_reverse(cls, table: Tensor, rows: slice) -> Entries:
        """Return, for the rows of a block, who lists them: i's ids are the j whose list holds i.

        :param table: `[Lx, n, k]`, the lists of all rows. Every rank is 0.
        """
        layer, listing, rank = ((table >= rows.start) & (table < rows.stop)).nonzero().unbind(1)
        row, order = (table[layer, listing, rank] - rows.start).sort(stable=True)
        return cls(row, layer[order], torch.zeros_like(row), listing[order])

    def of_rows(self, start: int, stop: int) -> Entries:
        """Return the entries of the rows `start` to `stop`, numbered from 0 again."""
        ends = torch.searchsorted(self.row, torch.tensor([start, stop], device=self.row.device))
        part = slice(*ends.tolist())
        return Entries(self.row[part] - start, self.layer[part], self.rank[part], self.ids[part])


class Matches:
    """Where the lists of a stack Y meet the entries of a stack X, over a few rows.

    `words` is W, `ranks_x` how many ranks of X are told apart, `ranks_y` is the length of Y's lists.
    """

    def __init__(self, x: Entries, layers_x: int, ranks_x: int, ids_y: Tensor) -> None:
        """Set up the planes; `ids_y` `[Ly, b, k]`, −1 matches nothing."""
        self.layers_y, self.rows, self.ranks_y = ids_y.shape
        self.words, self.ranks_x = -(-layers_x // 64), ranks_x
        highest = int(ids_y.max())
        row = torch.arange(self.rows, device=ids_y.device)
        # Column 0 of a row is for the missing, which X never lists.
        keys = (ids_y + 1).permute(1, 0, 2) + row[:, None, None] * (highest + 2)
        listed, self._at = keys.unique(return_inverse=True)
        self._at = self._at.reshape(self.rows * self.layers_y, self.ranks_y).T.contiguous()
        known = x.ids <= highest
        wanted = x.ids + 1 + x.row * (highest + 2)
        place = torch.searchsorted(listed, wanted).clamp_(max=listed.shape[0] - 1)
        known &= listed[place] == wanted
        # Distinct bits, so adding them is setting them; the sign bit wraps around as it should.
        bits = torch.ones_like(x.layer).bitwise_left_shift_(x.layer % 64).mul_(known)
        place.add_(x.rank, alpha=listed.shape[0]).mul_(self.words).add_(x.layer // 64)
        table = torch.zeros(ranks_x * listed.shape[0] * self.words, dtype=torch.int64, device=ids_y.device)
        table.scatter_add_(0, place, bits)
        self._table = table.reshape(ranks_x, listed.shape[0], self.words)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape `[rows · Ly, W]` of a plane."""
        return self.rows * self.layers_y, self.words

    def plane(self, rank_y: int, rank_x: int = 0) -> Tensor:
        """Return the plane of "what Y lists at `rank_y`, X lists at `rank_x`"."""
        return self._table[rank_x].index_select(0, self._at[rank_y])

    def planes(self) -> Tensor:
        """Return the planes of all ranks of Y at X's rank 0, `[ranks_y, rows · Ly, W]`."""
        return self._table[0][self._at]

    def by_row(self, planes: Tensor) -> Tensor:
        """Return planes `[…, rows · Ly, W]` as `[… · rows, Ly, W]`, for a `BitCounter`."""
        return planes.reshape(-1, self.layers_y, self.words)


def list_matches(ids_x: Tensor, ids_y: Tensor, *, ranked: bool) -> Iterator[Matches]:
    """Go over the rows of two stacks of lists `[L, n, k]`, some at a time.

    :param ranked: whether X's ranks are told apart; if not, every one counts as rank 0.
    """
    layers_x, n, k = ids_x.shape
    for rows in _groups(n, ids_y.shape[0] * -(-layers_x // 64)):
        x = Entries.of_lists(ids_x[:, rows])
        if not ranked:
            x = Entries(x.row, x.layer, torch.zeros_like(x.rank), x.ids)
        yield Matches(x, layers_x, k if ranked else 1, ids_y[:, rows])


def reverse_matches(table_x: Tensor, ids_y: Tensor, start: int) -> Iterator[Matches]:
    """Go over the rows `start` … of Y's lists, matched with those who list the row in X.

    :param table_x: `[Lx, n, k]`, all rows of X.
    :param ids_y: `[Ly, b, k]`, the rows `start` to `start + b` of Y.
    """
    layers_y, b, _ = ids_y.shape
    x = Entries.of_reverse(table_x, slice(start, start + b))
    for rows in _groups(b, layers_y * -(-table_x.shape[0] // 64)):
        yield Matches(x.of_rows(rows.start, rows.stop), table_x.shape[0], 1, ids_y[:, rows])


def _groups(n: int, words_a_row: int) -> Iterator[slice]:
    step = max(1, _WORDS // max(1, words_a_row))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


class BitCounter:
    """Counts, for every bit of a plane, in how many of the planes added it is set.

    The counts are themselves kept as planes, one (for a while two) a binary digit, and grow by full
    adders: about five operations on words for a plane that is added.
    """

    def __init__(self) -> None:
        self._digits: list[Tensor] = []

    def add(self, planes: Tensor) -> None:
        """Add planes `[m, Ly, W]`."""
        self._digits = _add(self._digits, planes)

    def counts(self, layers_x: int, layers_y: int) -> Tensor:
        """Return the counts, `[Lx, Ly] int64`."""
        device = self._digits[0].device if self._digits else None
        total = torch.zeros(layers_x, layers_y, dtype=torch.int64, device=device)
        shifts = torch.arange(64, device=device)[:, None]
        for weight, planes in enumerate(self._digits):
            for plane in planes:
                bits = (plane.T[:, None] >> shifts) & 1
                total += bits.reshape(-1, layers_y)[:layers_x] << weight
        return total


def binary_digits(planes: Tensor) -> list[Tensor]:
    """Return the number of planes `[m, …]` in which each bit is set: its binary digits, lowest first."""
    digits = _add([], planes)
    weight = 0
    while weight < len(digits):
        if digits[weight].shape[0] == 2:
            a, b = digits[weight]
            digits[weight] = (a ^ b).unsqueeze(0)
            digits = digits[: weight + 1] + _add(digits[weight + 1 :], (a & b).unsqueeze(0))
        weight += 1
    return [digit[0] for digit in digits]


def _add(digits: list[Tensor], planes: Tensor) -> list[Tensor]:
    """Add planes of weight 1 to counts kept as at most two planes a digit."""
    digits, weight = list(digits), 0
    while True:
        if weight < len(digits):
            planes = torch.cat([digits[weight], planes])
        else:
            digits.append(planes)
        carries = []
        while planes.shape[0] >= 3:
            third = planes.shape[0] // 3
            a, b, c = (planes[i * third : (i + 1) * third] for i in range(3))
            odd = a ^ b
            carries.append((a & b) | (c & odd))
            planes = torch.cat([odd ^ c, planes[3 * third :]])
        digits[weight] = planes
        if not carries:
            return digits
        planes, weight = torch.cat(carries), weight + 1
