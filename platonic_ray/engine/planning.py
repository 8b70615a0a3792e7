"""From a study to its forecast: what is there, what is left, and what that takes on a cluster.

Opens the samples and pins the models as a run does, and describes the models without loading any. No
task is run and nothing but the check of the samples is written.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from platonic_ray.datasets import Dataset
from platonic_ray.engine.calibration import without_ray
from platonic_ray.engine.prepare import Prepared, parameters_of, prepare, widths_of
from platonic_ray.engine.run import default_store
from platonic_ray.errors import PlatonicRayError
from platonic_ray.kernels import MICRO
from platonic_ray.models import ModelSpec, describe
from platonic_ray.plan import found, needed
from platonic_ray.plan.costs import groups_of, name_of
from platonic_ray.plan.forecast import Forecast, forecast
from platonic_ray.plan.machines import Cluster
from platonic_ray.plan.simulate import Losses
from platonic_ray.plan.workload import VALUE_BYTES, ModelShape, Workload
from platonic_ray.store import Store
from platonic_ray.study import Study

_NETWORKS = ("transformers-", "efficientnet-", "timm")
_PATCHES = 197
_LETTERS_A_TOKEN = 4
_PEEKED = 256
_FEW = 4 * MICRO

ASSUMED = (
    f"tokens of a text: its letters / {_LETTERS_A_TOKEN}, as the first {_PEEKED} samples have them; of anything else "
    f"{_PATCHES}; a network takes two operations for each parameter and token",
    "starting processes and loading models, growth, intervals and metrics at the layers where another is best are "
    "not in it",
)


@dataclass(frozen=True)
class StudyForecast:
    """A forecast of a study; `finished` where its result is in the store already.

    Where layers are chosen on one half of the samples, `choosing` is the forecast of that half, which runs first,
    and `forecast` that of the other.
    """

    study: Study
    store: str
    forecast: Forecast
    finished: bool
    assumptions: tuple[str, ...]
    choosing: Forecast | None = None


def forecast_study(
    study: Study,
    cluster: Cluster,
    samples: int | None = None,
    losses: Losses | None = None,
    price_h: float | None = None,
) -> StudyForecast:
    """Forecast a study on a cluster, without running any of it.

    :param samples: as if the dataset had so many samples; nothing is looked up in the store then.
    :raises PlatonicRayError: for whatever `prepare` refuses.
    """
    store = Store.open(default_store() if study.run.store is None else study.run.store)
    prepared = prepare(study, store)
    if study.run.engine == "local":
        cluster = replace(cluster, machine=without_ray(cluster.machine))
    finished = samples is None and store.manifest("results", prepared.key) is not None

    def told(half: Prepared, rows: int | None) -> Forecast:
        return _forecast(half, cluster, rows, finished, losses, price_h)

    assumed = (*cluster.machine.assumptions, *ASSUMED)
    first = prepared.choosing
    if first is None:
        return StudyForecast(study, store.uri, told(prepared, samples), finished, assumed)
    chosen_on = None if samples is None else samples // 2
    reported_on = None if samples is None else samples - samples // 2
    assumed = (*assumed, "the half that reports is scored at all layers: an upper bound")
    return StudyForecast(
        study, store.uri, told(prepared, reported_on), finished, assumed, told(first, chosen_on)
    )


def _forecast(
    prepared: Prepared,
    cluster: Cluster,
    samples: int | None,
    finished: bool,
    losses: Losses | None,
    price_h: float | None,
) -> Forecast:
    """Forecast what is left of one run, or all of it over so many samples."""
    context, workload = prepared.context, workload_of(prepared)
    task_bytes = prepared.study.run.task_memory_gib * 2**30
    todo: Counter[tuple[str, str]] | None = None
    if samples is None:
        plan, store = context.plan, context.store
        there = found(plan, lambda kind, key: store.manifest(kind, key) is not None)
        todo = Counter() if finished else Counter(name_of(plan, task) for task in needed(plan, there))
    else:
        workload = workload.at(samples, task_bytes)
    return forecast(workload, cluster, todo, losses, price_h, task_bytes)


def workload_of(prepared: Prepared) -> Workload:
    """Return the shapes of a prepared study."""
    context = prepared.context
    views = [model.view for model in context.plan.models]
    return _workload(prepared, shapes_of(context.specs, prepared.dataset, views))


def _workload(prepared: Prepared, shapes: Sequence[ModelShape]) -> Workload:
    context = prepared.context
    neighbor_metrics = [metric for metric in context.metrics if metric.joint is not None]
    drawn = context.null.counts if context.null is not None else {}
    rows = [metric for metric in context.metrics if metric.family == "rows"]
    return Workload.of(
        context.plan,
        shapes,
        neighbor_metrics=len(neighbor_metrics),
        permutations=max((drawn.get(metric.label, 0) for metric in neighbor_metrics), default=0),
        row_layers=len(rows),
        value_bytes=VALUE_BYTES[context.features],
    )


def relative_costs(prepared: Prepared) -> tuple[float, ...]:
    """Return, for each model of a study, about what a sample takes it beside the others; 0 where nobody knows.

    Only which model starts first depends on it: what cannot be described is no error here.
    """
    costs = []
    for spec, planned in zip(prepared.context.specs, prepared.context.plan.models, strict=True):
        cost = 0.0
        if spec.kind.startswith(_NETWORKS):
            with contextlib.suppress(PlatonicRayError):
                cost = parameters_of(spec, prepared.context.store) * _tokens(
                    spec, prepared.dataset, planned.view
                )
        costs.append(cost)
    return tuple(costs)


def weight_bytes_of(prepared: Prepared) -> tuple[int, ...]:
    """Return, for each model of a study, about what its weights take in memory; 0 where nobody knows."""
    held = []
    for spec in prepared.context.specs:
        parameters = 0
        with contextlib.suppress(PlatonicRayError):
            parameters = parameters_of(spec, prepared.context.store)
        held.append(parameters * (4 if dict(spec.settings).get("dtype", "float32") == "float32" else 2))
    return tuple(held)


def shapes_of(specs: Sequence[ModelSpec], dataset: Dataset, views: Sequence[str]) -> tuple[ModelShape, ...]:
    """Return what each model costs, from its description and a look at the samples."""
    return tuple(
        shape_of(spec, _tokens(spec, dataset, view)) for spec, view in zip(specs, views, strict=True)
    )


def shape_of(spec: ModelSpec, tokens: float) -> ModelShape:
    """Return what a model costs. What is no network costs its bytes alone."""
    description = describe(spec)
    network = spec.kind.startswith(_NETWORKS)
    return ModelShape(
        name=spec.name,
        widths=tuple(layer.width for layer in description.layers),
        parameters=description.parameters if network else 0,
        weight_bytes=description.weight_bytes,
        tokens=tokens,
    )


def _tokens(spec: ModelSpec, dataset: Dataset, view: str) -> float:
    if spec.by_row or dataset.kind(view) != "text":
        return _PATCHES
    samples = dataset.read(view, 0, min(_PEEKED, len(dataset)))
    texts = list(chain.from_iterable(samples)) if dataset.several(view) else samples
    longest = dict(spec.settings).get("max_tokens", 512)
    # Of a view whose items are averaged, a sample has the tokens of all of them.
    return sum(min(longest, 2 + len(text) / _LETTERS_A_TOKEN) for text in texts) / len(samples)


def peaks_of(prepared: Prepared) -> dict[tuple[str, str], float]:
    """Return the bytes that the largest task of each group takes, by the group's name (`name_of`).

    Without those of the models themselves, whose weights are not looked at; empty of so few samples that
    nothing takes much.
    """
    context = prepared.context
    if context.plan.n <= _FEW:
        return {}
    shapes = [ModelShape(spec.name, widths_of(spec, context.store)) for spec in context.specs]
    peaks: dict[tuple[str, str], float] = {}
    for group in groups_of(_workload(prepared, shapes)):
        peaks[group.name] = max(peaks.get(group.name, 0.0), group.work.peak_bytes)
    return peaks
