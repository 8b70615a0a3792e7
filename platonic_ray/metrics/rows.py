"""The rows family: metrics that need the whole of two representations, on the layer pairs asked for.

A decomposition a layer pair takes 0.1 s and more where the other metrics take microseconds, so these
metrics do not fill the table `[Lx, Ly]` of a pair of models unless told to. Their option `layers` says
which cells are scored:

    "last"              the last layer of each model (the default)
    "all"               every layer pair
    [0, 6, −1]          pairs of these layers, counted from the last where negative; of a model that
                        lacks one, the others
    "best:mutual_knn"   the one pair of layers where another metric of the same study or table is best

The other cells are NaN with a status that begins with `NOT_ASKED`. The state of a layer holds at most
n · min(n, D) float64 numbers for most metrics (8 MiB at n = D = 1,024). All layers asked for are held at
a time, of two models in a task of a run, of all models in memory: "all" at n beyond 10,000 is for
machines with that memory.

States and scores are made in float64 by one thread, of tensors that are contiguous and aligned alike,
so that the same rows give the same bytes in memory, in this process, and on any worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels import MICRO, one_thread, tree_sum
from platonic_ray.metrics.base import Metric, PairScore, Refuse, Scored, Status, no_status
from platonic_ray.metrics.states import LayerStates, PairSums, State

NOT_ASKED = "not asked for"
CONSTANT = "constant representation"
BEST = "best:"
_FLOPS_PER_S = 2e10  # of a decomposition in float64, on one core


def rows_metric(
    *, pair: PairScore, options: Mapping[str, Any] | None = None, layers: str = "last", **declared: Any
) -> Metric:
    """Declare a metric of the rows family: `Metric` with its scorer, its need and its option `layers`."""
    refuse: Refuse | None = declared.pop("refuse", None)
    return Metric(
        family="rows",
        needs=("states",),
        scorer=_CellScorer(pair),
        pair=pair,
        options={**(options or {}), "layers": layers},
        refuse=_Refusal(refuse),
        **declared,
    )


def make_state(metric: Metric, rows: Tensor, digest: str) -> State:
    """Return the state of a layer under a metric of the rows family.

    :param rows: prepared rows `[n, D] float32`.
    :param digest: digest of the representation, the seed of its tie rule.
    """
    assert metric.unary is not None
    with torch.no_grad(), one_thread():
        state = metric.unary(rows.cpu().contiguous(), digest, metric.options)
        # One layout, so that products of a state have the same bytes wherever it comes from.
        return {name: fresh(tensor) for name, tensor in state.items()}


def state_key(metric: Metric) -> tuple[Any, ...]:
    """Return what a state depends on: metrics of one key share the states of a layer."""
    return metric.unary, *sorted((k, v) for k, v in metric.options.items() if k != "layers")


def winners_of(metric: Metric) -> str | None:
    """Return the name or label of the metric whose best layers are scored; None where none is named."""
    layers = metric.options.get("layers")
    return layers.removeprefix(BEST) if isinstance(layers, str) and layers.startswith(BEST) else None


def asked_layers(metric: Metric, count: int) -> tuple[int, ...]:
    """Return the layers of a model of `count` layers that are asked for, ascending.

    For `layers = "best:…"` every layer may be: it depends on the other model.
    """
    layers = metric.options["layers"]
    if layers == "last":
        return (count - 1,)
    if isinstance(layers, str):
        return tuple(range(count))
    return tuple(sorted({layer % count for layer in layers if -count <= layer < count}))


def asked_cells(
    metric: Metric, shape: tuple[int, int], best: tuple[int, int] | None = None
) -> tuple[tuple[int, int], ...]:
    """Return the layer pairs (i, j) of a table `[Lx, Ly]` that are asked for, row by row.

    :param best: where the metric of "best:…" is best; (−1, −1) where it is nowhere defined.
    """
    if winners_of(metric) is not None:
        assert best is not None
        return () if best[0] < 0 else (best,)
    return tuple((i, j) for i in asked_layers(metric, shape[0]) for j in asked_layers(metric, shape[1]))


def resolve_winners(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Return, by what follows "best:", the metric whose best layers are meant.

    :raises StudyError: if there is none of that name or label beside it, or it is of the rows family.
    """
    found: dict[str, Metric] = {}
    for metric in metrics:
        wanted = winners_of(metric)
        if wanted is None:
            continue
        cheap = [other for other in metrics if other.family != "rows"]
        named = [other for other in cheap if wanted in (other.label, other.name)]
        exact = [other for other in named if other.label == wanted]
        if len(exact or named) != 1:
            known = ", ".join(other.label for other in cheap) or "none"
            many = "more than one metric" if named else "no metric of every layer pair"
            raise StudyError(
                f"{metric.name}: layers = {BEST + wanted!r} names {many} of this study or table; "
                f"those that can be named: {known}."
            )
        found[wanted] = (exact or named)[0]
    return found


