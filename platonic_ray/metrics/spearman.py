"""RSA by ranks: Spearman's correlation of two representations' dissimilarities between samples.

Ranks of n (n − 1) / 2 numbers are global, so they are no sum over tiles: they are made once a layer,
centered and scaled to length 1, and a layer pair is one dot product. Where there are more pairs of
samples than the option `pairs`, so many are drawn by seed, without replacement and the same for all
representations; status then says so and gives the standard error of the draw, from the spread of the
score over `GROUPS` disjoint parts of it, each ranked on its own.

Equal dissimilarities share their mean rank. They are equal if they are after rounding to 2⁻⁴⁰ of their
range, so that rounding of products does not part what duplicated rows or one-hot features make equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from platonic_ray.metrics.rows import centered, constants
from platonic_ray.metrics.states import State

Dissimilarity = Literal["correlation", "cosine", "euclidean"]
GROUPS = 20
_GRID = 2.0**40
_CELLS = 2**22  # numbers gathered at a time


def pair_at(flat: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return i < j of positions in the upper triangle of an n × n matrix, read row by row.

    >>> [part.tolist() for part in pair_at(torch.arange(6), 4)]
    [[0, 0, 0, 1, 1, 2], [1, 2, 3, 2, 3, 3]]
    """
    starts = torch.arange(n - 1)
    starts = starts * (n - 1) - starts * (starts - 1) // 2
    i = torch.searchsorted(starts, flat, right=True) - 1
    return i, flat - starts[i] + i + 1


def unary(rows: Tensor, digest: str, options: Mapping[str, Any]) -> State:
    """Return ranks `[m]` of the dissimilarities, centered and of length 1 (zeros if all are equal).

    `facts` are whether the rows are all equal, and how many have no direction. Of a draw: the pairs of
    samples `drawn` `[m]`, the ranks within its parts, `groups` `[GROUPS, m // GROUPS]`, and the rows
    whose products or distances they are, `moved` `[n, D] float64`.
    """
    form: Dissimilarity = options["dissimilarity"]
    n = rows.shape[0]
    if form == "euclidean":
        moved = centered(rows)
    else:
        wide = rows.double()
        moved = wide - wide.mean(1, keepdim=True) if form == "correlation" else wide
        norms = moved.square().sum(1, keepdim=True).sqrt()
        moved = moved / torch.where(norms > 0, norms, 1.0)
    lost = 0 if form == "euclidean" else int((norms == 0).sum())
    flat = bool((rows == rows[0]).all())
    drawn = draw(n, options["pairs"], options["seed"])
    return {**_ranked(moved, drawn, form == "euclidean"), "facts": torch.tensor([flat, lost])}


