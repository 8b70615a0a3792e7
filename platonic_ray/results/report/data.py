"""The numbers of a report, packed for its script: small enough for a hundred models of thirty layers.

Pairs are columns of JSON. Scores of layer pairs, of which there are millions, are 16-bit steps between
a metric's lowest and highest score, compressed, and unpacked in the browser when a pair is opened.
"""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import numpy as np
import polars as pl

from platonic_ray.metrics import metrics
from platonic_ray.results.figures.scatter import alignment_of
from platonic_ray.results.groups import inputs_of, views_of, with_groups
from platonic_ray.results.order import cluster_order
from platonic_ray.results.result import Result

_UNDEFINED = 0xFFFF
_STEPS = 0xFFFE
_MOST_CELLS = 12_000_000  # layer pairs of all metrics; beyond it a metric's layer maps are left out
_NUMBERS = ("score", "chance", "null_threshold", "calibrated", "p", "q", "low", "high", "selection_score")
_GROWTH = ("size", "k", "score", "standard_error", "chance")


def page_data(result: Result) -> dict[str, Any]:
    """Return what the page's script reads, as values that JSON can hold."""
    names = result.layers["model"].unique(maintain_order=True).to_list()
    place = {name: at for at, name in enumerate(names)}
    room = _MOST_CELLS
    packed = []
    for label in result.metrics:
        cells = result.scores.filter(pl.col("metric") == label)["score"].to_numpy()
        room -= cells.size
        packed.append(_metric(result, label, place) | {"cells": pack_cells(cells) if room >= 0 else None})
    return {
        "models": _models(result, names),
        "alpha": result.alpha,
        "metrics": packed,
        "growth": _growth(result, place),
        "examples": _examples(result, place),
        "capability": _capability(result, place),
    }


def pack_cells(scores: np.ndarray) -> dict[str, Any]:
    """Pack scores `[cells]`, NaN where undefined, as `low`, `step` and base64 of compressed 16-bit steps.

    The high bytes of all steps come first, then the low ones: they compress better apart. A score comes
    back to within half a step, 1/131,068 of the range of the scores.

    >>> packed = pack_cells(np.array([0.0, np.nan, 1.0]))
    >>> zlib.decompress(base64.b64decode(packed["bytes"])).hex()
    '00ffff00fffe'
    """
    finite = scores[np.isfinite(scores)]
    low = float(finite.min()) if finite.size else 0.0
    step = (float(finite.max()) - low) / _STEPS if finite.size else 0.0
    steps = np.rint((np.where(np.isfinite(scores), scores, low) - low) / (step or 1.0))
    values = np.where(np.isfinite(scores), steps, _UNDEFINED).astype(np.uint16)
    planes = (values >> 8).astype(np.uint8).tobytes() + (values & 0xFF).astype(np.uint8).tobytes()
    return {"low": low, "step": step, "bytes": base64.b64encode(zlib.compress(planes, 6)).decode()}


def _models(result: Result, names: list[str]) -> list[dict[str, Any]]:
    inputs, views, floors = inputs_of(result), views_of(result), set(result.provenance.get("floors") or ())
    layers = result.layers.unique(["model", "layer"], keep="first", maintain_order=True)
    of = {
        model: rows["layer_name"].to_list()
        for (model,), rows in layers.group_by(["model"], maintain_order=True)
    }
    return [
        {
            **{"name": name, "reads": inputs[name], "view": views.get(name)},
            **{"floor": name in floors, "layers": of[name]},
        }
        for name in names
    ]


