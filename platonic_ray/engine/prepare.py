"""Everything that can be known before work is spent: samples, models, metrics, and the plan.

`prepare` opens the samples and refuses the bad ones, pins the models to exact weights, checks the
metrics against the number of samples, and makes the plan with all its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from platonic_ray.datasets import Dataset, Shard, open_dataset
from platonic_ray.digest import digest
from platonic_ray.engine.checked import checked
from platonic_ray.engine.context import Context, views_of
from platonic_ray.engine.expanded import refuse_of_rows, rows_of_search, samples_of
from platonic_ray.engine.held_out import chooses
from platonic_ray.engine.intervals import drawn_groups, intervals_of, tensor_of
from platonic_ray.engine.significance import groups_of_null, null_of
from platonic_ray.engine.winners import Choices, curves_of
from platonic_ray.errors import StudyError
from platonic_ray.kernels import MICRO, Kernel
from platonic_ray.metrics import Metric, get_metric, needs_of_neighbors, resolve_winners, winners_of
from platonic_ray.models import ModelSpec, check_rows, describe, resolve, rows_of
from platonic_ray.plan import (
    Plan,
    PlannedModel,
    choose_block_rows,
    choose_product_rows,
    cut,
    features_key,
    permuted_kernels,
)
from platonic_ray.statistics import Null
from platonic_ray.store import Store
from platonic_ray.study import IntervalsEntry, NullEntry, Study

_RESULT_VERSION = 7


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run: nothing about its input can fail any more.

    `dataset` are its samples, opened, without the bad ones, whose rows are `dropped`; `notes` are what a
    reader of its result should know. `choosing` is the same study over the other samples, where those
    choose the layers: `dataset` is then the half that reports.
    """

    study: Study
    context: Context
    key: str
    dataset: Dataset
    dropped: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    choosing: Prepared | None = None

    @property
    def parts(self) -> tuple[Prepared, ...]:
        """Return what runs, in order: the half that chooses, where there is one, and the study itself."""
        return (self,) if self.choosing is None else (self.choosing, self)

    def with_choices(self, choices: Choices) -> Prepared:
        """Return it with the layers that the other half chose."""
        return replace(self, context=replace(self.context, choices=choices))


def prepare(study: Study, store: Store) -> Prepared:
    """Open, check and pin everything a study names, and plan it.

    :raises PlatonicRayError: one clear error for whatever cannot be used; no work has been done.
    """
    metrics = tuple(get_metric(entry, compat=study.compat) for entry in study.metrics)
    refuse_twice(metrics)
    resolve_winners(metrics)
    opened = open_dataset(study.dataset, study.seed)
    for entry in study.models:
        opened.kind(entry.view)  # raises, naming the views there are
    for metric in metrics:
        metric.check(len(opened))
    # Again below, of the samples that are left; here before any weights are fetched.
    curves_of(study.growth, metrics, len(opened), study.seed)
    intervals_of(study.intervals, metrics, len(opened), study.seed)
    specs = tuple(resolve(entry) for entry in study.models)
    for entry, spec in zip(study.models, specs, strict=True):
        kind = opened.kind(entry.view)
        if spec.by_row:
            check_rows(spec, opened, entry.view)
        elif spec.modality is not None and kind != spec.modality:
            raise StudyError(
                f"Model {entry.name!r} reads {spec.modality}; the view {entry.view!r} holds {kind}. "
                f"Views that hold {spec.modality}: {_listed(v for v, k in opened.views.items() if k == spec.modality)}."
            )
        if spec.likelihood_view is not None and opened.kind(spec.likelihood_view) != "text":
            raise StudyError(
                f"Model {entry.name!r}: bits_per_byte names the view {spec.likelihood_view!r}, which holds no texts."
            )
    views = views_of([model.view for model in study.models], specs)
    dataset, dropped = checked(opened, views, study.dataset.on_bad_sample, store)
    samples = len(dataset)
    if dataset.owners is not None:
        refuse_of_rows(study, metrics)
        samples = samples_of(dataset.owners)
    for metric in metrics:
        metric.check(samples)
    over = partial(_over, store=store, metrics=metrics, specs=specs, dropped=dropped)
    if study.choose_layers == "all":
        return over(study, dataset=dataset, left_out=dropped)
    rows = [row for row in range(len(opened)) if row not in set(dropped)]
    first = chooses(len(rows), metrics).tolist()
    halves = [[row for row, at in zip(rows, first, strict=True) if at is here] for here in (True, False)]
    left_out = [tuple(sorted({*range(len(opened))} - {*half})) for half in halves]
    unmeasured = {"null": NullEntry(permutations=0), "growth": None, "intervals": IntervalsEntry()}
    choosing = over(study.model_copy(update=unmeasured), dataset=opened.take(halves[0]), left_out=left_out[0])
    return over(study, dataset=opened.take(halves[1]), left_out=left_out[1], choosing=choosing)


