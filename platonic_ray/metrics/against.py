"""Scores of one representation after another against models that stay: their part is made once and kept.

What `score_tables` makes of both sides anew, this keeps of the references: neighbors, their kernels' cells (of
many samples the rows to make them of), states of whole representations. The functions are the same, so the
scores are too, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from platonic_ray.errors import DataError, StudyError
from platonic_ray.kernels import Anchor, Kernel, blocks_of, inner_of_cells, root_level, super_tile
from platonic_ray.metrics.base import Metric, Scored, flag_zero_rows
from platonic_ray.metrics.cka import kernel_rows, ordered_inner
from platonic_ray.metrics.kernel_tables import cells_fit
from platonic_ray.metrics.knn import neighbor_pair
from platonic_ray.metrics.rows import make_state, resolve_winners, state_key, states_for
from platonic_ray.metrics.states import KernelRows, Neighbors, PairSums, State
from platonic_ray.metrics.table import PairScores, as_layers, cells_of
from platonic_ray.metrics.unary import (
    ModelState,
    Wanted,
    kernel_anchors,
    kernels_of,
    model_state,
    rows_digest,
)

_GIVEN = "features"


@dataclass(frozen=True)
class _Kept:
    """What one kernel keeps of every reference: its unary state, and what cells are taken about that are not held."""

    about: Mapping[str, Sequence[Anchor]]
    of: Mapping[str, KernelRows]


class Against:
    """References that representations are scored against.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> from platonic_ray.metrics import get_metric
    >>> (pair,) = Against({"x": [x]}, [get_metric("mutual_knn")]).score(2 * x)
    >>> pair.y, pair.best()
    ('x', (1.0, 0, 0))
    """

    def __init__(
        self, references: Mapping[str, Sequence[Tensor]], metrics: Sequence[Metric], recipe: str = "l2"
    ) -> None:
        """Make and keep what the metrics need of every reference.

        :param references: the layers of every model, finite, `[n, D_l] float32`, all of the same n samples.
        :raises StudyError: if there are no references, or n is too small for a metric.
        :raises DataError: if the references have different numbers of samples.
        """
        if not references:
            raise StudyError("There are no models to score against.")
        counts = {name: layers[0].shape[0] for name, layers in references.items()}
        if len({rows.shape[0] for layers in references.values() for rows in layers}) > 1:
            raise DataError(f"All references need the same samples, row by row; rows found: {counts}.")
        self.n = next(iter(counts.values()))
        for metric in metrics:
            metric.check(self.n)
        self.metrics = tuple(metrics)
        kernels = kernels_of(self.metrics)
        by_cells = cells_fit(self.n, kernels, references.values())
        self._recipe, self._wanted = recipe, Wanted.of(self.metrics, by_cells)
        self._winners = resolve_winners(self.metrics)
        self._models = {name: model_state(list(of), recipe, self._wanted) for name, of in references.items()}
        self._stacked = _stacked([state.neighbors for state in self._models.values()])
        self._kernels = {kernel: self._keep(kernel) for kernel in kernels}
        self._states: dict[Any, State] = {}

    def score(self, features: object) -> list[PairScores]:
        """Score features (x) against every reference (y): reference by reference, then metric by metric.

        :param features: `[n, D]`, `[n, L, D]`, or a list of `[n, D_l]`, as `score_tables` takes them.
        :raises DataError: if they are no finite matrices of n rows.
        """
        layers = [rows.cpu() for rows in as_layers(features, "the features")]
        wrong = {rows.shape[0] for rows in layers} - {self.n}
        if wrong:
            turned = " Samples are the first axis, [N, L, D]." if len(layers) == self.n else ""
            raise DataError(
                f"The features have {min(wrong)} rows; the references have {self.n} samples, row by row.{turned}"
            )
        given = model_state(layers, self._recipe, self._wanted)
        inner = {kernel: self._inner(kernel, given) for kernel in self._kernels}
        made: dict[str, dict[str, Scored]] = {name: {} for name in self._models}
        for metric in sorted(self.metrics, key=lambda metric: metric.family == "rows"):
            if metric.joint is not None:
                found = self._by_neighbors(metric, given)
            elif metric.kernel is not None:
                found = [metric.score(sums) for sums in inner[metric.kernel]]
            else:
                found = self._by_rows(metric, given, made)
            for name, scored in zip(self._models, found, strict=True):
                made[name][metric.label] = scored
        return [
            PairScores(
                metric, _GIVEN, name, scores, flag_zero_rows(status, given.zeros, self._models[name].zeros)
            )
            for name, scored in made.items()
            for metric in self.metrics
            for scores, status in [scored[metric.label]]
        ]

    def _by_neighbors(self, metric: Metric, given: ModelState) -> list[Scored]:
        assert given.neighbors is not None
        of_each = [state.neighbors for state in self._models.values()]
        if metric.similarities is not None or self._stacked is None:
            return [
                metric.score(neighbor_pair(metric, given.neighbors, of)) for of in of_each if of is not None
            ]
        # Cells of a table do not know of each other: all references are one model of many layers.
        scores, status = metric.score(neighbor_pair(metric, given.neighbors, self._stacked))
        found, start = [], 0
        for state in self._models.values():
            part = slice(start, start + len(state.zeros))
            found.append((scores[:, part], [line[part] for line in status]))
            start = part.stop
        return found

    def _inner(self, kernel: Kernel, given: ModelState) -> list[PairSums]:
        kept = self._kernels[kernel]
        if given.cells:
            cells = given.cells[kernel]
            inner = inner_of_cells((cells, state.cells[kernel]) for state in self._models.values())
            of_given = kernel_rows(cells.sums())[None]
        else:
            x, ys = ("x", _GIVEN), {name: ("y", name) for name in self._models}
            rows = {x: given.rows} | {ys[name]: state.rows for name, state in self._models.items()}
            about = {ys[name]: of for name, of in kept.about.items()}
            about |= {x: kernel_anchors(given.rows, kernel)}
            pairs = [(x, y) for y in ys.values()]
            level = root_level(blocks_of(self.n))
            sums = super_tile(rows, rows, pairs, level, 0, 0, self.n, kernel, about, unary=[x])
            inner = [ordered_inner(sums.inner, x, y) for y in ys.values()]
            of_given = kernel_rows(sums)[x]
        return [
            PairSums(self.n, None, of_pair, of_given, kept.of[name])
            for name, of_pair in zip(self._models, inner, strict=True)
        ]

    def _keep(self, kernel: Kernel) -> _Kept:
        if self._wanted.cells:
            cells = {name: state.cells[kernel] for name, state in self._models.items()}
            return _Kept({}, {name: kernel_rows(of.sums())[None] for name, of in cells.items()})
        rows = {name: state.rows for name, state in self._models.items()}
        about = {name: kernel_anchors(stack, kernel) for name, stack in rows.items()}
        level = root_level(blocks_of(self.n))
        sums = super_tile(rows, rows, [], level, 0, 0, self.n, kernel, about, unary=list(rows))
        return _Kept(about, kernel_rows(sums))

    def _by_rows(
        self, metric: Metric, given: ModelState, made: Mapping[str, Mapping[str, Scored]]
    ) -> list[Scored]:
        own: dict[Any, State] = {}
        found = []
        for name, state in self._models.items():
            shape = (len(given.zeros), len(state.zeros))
            so_far = {(label, _GIVEN, name): scored for label, scored in made[name].items()}
            cells = cells_of(metric, self._winners, so_far, _GIVEN, name, shape)
            of_given = partial(_state_of, metric, given.rows, own, _GIVEN)
            of_reference = partial(_state_of, metric, state.rows, self._states, name)
            found.append(
                metric.score(PairSums(self.n, states=states_for(cells, shape, of_given, of_reference)))
            )
        return found


def _state_of(metric: Metric, rows: Sequence[Tensor], kept: dict[Any, State], name: str, layer: int) -> State:
    """Return the state of a layer of a model, made when it is first asked for."""
    key = (name, layer, *state_key(metric))
    if key not in kept:
        kept[key] = make_state(metric, rows[layer], rows_digest(rows[layer]))
    return kept[key]


def _stacked(tables: Sequence[Neighbors | None]) -> Neighbors | None:
    """Return the neighbors of all models as those of one of all their layers."""
    there = [table for table in tables if table is not None]
    if not there:
        return None
    # Values are those that nobody wants, or their metrics are scored model by model.
    return Neighbors(torch.cat([table.ids for table in there]), there[0].values[:1])