def _metric(result: Result, label: str, place: dict[str, int]) -> dict[str, Any]:
    layout, pairs = result.layout(label), result.pairs(label)
    distance = result.direction(label) == "distance"
    about = {metric.name: metric.description for metric in metrics()}
    groups = with_groups(result, label).select("model_x", "model_y", "group", "across")
    grouped = pairs.join(groups, on=["model_x", "model_y"], how="left", maintain_order="left")
    columns: dict[str, list[Any]] = {
        "x": [place[name] for name in pairs["model_x"]],
        "y": [place[name] for name in pairs["model_y"]],
        "layer_x": _positions(result, pairs, "x"),
        "layer_y": _positions(result, pairs, "y"),
        "group": grouped["group"].to_list(),
        "status": pairs["status"].to_list(),
    }
    columns |= {name: [_short(value) for value in pairs[name]] for name in _NUMBERS}
    # A cell that shows a symmetric pair the other way round is written as −2 − its row.
    index = np.where(layout.flipped, -2 - layout.index, layout.index)
    return {
        "label": label,
        "about": about.get(label.split("[")[0], ""),
        "facts": result.facts(label),
        "distance": distance,
        "rows": [place[name] for name in layout.rows],
        "columns": [place[name] for name in layout.columns],
        "index": index.tolist(),
        "clusters": [place[name] for name in cluster_order(result, label)],
        "pairs": columns,
    }


def _positions(result: Result, pairs: pl.DataFrame, side: str) -> list[int | None]:
    """Return where the best layer stands among those of its model: not its depth where some were left out."""
    at = _layer_positions(result)
    return [
        None if layer is None else at[model, layer]
        for model, layer in pairs.select(f"model_{side}", f"layer_{side}").rows()
    ]


def _layer_positions(result: Result) -> dict[tuple[str, int], int]:
    listed = result.layers.unique(["model", "layer"], keep="first", maintain_order=True)
    at: dict[tuple[str, int], int] = {}
    count: dict[str, int] = {}
    for model, layer in listed.select("model", "layer").rows():
        at[model, layer] = count[model] = count.get(model, -1) + 1
    return at


def _growth(result: Result, place: dict[str, int]) -> list[dict[str, Any]]:
    """Return a curve a metric, pair and protocol: its points, ascending."""
    curves = []
    keys = ["metric", "model_x", "model_y", "protocol"]
    for (metric, x, y, protocol), rows in result.growth.group_by(keys, maintain_order=True):
        points = rows.sort("size")
        curves.append(
            {"metric": metric, "protocol": protocol, "x": place.get(str(x), -1), "y": place.get(str(y), -1)}
            | {name: [_short(value) for value in points[name]] for name in _GROWTH}
        )
    return curves


def _capability(result: Result, place: dict[str, int]) -> list[dict[str, Any]]:
    """Return every capability of a model that was compared, with its mean alignment by each metric."""
    return [
        {
            **{"model": place[row["model"]], "name": row["capability"], "value": _short(row["value"])},
            "alignment": [_short(alignment_of(result, label, row["model"])) for label in result.metrics],
        }
        for row in result.capability.iter_rows(named=True)
        if row["model"] in place
    ]


def _examples(result: Result, place: dict[str, int]) -> dict[str, Any]:
    """Return the samples that are examples, their neighbors by "model:layer", and what samples look like."""
    positions = _layer_positions(result)
    lists: dict[str, list[list[int]]] = {}
    for model, layer, near in result.examples.select("model", "layer", "neighbors").rows():
        lists.setdefault(f"{place[model]}:{positions[model, layer]}", []).append(near)
    shown: dict[int, dict[str, Any]] = {}
    for row in result.samples.iter_rows(named=True):
        sample = shown.setdefault(row["sample"], {"id": row["id"], "texts": {}, "image": None})
        if row["text"] is not None:
            sample["texts"][row["view"]] = row["text"]
        if row["thumbnail"] is not None and sample["image"] is None:
            sample["image"] = "data:image/webp;base64," + base64.b64encode(row["thumbnail"]).decode()
    chosen = result.examples["sample"].unique(maintain_order=True).to_list()
    return {"samples": chosen, "lists": lists, "shown": shown}


def _short(value: float | int | None) -> float | int | None:
    """Return a number in six digits: what a reader can see; None where there is none."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")
