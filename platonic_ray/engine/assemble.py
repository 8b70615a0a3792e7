"""From score tables and manifests to the result: labels, layers, provenance. Computes no score."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from platonic_ray.digest import digest
from platonic_ray.engine import held_out
from platonic_ray.engine.context import Context
from platonic_ray.engine.expanded import samples_of
from platonic_ray.engine.features import read_bounds
from platonic_ray.engine.prepare import Prepared, parameters_of
from platonic_ray.engine.scores import CALIBRATION
from platonic_ray.engine.winners import BEST, CHOSEN, Choices
from platonic_ray.errors import RunError
from platonic_ray.kernels import CLAMPED
from platonic_ray.metrics import Metric, flag_zero_rows, full_table_note
from platonic_ray.models import Likelihood
from platonic_ray.plan import Score
from platonic_ray.results import Chosen, LayerInfo, PairScores, Result, capability_frame, growth_frame
from platonic_ray.statistics import Calibration, Interval
from platonic_ray.store import Manifest, Store
from platonic_ray.study import ModelEntry


def assemble(
    prepared: Prepared,
    scores: dict[Score, pa.Table],
    engine: str,
    started: float,
    cost: Mapping[str, Any] | None = None,
) -> Result:
    """Put scores, layers and provenance together; reads manifests, never features.

    :param cost: of the run, as `summary.cost_of` has it.
    """
    context, plan = prepared.context, prepared.context.plan
    described = [_describe(context, model) for model in range(len(plan.models))]
    layers = [layer for description in described for layer in description.layers]
    labels = labels_of(context.metrics)
    pairs, growth = [], []
    for row in (row for table in scores.values() for row in table.to_pylist()):
        metric, x, y = context.metrics[row["metric"]], described[row["x"]], described[row["y"]]
        shape = (len(x.layers), len(y.layers))
        status = [row["status"][i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]
        zeros = [[layer.zero_rows for layer in side.layers] for side in (x, y)]
        pairs.append(
            PairScores(
                metric=labels[row["metric"]],
                x=plan.models[row["x"]].name,
                y=plan.models[row["y"]].name,
                scores=np.array(row["scores"]).reshape(shape),
                status=flag_zero_rows(status, *zeros),
                n=plan.n,
                k=metric.k,
                chance=metric.chance(
                    plan.n if context.owners is None or metric.joint is None else samples_of(context.owners)
                ),
                symmetric=metric.symmetric,
                direction=metric.direction,
                compat=metric.compat,
                null=None if row["p"] is None else Calibration(**{name: row[name] for name in CALIBRATION}),
                interval=_interval(row),
                chosen=None
                if context.choices is None
                else context.choices[row["metric"], row["x"], row["y"]],
            )
        )
        names = {f"model_{side}": plan.models[row[side]].name for side in "xy"}
        how = BEST if context.choices is None else CHOSEN
        about = {"metric": labels[row["metric"]], "layers": how} | names
        growth += [(row["metric"], about | point) for point in row["growth"]]
    provenance = _provenance(prepared, described, engine, started, cost)
    pairs.sort(key=lambda pair: labels.index(pair.metric))
    curves = growth_frame(row for _, row in sorted(growth, key=lambda each: each[0]))
    measured = [
        row
        for entry, spec, description in zip(prepared.study.models, context.specs, described, strict=True)
        for row in capability_rows(
            entry.name,
            _measured_view(entry),
            description.likelihood,
            entry.capability,
            parameters_of(spec, context.store),
        )
    ]
    return Result.from_pairs(pairs, layers, provenance, curves, capability_frame(measured))


def choices_of(prepared: Prepared, scores: dict[Score, pa.Table]) -> Choices:
    """Return the layers at which every pair of models is best under every metric."""
    context = prepared.context
    layers = [len(_describe(context, model).layers) for model in range(len(context.plan.models))]
    choices = {}
    for row in (row for table in scores.values() for row in table.to_pylist()):
        table = np.array(row["scores"], dtype=np.float64).reshape(layers[row["x"]], layers[row["y"]])
        score, i, j = context.metrics[row["metric"]].best(table)
        choices[row["metric"], row["x"], row["y"]] = Chosen(i, j, score)
    return choices


_NO_CONTEXT = (
    "of {count} of {texts} texts the first token has no context and counts no bits; bos = true gives it one"
)


def capability_rows(
    model: str,
    view: str,
    likelihood: Likelihood | None,
    given: Mapping[str, float],
    parameters: int = 0,
) -> list[dict[str, Any]]:
    """Return the rows of a model in the frame of capabilities: what was measured, what was given, its size.

    :param parameters: of its network; 0 for what is none. A number of them that was given stands instead.
    """
    rows: list[dict[str, Any]] = []
    if likelihood is not None:
        alone, texts = likelihood.without_context, likelihood.texts
        about = {
            **{"model": model, "view": view, "samples": texts},
            "status": _NO_CONTEXT.format(count=alone, texts=texts) if alone else None,
        }
        measured = ("bits_per_byte", "bits_per_byte_per_text")
        rows = [{**about, "capability": name, "value": getattr(likelihood, name)} for name in measured]
    sized = {"parameters": parameters} if parameters else {}
    others = {**given, **{name: count for name, count in sized.items() if name not in given}}
    return rows + [{"model": model, "capability": name, "value": value} for name, value in others.items()]


_ROUNDED = (
    "{model}: kept as float16, which changes {mean:.2%} of 10 nearest neighbors (at most {most:.2%}, in "
    "{layer!r}), measured among the {rows} samples of each shard; among more, neighbors lie closer and more change"
)


def _measured_view(entry: ModelEntry) -> str:
    return entry.bits_per_byte if isinstance(entry.bits_per_byte, str) else entry.view


def _interval(row: dict[str, Any]) -> Interval | None:
    """Return the interval of a row of a score table; None where it has none."""
    if row["interval_target"] is None:
        return None
    given = {field.name: row[f"interval_{field.name}"] for field in fields(Interval)}
    return Interval(**{**given, "halves": tuple(given["halves"] or ())})


@dataclass(frozen=True)
class _Description:
    """What the manifests of a model's shards and blocks say about it."""

    layers: tuple[LayerInfo, ...]
    truncated: int
    likelihood: Likelihood | None
    fell_back: int
    lost: tuple[float, ...] | None
    smaller: int
    bounds: tuple[float, ...] | None
    made_by: tuple[dict[str, Any], ...]