def full_table_note(metric: Metric, n: int, widths: Sequence[tuple[Sequence[int], Sequence[int]]]) -> str:
    """Say which share of the layer pairs was asked for, and what all of them would take.

    :param widths: the widths of every layer of both models, for each pair of models that was scored.
    """
    assert metric.pair_flops is not None
    pairs = [(dx, dy) for xs, ys in widths for dx in xs for dy in ys]
    one = winners_of(metric) is not None
    asked = sum(1 if one else len(asked_cells(metric, (len(xs), len(ys)))) for xs, ys in widths)
    seconds = sum(metric.pair_flops(n, dx, dy) for dx, dy in pairs) / _FLOPS_PER_S
    return (
        f"{metric.label}: {asked} of {len(pairs)} layer pairs were asked for; a full table (layers = 'all') "
        f"would be {len(pairs)} layer pairs × {seconds / len(pairs):.1g} s = {seconds:.2g} s of one core, "
        "and the layers' states"
    )


def fresh(x: Tensor) -> Tensor:
    """Return a contiguous copy in memory of its own, which is aligned alike everywhere."""
    return x.to(memory_format=torch.contiguous_format, copy=True)


def centered(rows: Tensor) -> Tensor:
    """Return rows less their mean, `[n, D] float64` of `[n, D] float32`; exactly 0 where all are equal.

    The first row is taken off first, which spares the mean the cancellation of a large common part.
    """
    from_first = rows.double() - rows[0].double()
    return from_first - tree_sum(part.sum(0) for part in from_first.split(MICRO)) / rows.shape[0]


def reduced(rows: Tensor) -> Tensor:
    """Return `[n, min(n, D)] float64` rows with the inner products of the given `[n, D] float64` ones.

    Where D > n: Xᵀ = Q R with orthonormal columns in Q, so X Xᵀ = Rᵀ R and Rᵀ is X turned. Unlike
    the square root of a Gram matrix, R keeps the small singular values. The diagonal of R is made
    non-negative, which makes it unique.
    """
    if rows.shape[1] <= rows.shape[0]:
        return rows
    upper = torch.linalg.qr(rows.T, mode="r").R
    sign = torch.where(upper.diagonal() < 0, -1.0, 1.0).to(upper.dtype)
    return (upper * sign.unsqueeze(1)).T


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Return AᵀB, `[Da, Db] float64`, of `[n, Da]` and `[n, Db]`, micro-blocks added in the fixed tree."""
    parts = zip(a.split(MICRO), b.split(MICRO), strict=True)
    return tree_sum(part_a.T @ part_b for part_a, part_b in parts)


def square_sum(a: Tensor) -> Tensor:
    """Return Σ a², a float64 scalar, of `[n, D] float64`, micro-blocks added in the fixed tree."""
    return tree_sum(part.square().sum() for part in a.split(MICRO))


def constants(x: bool, y: bool) -> str | None:
    """Say which side is constant, as a reason; None where neither is."""
    return "; ".join(f"{side}: {CONSTANT}" for side, flat in (("x", x), ("y", y)) if flat) or None


@dataclass(frozen=True)
class _CellScorer:
    """Scores the layer pairs that are asked for; a class, to be equal when it has crossed processes."""

    pair: PairScore

    def __call__(self, sums: PairSums, options: Mapping[str, Any]) -> Scored:
        states = sums.states
        assert states is not None
        scores = np.full(states.shape, np.nan)
        status: Status = no_status(states.shape)
        if len(states.cells) < states.shape[0] * states.shape[1]:
            status = [[f"{NOT_ASKED} (layers = {options['layers']!r})"] * len(line) for line in status]
        with torch.no_grad(), one_thread():
            for i, j in states.cells:
                scores[i, j], status[i][j] = self.pair(states.x[i], states.y[j], options)
        return scores, status


def states_for(
    cells: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    state_x: Callable[[int], State],
    state_y: Callable[[int], State],
) -> LayerStates:
    """Return the states of both models for the layer pairs asked for, each made or read once."""
    xs, ys = ({i: state_x(i) for i, _ in cells}), ({j: state_y(j) for _, j in cells})
    return LayerStates(xs, ys, tuple(cells), shape)


@dataclass(frozen=True)
class _Refusal:
    """Refuses layers that are no choice of layers, and what the metric's own `also` refuses."""

    also: Refuse | None

    def __call__(self, options: Mapping[str, Any], n: int | None) -> str | None:
        layers = options["layers"]
        named = isinstance(layers, str) and (layers in ("last", "all") or layers.startswith(BEST))
        listed = (
            isinstance(layers, list | tuple)
            and len(layers) > 0
            and all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers)
        )
        if not named and not listed:
            return (
                'layers must be "last", "all", a list of layer indices, or "best:" with another metric of the '
                f"study (given: {layers!r})."
            )
        return None if self.also is None else self.also(options, n)
