"""What a metric is: a declaration and a scoring function over sums that blocks of work add up to.

A metric is an algebra (design.md, decision 2). `unary` state is made once for a representation
(`Neighbors`, `KernelRows`, `State`); `joint` sums are made for a pair of models and add over blocks of rows
(`Metric.joint`) or super-tiles (`TileSums.inner`); `Metric.score` turns them into the table of a
pair. The in-process run, an out-of-core run and tasks on a cluster call the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from operator import index
from typing import Any, Literal, TypeVar

import numpy as np
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels import Kernel
from platonic_ray.metrics.states import NeighborRows, Neighbors, PairSums, Similarities, State

T = TypeVar("T")

COMPAT = "platonic-rep"
"""The name of the arithmetic of the code of Huh et al. (2024), github.com/minyoungg/platonic-rep."""

Relabelled = Literal[
    "overlap",
    "jaccard",
    "rank",
    "lcs",
    "edit",
    "cycle",
    "turned cycle",
    "products",
    "masked",
    "turned masked",
]
"""The loops that make sums of relabelled tables; "turned" where x and y have changed places."""

Status = list[list[str | None]]
"""Why a cell `[Lx][Ly]` is NaN, or what is to be known about its number; None where nothing is."""

Scored = tuple[np.ndarray, Status]
"""Scores `[Lx, Ly] float64` and their status."""


Joint = Callable[[NeighborRows, NeighborRows], Tensor]
"""Sums `[Lx, Ly]` or `[S, Lx, Ly]` over a block of at most `MICRO` rows: int64, or float64."""

Own = Callable[[Neighbors, int], Tensor]
"""Sums `[S, L]` of every layer with itself, over all rows, at the k given."""

Sample = Callable[[Tensor, Tensor], Tensor]
"""What a sample adds to the sums, `[m]`, of the two lists of each of m samples, `[m, k] int64`."""

Unary = Callable[[Tensor, str, Mapping[str, Any]], State]
"""A layer's state, of its prepared rows `[n, D] float32`, the digest of its tie rule, the options."""

PairScore = Callable[[State, State, Mapping[str, Any]], tuple[float, str | None]]
"""The score of two layers, and why it is NaN or what is to be known about it."""

Refuse = Callable[[Mapping[str, Any], int | None], str | None]
"""What is wrong with options, alone (n None) or at n samples; None if nothing is."""

Permute = Callable[[State, Tensor], State]
"""The state of the same rows in another order: row i of it is row `order[i]` of the given one."""