def _over(
    study: Study,
    *,
    store: Store,
    metrics: tuple[Metric, ...],
    specs: tuple[ModelSpec, ...],
    dataset: Dataset,
    left_out: tuple[int, ...],
    dropped: tuple[int, ...],
    choosing: Prepared | None = None,
) -> Prepared:
    """Plan a study, known to be usable, over some of its samples.

    :param left_out: the rows that `dataset` lacks; `dropped` the bad ones among them.
    :param choosing: the plan over the samples that choose the layers, where it is not these.
    """
    owners = dataset.owners
    different = len(study.models) * (len(study.models) - 1) // 2
    null, notes = null_of(
        study.null, metrics, different, len(dataset), study.seed, groups_of_null(study, dataset)
    )
    curves = curves_of(study.growth, metrics, len(dataset), study.seed)
    interval_groups = drawn_groups(dataset, "intervals", study.intervals.groups)
    growth_groups = drawn_groups(dataset, "growth", None if study.growth is None else study.growth.groups)
    intervals = intervals_of(study.intervals, metrics, len(dataset), study.seed, tensor_of(interval_groups))
    scoring = {
        "version": _RESULT_VERSION,
        "metrics": [metric.key for metric in metrics],
        "recipe": study.recipe,
        "null": None if null is None else null.summary(),
        "growth": [[at, asdict(how)] for at, how in curves],
        "intervals": None if intervals is None else asdict(intervals),
        **({} if choosing is None else {"chosen_on": choosing.context.fingerprint}),
    }
    for name, numbers in (("interval_groups", interval_groups), ("growth_groups", growth_groups)):
        if numbers is not None:
            scoring[name] = digest(list(numbers))
    if owners is not None:
        scoring["owners"] = digest(list(owners))
        notes += (
            f"{samples_of(owners)} samples have {len(dataset)} rows. Neighbors are of a row, among the other samples: "
            "each by its nearest row, once. Permutations move samples with as many rows",
        )
    plan = _plan(study, store, dataset, specs, metrics, null)
    if plan.product_rows:  # the models of the study decide, all of them: what joins them may change the way
        scoring["linear"] = "products"
    plan = replace(plan, scoring=digest(scoring))
    context = Context(
        store=store,
        plan=plan,
        specs=specs,
        metrics=metrics,
        dataset=study.dataset,
        seed=study.seed,
        dropped=left_out,
        fingerprint=dataset.fingerprint(views_of([model.view for model in study.models], specs)),
        ids_digest=dataset.fingerprint([]),
        run=study.run,
        null=null,
        curves=curves,
        intervals=intervals,
        interval_groups=interval_groups,
        growth_groups=growth_groups,
        owners=owners,
        features=study.features,
        gpus=tuple(study.run.gpus_per_model if entry.gpus is None else entry.gpus for entry in study.models),
    )
    key = digest(
        {
            "kind": "results",
            **scoring,
            "ids": digest(list(dataset.ids)),
            "models": [[model.name, model.view, list(model.shard_keys)] for model in plan.models],
            "ties": [model.tie_digest for model in plan.models],
            "capability": {model.name: model.capability for model in study.models if model.capability},
        }
    )
    return Prepared(study, context, key, dataset, dropped, notes, choosing)


def refuse_twice(metrics: Sequence[Metric]) -> None:
    """Refuse a metric that is asked for twice.

    :raises StudyError: naming it.
    """
    labels = [metric.label for metric in metrics]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise StudyError(f"metrics: {twice[0]} is given twice with the same options; remove one.")


