"""What a study of a preset's models would take, from the shapes that the preset declares: no hub is reached.

For people who want to know before they ask for weights; `platonic-ray plan` reads each model's configuration
instead, and looks into the store.
"""

from __future__ import annotations

from platonic_ray import presets
from platonic_ray.engine.planning import ASSUMED, StudyForecast
from platonic_ray.engine.significance import null_of
from platonic_ray.errors import StudyError
from platonic_ray.kernels import CLAMPED
from platonic_ray.metrics import get_metric, needs_of_neighbors
from platonic_ray.plan.blocks import choose_block_rows
from platonic_ray.plan.forecast import forecast
from platonic_ray.plan.machines import Cluster
from platonic_ray.plan.simulate import Losses
from platonic_ray.plan.workload import VALUE_BYTES, ModelShape, Workload
from platonic_ray.study import ModelEntry, Study

SAMPLES = 1024
"""How many samples the paper's figures have."""

_TEXT_TOKENS = 32
_BYTES = {"float32": 4, None: 4, "bfloat16": 2, "float16": 2}


def declared_models(study: Study) -> dict[str, dict[str, object]]:
    """Return what presets declare of a study's models, by their names in the study.

    :raises StudyError: for a model that no preset has.
    """
    known = {address: model for name in presets.names() for address, model in presets.declared(name).items()}
    strange = [model.name for model in study.models if model.weights not in known]
    if strange:
        raise StudyError(
            f"No preset declares the shape of {', '.join(strange)}; `platonic-ray plan` reads it."
        )
    return {model.name: known[model.weights] for model in study.models}  # type: ignore[index]


def weight_bytes(study: Study) -> int:
    """Return the bytes of all weights of a study of presets' models, as its networks hold them."""
    return sum(shape.weight_bytes for shape in _shapes(study))


def gated(study: Study) -> list[str]:
    """Return the models whose terms have to be accepted on the hub."""
    return [name for name, model in declared_models(study).items() if model.get("gated")]


def workload_of(study: Study, samples: int | None = None) -> Workload:
    """Return the shapes of a study of presets' models, on so many samples (by default the paper's)."""
    n = samples or study.dataset.samples or SAMPLES
    shapes = _shapes(study)
    metrics = [get_metric(entry, compat=study.compat) for entry in study.metrics]
    for metric in metrics:
        metric.check(n)
    null, _ = null_of(study.null, metrics, len(shapes) * (len(shapes) - 1) // 2, n, study.seed)
    counts = {} if null is None else null.counts
    of_neighbors = [metric for metric in metrics if metric.joint is not None]
    k, row_sums = needs_of_neighbors(of_neighbors) if of_neighbors else (None, False)
    kernels = tuple(dict.fromkeys(metric.kernel for metric in metrics if metric.kernel is not None))
    permuted = {
        kernel: max(counts.get(metric.label, 0) for metric in metrics if metric.kernel == kernel)
        for kernel in kernels
    }
    widths = [shape.widths for shape in shapes]
    return Workload(
        n=n,
        shard_rows=study.shard_rows,
        block_rows=choose_block_rows(n, widths, k, bool(kernels), study.run.task_memory_gib * 2**30),
        models=shapes,
        k=k,
        row_sums=row_sums,
        neighbor_metrics=len(of_neighbors),
        permutations=max((counts.get(metric.label, 0) for metric in of_neighbors), default=0),
        kernels=kernels,
        permuted=tuple((kernel, count) for kernel, count in permuted.items() if count),
        row_layers=sum(metric.family == "rows" for metric in metrics),
        clamped=study.recipe in CLAMPED,
        value_bytes=VALUE_BYTES[study.features],
    )


def forecast_declared(
    study: Study,
    cluster: Cluster,
    samples: int | None = None,
    losses: Losses | None = None,
    price_h: float | None = None,
) -> StudyForecast:
    """Forecast a study of presets' models on a cluster, where nothing of it is there yet.

    :raises StudyError: as `declared_models`, and for metrics that so many samples do not allow.
    """
    told = forecast(workload_of(study, samples), cluster, None, losses, price_h)
    assumed = (
        "shapes and parameters of models are those that the preset declares; nothing was asked of the hub",
        f"a text has {_TEXT_TOKENS} tokens, an image as many as its model cuts it into; a network takes two "
        "operations for each parameter and token",
        f"models are held in their dtype: {weight_bytes(study) / 1e9:,.0f} GB of weights are downloaded",
        ASSUMED[1],
    )
    return StudyForecast(study, "", told, False, (*cluster.machine.assumptions, *assumed))


def _shapes(study: Study) -> tuple[ModelShape, ...]:
    declared = declared_models(study)
    return tuple(_shape(model, declared[model.name]) for model in study.models)


def _shape(model: ModelEntry, declared: dict[str, object]) -> ModelShape:
    shape = declared["shape"]
    assert isinstance(shape, dict)
    layers = shape["blocks"] + (model.layers != "blocks")
    return ModelShape(
        name=model.name,
        widths=(shape["width"],) * layers,
        parameters=shape["parameters"],
        weight_bytes=shape["parameters"] * _BYTES[model.dtype],
        tokens=shape.get("tokens", _TEXT_TOKENS),
    )