@dataclass(frozen=True)
class Metric:
    """A number for a pair of representations: its declaration, its options, and how it is scored.

    `needs` names the fields of `PairSums` that `score` reads. `options` holds every option with its
    value; `bounds` are the least and greatest score there can be, with these options.

    A neighbor metric declares `joint`, its sums over a block of rows of the fixed grid, which are
    merged in the fixed tree. Where it needs more of a side than the block's rows, because it goes on
    from a neighbor to that one's neighbors, `whole` names the side; where it goes on with how near
    neighbors are, `similarities` says in which form, and `own` makes what it needs of one side alone.
    Where its sums add up a number of each sample's own two lists, `sample` gives these numbers; the
    score is then affine in the sums.

    `ordered` is False for a neighbor metric that asks which the k nearest are, and not for their order.

    A kernel metric declares `kernel_with`, the kernel that its sums are of, as a function of its options;
    metrics with equal kernels share sums.

    A metric of the rows family needs whole representations: `unary` makes the state of a layer, once,
    `pair` scores two of them, `permute` reorders a state's rows without making it again. It takes the
    time of a decomposition a layer pair, so its option `layers` says which are scored
    (`metrics.rows`); `pair_flops` estimates one of n rows and widths Dx, Dy.

    `becomes` returns the declaration that options make, for a metric whose family depends on them.

    `refuse` says what is wrong with the options, alone (n None) or at n samples; None if nothing is.

    `reference` holds the fields of the declaration that are others in the code of Huh et al.
    (github.com/minyoungg/platonic-rep), options among them; None for a metric that it has not.
    `as_reference` returns the metric with them, and then `compat` is true: every difference is named
    where the metric is declared. `imported` is set for a user's own metric: its import path, and a
    digest of its source (`metrics.own`). `best` reduces a table of it to one score.

    `null` says by which loop a neighbor metric's `joint` sums of relabelled tables are made, in a time that
    grows with what is shared alone (`statistics.relabel`); where it is None they are made by `joint` itself.
    """

    name: str
    family: Literal["neighbors", "kernel", "rows"]
    needs: tuple[str, ...]
    bounds: tuple[float, float]
    min_samples: int
    description: str
    cost: str
    scorer: Callable[[PairSums, Mapping[str, Any]], Scored] = field(repr=False)
    joint: Joint | None = field(default=None, repr=False)
    whole: tuple[Literal["x", "y"], ...] = ()
    sample: Sample | None = field(default=None, repr=False)
    similarities: Similarities | None = None
    own: Own | None = field(default=None, repr=False)
    direction: Literal["similarity", "distance"] = "similarity"
    symmetric: bool = True
    ordered: bool = True
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    null_mean: Callable[[int, Mapping[str, Any]], float | None] | None = field(default=None, repr=False)
    bounds_with: Callable[[Mapping[str, Any]], tuple[float, float]] | None = field(default=None, repr=False)
    null: Relabelled | None = None
    kernel_with: Callable[[Mapping[str, Any]], Kernel] | None = field(default=None, repr=False)
    unary: Unary | None = field(default=None, repr=False)
    pair: PairScore | None = field(default=None, repr=False)
    permute: Permute | None = field(default=None, repr=False)
    pair_flops: Callable[[int, int, int], float] | None = field(default=None, repr=False)
    refuse: Refuse | None = field(default=None, repr=False)
    becomes: Callable[[Mapping[str, Any]], Metric] | None = field(default=None, repr=False)
    min_k: int = 1
    reference: Mapping[str, Any] | None = field(default=None, hash=False, repr=False)
    compat: bool = False
    imported: tuple[str, str] | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.imported is None:
            return super().__reduce_ex__(protocol)
        from platonic_ray.metrics.own import restore

        return restore, (*self.imported, dict(self.options), self.compat)

    @property
    def kernel(self) -> Kernel | None:
        """The kernel whose sums the metric needs, with these options; None for other families."""
        return None if self.kernel_with is None else self.kernel_with(self.options)

    @property
    def k(self) -> int | None:
        """The number of neighbors, for a metric that has one."""
        return self.options.get("k")

    @property
    def key(self) -> dict[str, Any]:
        """The metric's name and options as plain values, to enter digests and manifests."""
        key = {"name": self.name, "options": dict(self.options)}
        if self.imported is not None:
            key |= {"name": self.imported[0], "source": self.imported[1]}
        return key | {"compat": COMPAT} if self.compat else key

    def facts(self) -> dict[str, Any]:
        """Return the declaration as plain values, for lists of the metrics."""
        tables = {"x": "all rows of x's neighbors", "y": "all rows of y's neighbors"}
        state = "whole representations" if self.family == "rows" else "neighbors"
        if self.kernel is not None:
            state = f"sums of the kernel {self.kernel.label}"
        return {
            "name": self.name,
            "description": self.description,
            "family": self.family,
            "direction": self.direction,
            "bounds": [bound if isfinite(bound) else None for bound in self.bounds],
            "symmetric": self.symmetric,
            "options": dict(self.options),
            "needs": [state, *(tables[side] for side in self.whole), *_SIMILARITIES[self.similarities]],
            "min_samples": self._least_samples(),
            "in_reference": self.reference is not None,
            "chance_known": self.null_mean is not None,
            "cost": self.cost,
        }

    def _least_samples(self) -> int:
        """Return the smallest n that `check` lets pass, with these options."""
        least = max(self.min_samples, (self.k or 0) + 1)
        while self.refuse is not None and self.refuse(self.options, least):
            least += 1
        return least

    @property
    def label(self) -> str:
        """The metric with its options, for people: `mutual_knn(k=10)`."""
        given = sorted((name, value) for name, value in self.options.items() if value is not None)
        options = ", ".join(f"{name}={value}" for name, value in given)
        return f"{self.name}({options})" if options else self.name

    def of_two_layers(self) -> Metric:
        """Return the metric as it scores two layers that were chosen already, models of one layer each."""
        return self.with_options({"layers": "last"}) if self.family == "rows" else self

    def orders(self, x: T, y: T) -> tuple[tuple[T, T], ...]:
        """Return the orders of two models in which they are scored: both, if it makes a difference."""
        return ((x, y),) if self.symmetric or x == y else ((x, y), (y, x))

    def on_all_layers(self) -> Metric:
        """Return the metric scored on every layer pair that it is given, whatever its option `layers`."""
        return self.with_options({"layers": "all"}) if self.family == "rows" else self

    def check(self, n: int) -> None:
        """Refuse a number of samples for which the metric is undefined, before any work.

        :raises StudyError: if n is below `min_samples`, k ≥ n, or an option does not fit n.
        """
        if n < self.min_samples:
            raise StudyError(f"{self.name} needs at least {self.min_samples} samples; there are {n}.")
        if self.k is not None and self.k < self.min_k:
            raise StudyError(f"{self.name} needs k ≥ {self.min_k} (given: {self.k}).")
        if self.k is not None and self.k >= n:
            raise StudyError(
                f"{self.name} with k = {self.k} needs more than {self.k} samples; there are {n}. "
                f"Take k ≤ {n - 1} or more samples."
            )
        wrong = None if self.refuse is None else self.refuse(self.options, n)
        if wrong:
            raise StudyError(f"{self.name}: {wrong}")

    def best(self, scores: np.ndarray) -> tuple[float, int, int]:
        """Return the best of a table `[Lx, Ly]` and where it is; see `best`."""
        return best(scores, self.direction, self.compat)

    def as_reference(self) -> Metric:
        """Return the metric in the arithmetic of the reference's code.

        :raises StudyError: if the reference has no such metric.
        """
        if self.compat:
            return self
        if self.reference is None:
            from platonic_ray.metrics.registry import metrics

            known = ", ".join(sorted(metric.name for metric in metrics() if metric.reference is not None))
            raise StudyError(
                f"{self.name} is not a metric of {COMPAT}, whose arithmetic is asked for; these are: {known}."
            )
        options = {**self.options, **self.reference.get("options", {})}
        changed = replace(self, **{**self.reference, "options": options, "compat": True})
        return changed.with_options({})

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
        # A numpy scalar is a plain number by another name; keys and labels hold plain ones.
        options = {name: v.item() if isinstance(v, np.generic) else v for name, v in options.items()}
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(sorted(self.options)) or "none"
                raise StudyError(f"{self.name} has no option {name!r}; its options: {known}.")
            _check_option(self.name, name, value, self.options[name])
        merged = {**self.options, **options}
        made = replace(self, options=merged) if self.becomes is None else self.becomes(merged)
        wrong = None if made.refuse is None else made.refuse(made.options, None)
        if wrong:
            raise StudyError(f"{self.name}: {wrong}")
        return made if made.bounds_with is None else replace(made, bounds=made.bounds_with(merged))