def widths_of(spec: ModelSpec, store: Store) -> tuple[int, ...]:
    """Return the widths of the layers that are kept of a model.

    :raises PlatonicRayError: as `describe`.
    """
    return tuple(_shapes(spec, store)["widths"])


def parameters_of(spec: ModelSpec, store: Store) -> int:
    """Return how many numbers a model's weights hold; 0 for what is no network.

    :raises PlatonicRayError: as `describe`.
    """
    return int(_shapes(spec, store)["parameters"])


def _shapes(spec: ModelSpec, store: Store) -> Mapping[str, Any]:
    """Describe a model once, then read it."""
    key = digest({"kind": "shapes", "version": 2, "model": spec.key})
    manifest = store.manifest("shapes", key)
    if manifest is not None:
        return manifest.meta
    found = describe(spec)
    shapes = {"widths": [layer.width for layer in found.layers], "parameters": found.parameters}
    store.put("shapes", key, {}, shapes)
    return shapes


def _plan(
    study: Study,
    store: Store,
    dataset: Dataset,
    specs: tuple[ModelSpec, ...],
    metrics: tuple[Metric, ...],
    null: Null | None,
) -> Plan:
    spans = cut(len(dataset), study.shard_rows)
    shard_digests = {
        view: dataset.shard_digests(view, study.shard_rows)
        for view in views_of([model.view for model in study.models], specs)
    }
    models = []
    for entry, spec in zip(study.models, specs, strict=True):
        corpus = dataset.fingerprint([entry.view]) if spec.fits else None
        digests = shard_digests[entry.view]
        if spec.by_row:
            numbers = rows_of(spec, dataset, entry.view)
            digests = [Shard(numbers[span.start : span.stop]).digest() for span in spans]
        predicted = (
            [None] * len(spans) if spec.likelihood_view is None else shard_digests[spec.likelihood_view]
        )
        models.append(
            PlannedModel(
                name=entry.name,
                view=entry.view,
                tie_digest=digest({"model": spec.key, "view": entry.view, "seed": study.seed}),
                shard_keys=tuple(
                    features_key(spec.key, digests[shard], corpus, study.features, predicted[shard])
                    for shard in range(len(spans))
                ),
            )
        )
    drawn: dict[Kernel, int] = {}
    for metric in metrics if null is not None else ():
        if null is not None and metric.kernel is not None:
            drawn[metric.kernel] = max(drawn.get(metric.kernel, 0), null.count(metric))
    of_neighbors = [metric for metric in metrics if metric.joint is not None]
    k, row_sums = needs_of_neighbors(of_neighbors) if of_neighbors else (None, False)
    if k is not None and dataset.owners is not None:
        k = rows_of_search(k, dataset.owners)
    kernels = tuple(dict.fromkeys(kernel for metric in metrics if (kernel := metric.kernel) is not None))
    # Blocks of few samples are small whatever the models are.
    widths = [widths_of(spec, store) for spec in specs] if len(dataset) > 4 * MICRO else []
    by_products = [kernel for kernel in kernels if choose_product_rows(len(dataset), widths, kernel)]
    rows = study.run.block_rows
    if rows is None:
        tiled = len(by_products) < len(kernels)
        rows = choose_block_rows(len(dataset), widths, k, tiled, study.run.task_memory_gib * 2**30)
    if rows % MICRO or (rows // MICRO).bit_count() != 1:
        raise StudyError(f"run.block_rows must be {MICRO} times a power of two (given: {rows}).")
    return Plan(
        n=len(dataset),
        shard_rows=study.shard_rows,
        block_rows=rows,
        recipe=study.recipe,
        kernels=kernels,
        k=k,
        row_sums=row_sums,
        models=tuple(models),
        states=any(metric.family == "rows" and winners_of(metric) is None for metric in metrics),
        winners=study.growth is not None or any(winners_of(metric) is not None for metric in metrics),
        permuted=tuple(
            task
            for kernel, count in drawn.items()
            if count
            for task in permuted_kernels(kernel, count, null is not None and null.groups is not None)
        ),
        drawn="" if null is None else null.drawn,
        grouped=null is not None and null.groups is not None,
        product_rows=max(
            (choose_product_rows(len(dataset), widths, kernel, rows) for kernel in by_products), default=0
        ),
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