def _describe(context: Context, model: int) -> _Description:
    plan, store = context.plan, context.store
    shards = [_manifest(store, "features", key).meta for key in plan.models[model].shard_keys]
    blocks = [
        _manifest(store, "neighbors", plan.neighbors_key(model, a)).meta
        for a in range(len(plan.blocks))
        if plan.k
    ]
    bounds = _bounds(context, model)
    layers = tuple(
        LayerInfo(
            model=plan.models[model].name,
            layer=layer["index"],
            layer_name=layer["name"],
            width=layer["width"],
            zero_rows=plan.n
            if bounds is not None and bounds[at] == 0
            else sum(shard["zero_rows"][at] for shard in shards),
            k=context.k,
            # The rows of one sample tie where they share an item; what ties beyond them is not counted.
            tied_share=sum(block["tied_rows"][at] for block in blocks) / plan.n
            if plan.k and context.owners is None
            else None,
        )
        for at, layer in enumerate(shards[0]["layers"])
    )
    machines = {digest(shard["made_by"]): shard["made_by"] for shard in shards}
    truncated = sum(shard["truncated"] for shard in shards)
    noted = [shard["likelihood"] for shard in shards if shard.get("likelihood") is not None]
    likelihood = Likelihood.sum(noted) if noted else None
    fell_back = sum(shard.get("fell_back") is not None for shard in shards)
    lost = _lost([shard["neighbors_lost"] for shard in shards if shard.get("neighbors_lost")])
    smaller = sum(shard.get("smaller_batches", 0) > 0 for shard in shards)
    return _Description(
        layers, truncated, likelihood, fell_back, lost, smaller, bounds, tuple(machines.values())
    )


def _lost(shards: Sequence[Sequence[float | None]]) -> tuple[float, ...] | None:
    """Return the mean share of neighbors that rounding changed of every layer, over shards that tell it."""
    told = [shard for shard in shards if None not in shard]
    return tuple(np.mean(np.array(told, float), axis=0).tolist()) if told else None


def _bounds(context: Context, model: int) -> tuple[float, ...] | None:
    if context.plan.recipe not in CLAMPED:
        return None
    bounds = read_bounds(context, model)
    if bounds is None:
        raise _gone("recipes", context.plan.clamp_key(model))
    return bounds


def _manifest(store: Store, kind: str, key: str) -> Manifest:
    manifest = store.manifest(kind, key)
    if manifest is None:
        raise _gone(kind, key)
    return manifest


def _gone(kind: str, key: str) -> RunError:
    return RunError(f"The {kind} {key[:12]}… went from the store during the run; run again to resume.")


def labels_of(metrics: Sequence[Metric]) -> list[str]:
    """A metric goes by its name; by name and options where a study has it twice."""
    names = Counter(metric.name for metric in metrics)
    return [metric.name if names[metric.name] == 1 else metric.label for metric in metrics]


