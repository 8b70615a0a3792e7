"""What a metric is: a declaration and a scoring function over sums that blocks of work add up to.

A metric is an algebra (design.md, decision 2). `unary` state is made once for a representation
(`Neighbors`, `KernelRows`); `joint` sums are made for a pair of models and add over blocks of rows
or super-tiles (overlap counts, `TileSums.inner`); `Metric.score` turns them into the table of a
pair. The in-process run, an out-of-core run and tasks on a cluster call the same functions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.study import MetricEntry

Status = list[list[str | None]]
"""Why a cell `[Lx][Ly]` is NaN, or what is to be known about its number; None where nothing is."""

Scored = tuple[np.ndarray, Status]
"""Scores `[Lx, Ly] float64` and their status."""


@dataclass(frozen=True)
class Neighbors:
    """Unary state of the neighbor metrics: the tables of a model's layers.

    `ids` `[L, n, k + 1] int64` and `values` `[L, n, k + 1] float64`, as `kernels.TopK` a layer; k is
    at least the largest k of the metrics that are asked for.
    """

    ids: Tensor
    values: Tensor


@dataclass(frozen=True)
class KernelRows:
    """Unary state of the kernel metrics; all float64.

    `row_sums` `[L, n]` Σ_j K_ij, `diagonal` `[L, n]` K_ii, `squares` `[L]` Σ_ij K_ij².
    """

    row_sums: Tensor
    diagonal: Tensor
    squares: Tensor


@dataclass(frozen=True)
class PairSums:
    """All that a metric may need of a pair of models, over all n samples.

    Neighbor family: `overlap` `[Lx, Ly] int64` at the metric's own k. Kernel family: `inner`
    `[Lx, Ly] float64` Σ K ∘ L, with the unary states of both sides.
    """

    n: int
    overlap: Tensor | None = None
    inner: Tensor | None = None
    x: KernelRows | None = None
    y: KernelRows | None = None


@dataclass(frozen=True)
class Metric:
    """A number for a pair of representations: its declaration, its options, and how it is scored.

    `needs` names the fields of `PairSums` that `score` reads. `options` holds every option with its
    value; `bounds` are the least and greatest score there can be. `null` says how its null by
    permutation is made: "relabel" where the score of a cell rises with `PairSums.overlap` and depends
    on nothing else of the pair, None where there is none yet.
    """

    name: str
    family: Literal["neighbors", "kernel"]
    needs: tuple[str, ...]
    bounds: tuple[float, float]
    min_samples: int
    description: str
    cost: str
    scorer: Callable[[PairSums, Mapping[str, Any]], Scored] = field(repr=False)
    direction: Literal["similarity", "distance"] = "similarity"
    symmetric: bool = True
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    null_mean: Callable[[int, Mapping[str, Any]], float] | None = field(default=None, repr=False)
    null: Literal["relabel"] | None = None

    @property
    def k(self) -> int | None:
        """The number of neighbors, for a metric that has one."""
        return self.options.get("k")

    @property
    def key(self) -> dict[str, Any]:
        """The metric's name and options as plain values, to enter digests and manifests."""
        return {"name": self.name, "options": dict(self.options)}

    @property
    def label(self) -> str:
        """The metric with its options, for people: `mutual_knn(k=10)`."""
        options = ", ".join(f"{name}={value}" for name, value in sorted(self.options.items()))
        return f"{self.name}({options})" if options else self.name

    def check(self, n: int) -> None:
        """Refuse a number of samples for which the metric is undefined, before any work.

        :raises StudyError: if n is below `min_samples`, or k ≥ n.
        """
        if n < self.min_samples:
            raise StudyError(f"{self.name} needs at least {self.min_samples} samples; there are {n}.")
        if self.k is not None and self.k >= n:
            raise StudyError(
                f"{self.name} with k = {self.k} needs more than {self.k} samples; there are {n}. "
                f"Take k ≤ {n - 1} or more samples."
            )

    def chance(self, n: int) -> float | None:
        """Return the mean score when the pairing of n samples is broken; None where not known."""
        return None if self.null_mean is None else self.null_mean(n, self.options)

    def score(self, sums: PairSums) -> Scored:
        """Return the scores `[Lx, Ly] float64` of a pair of models and the status of every cell.

        :raises ValueError: if the sums lack what the metric `needs`.
        """
        lacking = [name for name in self.needs if getattr(sums, name) is None]
        if lacking:
            raise ValueError(f"{self.name} needs {', '.join(lacking)} of a pair")
        return self.scorer(sums, self.options)

    def with_options(self, options: Mapping[str, Any]) -> Metric:
        """Return the metric with some options changed.

        :raises StudyError: if it has no such option, or the value is not allowed.
        """
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(sorted(self.options)) or "none"
                raise StudyError(f"{self.name} has no option {name!r}; its options: {known}.")
            _check_option(self.name, name, value)
        return replace(self, options={**self.options, **options})


def get_metric(entry: MetricEntry | Metric | str, **options: Any) -> Metric:
    """Return a metric by its name or by its entry in a study, with its options set.

    :raises StudyError: if there is no such metric or option, or a value is not allowed.

    >>> get_metric("mutual_knn", k=5).label
    'mutual_knn(k=5)'
    """
    if isinstance(entry, Metric):
        return entry.with_options(options)
    name, given = (entry, {}) if isinstance(entry, str) else (entry.name, entry.options)
    known = {metric.name: metric for metric in metrics()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise StudyError(f"There is no metric {name!r}.{guess} Known: {', '.join(sorted(known))}.")
    return known[name].with_options({**given, **options})


def metrics() -> tuple[Metric, ...]:
    """Return all metrics, with their default options."""
    # The declarations import this module for their types.
    from platonic_ray.metrics import cka, knn

    return (knn.MUTUAL_KNN, cka.CKA, cka.UNBIASED_CKA)


def no_status(shape: tuple[int, ...]) -> Status:
    """Return the status of a table `[Lx, Ly]` of which nothing is to be said."""
    return [[None] * shape[1] for _ in range(shape[0])]


def flag_zero_rows(status: Status, zeros_x: list[int], zeros_y: list[int]) -> Status:
    """Add to the status of every cell how many zero rows its two layers have, where there are any.

    :param zeros_x: the number of zero rows of each of the Lx layers.
    :param zeros_y: the same of the Ly layers.
    """
    flagged: Status = []
    for line, in_x in zip(status, zeros_x, strict=True):
        flagged.append([])
        for cell, in_y in zip(line, zeros_y, strict=True):
            note = f"zero rows: {in_x} in x, {in_y} in y" if in_x or in_y else None
            flagged[-1].append("; ".join(part for part in (cell, note) if part) or None)
    return flagged


def _check_option(metric: str, name: str, value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name == "k" and not (whole and value >= 1):
        raise StudyError(f"{metric}: k must be a whole number of at least 1 (given: {value!r}).")