def draw(n: int, most: int, seed: int) -> Tensor:
    """Return positions `[m] int64` of at most `most` pairs of n samples, in random order; none for all."""
    total = n * (n - 1) // 2
    if total <= most:
        return torch.empty(0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(total, (most,), generator=generator).unique()  # one that came twice counts once
    return drawn[torch.randperm(drawn.shape[0], generator=generator)]


def permute(state: State, order: Tensor) -> State:
    """Return the state of rows in another order: all ranks moved, or those of a draw made again."""
    n = order.shape[0]
    if state["drawn"].numel():
        again = _ranked(state["moved"][order], state["drawn"], bool(state["euclidean"]))
        return {**again, "facts": state["facts"]}
    i, j = torch.triu_indices(n, n, 1)
    low, high = torch.minimum(order[i], order[j]), torch.maximum(order[i], order[j])
    place = low * (n - 1) - low * (low - 1) // 2 + high - low - 1
    return {**state, "ranks": state["ranks"][place]}


def pair(x: State, y: State, options: Mapping[str, Any]) -> tuple[float, str | None]:
    """Return Spearman's correlation, and where pairs were drawn how many and its standard error."""
    (flat_x, lost_x), (flat_y, lost_y) = x["facts"].tolist(), y["facts"].tolist()
    reason = constants(flat_x, flat_y) or "; ".join(
        f"{side}: all dissimilarities are equal"
        for side, state in (("x", x), ("y", y))
        if not state["ranks"].any()
    )
    if reason:
        return nan, reason
    score = _bounded(torch.dot(x["ranks"], y["ranks"]))
    n, count = x["moved"].shape[0], x["drawn"].numel()
    lost = f"rows without direction: {lost_x} in x, {lost_y} in y" if lost_x or lost_y else None
    if not count:
        return score, lost
    parts = (x["groups"] * y["groups"]).sum(1)
    share = count / (n * (n - 1) // 2)
    error = float(parts.std()) * sqrt((1 - share) / GROUPS)
    drawn = f"of {count} pairs of samples drawn from {n * (n - 1) // 2}; standard error {error:.2g}"
    return score, "; ".join(text for text in (lost, drawn) if text)


def _ranked(moved: Tensor, drawn: Tensor, euclidean: bool) -> dict[str, Tensor]:
    values = _drawn_values(moved, drawn, euclidean) if drawn.numel() else _all_values(moved, euclidean)
    size = drawn.numel() // GROUPS
    parts = [_standard_ranks(part) for part in values[: size * GROUPS].split(size)] if size else []
    return {
        "ranks": _standard_ranks(values),
        "groups": torch.stack(parts) if parts else torch.zeros(0),
        "moved": moved if size else moved[:0],
        "drawn": drawn,
        "euclidean": torch.tensor([euclidean]),
    }


def _all_values(moved: Tensor, euclidean: bool) -> Tensor:
    """Return what orders all dissimilarities, `[n (n − 1) / 2]`: squared distances, or 1 − products."""
    n, step = moved.shape[0], max(1, _CELLS // moved.shape[0])
    squares = moved.square().sum(1)
    lines = []
    for first in range(0, n, step):
        product = moved[first : first + step] @ moved.T
        line = squares[first : first + step, None] + squares - 2 * product if euclidean else 1 - product
        above = torch.arange(n) > torch.arange(first, first + line.shape[0]).unsqueeze(1)
        lines.append(line[above])
    return _on_grid(torch.cat(lines), squares, euclidean)


def _drawn_values(moved: Tensor, drawn: Tensor, euclidean: bool) -> Tensor:
    values = []
    for part in drawn.split(max(1, _CELLS // moved.shape[1])):
        i, j = pair_at(part, moved.shape[0])
        a, b = moved[i], moved[j]
        values.append((a - b).square().sum(1) if euclidean else 1 - (a * b).sum(1))
    return _on_grid(torch.cat(values), moved.square().sum(1), euclidean)


def _on_grid(values: Tensor, squares: Tensor, euclidean: bool) -> Tensor:
    """Round to 2⁻⁴⁰ of the largest there can be, a power of two: what is equal but for rounding is equal."""
    largest = 4 * squares.max() if euclidean else torch.tensor(2.0, dtype=torch.float64)
    scale = torch.exp2(torch.ceil(torch.log2(torch.clamp(largest, min=2.0**-500))))
    return torch.round(values / scale * _GRID)


def _standard_ranks(values: Tensor) -> Tensor:
    """Return mean ranks `[m]`, centered and of length 1; zeros where all values are equal."""
    ordered, place = values.sort(stable=True)
    _, counts = ordered.unique_consecutive(return_counts=True)
    last = counts.cumsum(0).to(torch.float64)
    mean_rank = last - (counts - 1) / 2  # of a run of equal values: half-integers, exact
    ranks = torch.empty_like(values)
    ranks[place] = mean_rank.repeat_interleave(counts)
    ranks -= (values.shape[0] + 1) / 2
    length = ranks.square().sum().sqrt()
    return ranks / length if length > 0 else ranks


def _bounded(value: Tensor) -> float:
    return min(max(float(value), -1.0), 1.0)


def pair_flops(n: int, dx: int, dy: int) -> float:
    """Estimate what a layer pair takes."""
    return 2.0 * n * n


def refuse(options: Mapping[str, Any], n: int | None) -> str | None:
    """Say what is wrong with the options of the draw; None if nothing is."""
    pairs, seed = options["pairs"], options["seed"]
    if not isinstance(pairs, int) or isinstance(pairs, bool) or pairs < 100 * GROUPS:
        return f"pairs must be a whole number of at least {100 * GROUPS} (given: {pairs!r})."
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        return f"seed must be a whole number from 0 to 2^63 − 1 (given: {seed!r})."
    return None