def emptied(clamps: Mapping[str, Sequence[float]]) -> list[str]:
    """Return a note for every model of which the clamp leaves nothing: a clamp `[L]` each."""
    return [
        f"{name}: the recipe clamps layer {', '.join(str(at) for at in gone)} to 0, because 95 % of its features "
        "are 0; all its rows are zero. Take another recipe for it"
        for name, bounds in clamps.items()
        if (gone := [at for at, bound in enumerate(bounds) if bound == 0])
    ]


def asked(prepared: Prepared) -> dict[str, Any]:
    """Return the part of a result's provenance that says what was asked, whoever computed it."""
    study, context = prepared.study, prepared.context
    specs = {model.name: spec for model, spec in zip(study.models, context.specs, strict=True)}
    return {
        "study": study.model_dump(mode="json", exclude={"run"}),
        "study_key": prepared.key,
        "compat": study.compat,
        "dataset": {
            "name": study.dataset.source,
            "fingerprint": context.fingerprint,
            "n": context.plan.n,
            "dropped": list(prepared.dropped),
        },
        "models": {name: spec.identity() for name, spec in specs.items()},
        "floors": [name for name, spec in specs.items() if spec.init == "random" or spec.weights is None],
    }


def full_table_notes(
    metrics: Sequence[Metric], n: int, widths: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[str]:
    """Say of every metric that was not asked for all layer pairs what all would have taken.

    :param widths: the widths of the layers of both models, for each pair of models.
    """
    some = [metric for metric in metrics if metric.family == "rows" and metric.options["layers"] != "all"]
    return [full_table_note(metric, n, widths) for metric in some]


def _provenance(
    prepared: Prepared,
    described: list[_Description],
    engine: str,
    started: float,
    cost: Mapping[str, Any] | None,
) -> dict[str, Any]:
    study, context = prepared.study, prepared.context
    names = [model.name for model in study.models]
    machines = {digest(made): made for description in described for made in description.made_by}
    notes = [
        f"{name}: {description.truncated} of {context.plan.n} texts were cut at the model's longest input"
        for name, description in zip(names, described, strict=True)
        if description.truncated
    ]
    notes += [
        f"{name}: {description.fell_back} of {len(context.plan.shards)} shards were run again in float32, where "
        "the model's dtype gave NaN or infinity"
        for name, description in zip(names, described, strict=True)
        if description.fell_back
    ]
    notes += [
        _ROUNDED.format(
            model=name,
            mean=np.mean(description.lost),
            most=max(description.lost),
            layer=description.layers[int(np.argmax(description.lost))].layer_name,
            rows=context.plan.shard_rows,
        )
        for name, description in zip(names, described, strict=True)
        if description.lost is not None
    ]
    notes += [
        f"{name}: {description.smaller} of {len(context.plan.shards)} shards were run in smaller batches, because "
        "memory ran out; equality of bytes ends there"
        for name, description in zip(names, described, strict=True)
        if description.smaller
    ]
    notes += prepared.notes
    clamps = {
        name: description.bounds
        for name, description in zip(names, described, strict=True)
        if description.bounds is not None
    }
    notes += emptied(clamps)
    widths = [[layer.width for layer in description.layers] for description in described]
    notes += full_table_notes(
        context.metrics, context.plan.n, [(widths[x], widths[y]) for x, y in context.plan.pairs]
    )
    if prepared.choosing is not None:
        notes.append(held_out.note(prepared.choosing.context.plan.n, context.plan.n))
    if len(machines) > 1:
        notes.append(
            "features were made by different devices, thread counts or versions; equality of bytes ends there"
        )
    return {
        **asked(prepared),
        "clamp": {name: list(bounds) for name, bounds in clamps.items()} or None,
        "null": None if context.null is None else context.null.summary(),
        "intervals": None
        if context.intervals is None
        else asdict(context.intervals)
        | ({} if study.intervals.groups is None else {"groups": study.intervals.groups}),
        "layers": {"choose": "all"}
        if prepared.choosing is None
        else held_out.summary(prepared.choosing.context.plan.n, context.plan.n),
        "made_by": list(machines.values()),
        "versions": {
            "platonic_ray": importlib.metadata.version("platonic-ray"),
            "python": platform.python_version(),
            **{
                name: importlib.metadata.version(name)
                for name in ("ray", "torch", "transformers", "pyarrow", "polars")
            },
        },
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "system": platform.platform()},
        "seed": study.seed,
        "engine": engine,
        "started": started,
        "finished": time.time(),
        "cost": None if cost is None else dict(cost),
        "notes": notes,
    }