_SIMILARITIES: dict[Similarities | None, tuple[str, ...]] = {
    None: (),
    "plain": ("their similarities",),
    "centered": ("their similarities", "row sums of the kernel"),
}


def best(scores: np.ndarray, direction: str = "similarity", compat: bool = False) -> tuple[float, int, int]:
    """Return the best of a table `[Lx, Ly]` and where it is: the maximum, for a distance the minimum.

    NaN is passed over; equal scores go to the first (i, j); (NaN, −1, −1) if all are NaN.

    :param compat: as the reference's loops have it: the maximum starts at 0, so that (0, −1, −1) is the
        best where nothing is above 0, and equal scores go to the first (j, i).
    """
    if compat:
        high = np.where(scores > 0, scores, 0.0)
        j, i = divmod(int(np.argmax(high.T)), scores.shape[0])
        return (float(scores[i, j]), i, j) if high[i, j] > 0 else (0.0, -1, -1)
    if np.isnan(scores).all():
        return float("nan"), -1, -1
    defined = np.flatnonzero(~np.isnan(scores))
    among = scores.ravel()[defined]
    at = defined[among.argmin() if direction == "distance" else among.argmax()]
    i, j = divmod(int(at), scores.shape[1])
    return float(scores[i, j]), i, j


def whole(name: str, value: Any) -> int:
    """Return a whole number, a numpy one too, as a plain int.

    :raises StudyError: if it is none, naming it.
    """
    try:
        if not isinstance(value, bool | np.bool_):
            return index(value)
    except TypeError:
        pass
    raise StudyError(f"{name} must be a whole number (given: {value!r}).") from None


def whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    """Return several whole numbers as plain ints.

    :raises StudyError: as `whole`, or if they are no sequence.
    """
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise StudyError(f"{name} must be a list of whole numbers (given: {values!r}).")
    try:
        return tuple(whole(name, value) for value in values)
    except StudyError:
        raise StudyError(f"{name} must be whole numbers (given: {list(values)!r}).") from None


def refuse_others(options: Mapping[str, Any], choices: Mapping[str, tuple[Any, ...]]) -> str | None:
    """Say which option is none of the values that it may have; None if none is. For `refuse`."""
    for name, allowed in choices.items():
        if options[name] not in allowed:
            listed = ", ".join(map(repr, allowed))
            return f"{name} must be one of {listed} (given: {options[name]!r})."
    return None


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


def _check_option(metric: str, name: str, value: Any, default: Any) -> None:
    if isinstance(default, bool) and not isinstance(value, bool):
        raise StudyError(f"{metric}: {name} must be true or false (given: {value!r}).")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name == "k" and not (whole and value >= 1):
        raise StudyError(f"{metric}: k must be a whole number of at least 1 (given: {value!r}).")
