"""Sorts of models and of pairs: what a model reads, and whether a pair has a floor in it."""

from __future__ import annotations

import polars as pl

from platonic_ray.models.kinds import KINDS
from platonic_ray.results.result import Result


def inputs_of(result: Result) -> dict[str, str]:
    """Return what each model reads ("text", "image"): by its kind, else by its view, else "models"."""
    views = views_of(result)
    identities = result.provenance.get("models") or {}
    known = {}
    for model in result.layers["model"].unique(maintain_order=True):
        kind = KINDS.get((identities.get(model) or {}).get("kind", ""))
        known[model] = (kind.modality if kind else None) or views.get(model) or "models"
    return known


def views_of(result: Result) -> dict[str, str]:
    """Return the view that each model of a study reads."""
    study = result.provenance.get("study") or {}
    return {entry.get("name"): entry.get("view") for entry in study.get("models") or []}


def with_groups(result: Result, label: str) -> pl.DataFrame:
    """Return the pairs of different models with `group` ("image – text"), `across` and `floor`."""
    inputs, floors = inputs_of(result), set(result.provenance.get("floors") or ())
    pairs = result.pairs(label).filter(pl.col("model_x") != pl.col("model_y"))
    rows = pairs.select("model_x", "model_y").rows()
    sides = [sorted((inputs[x], inputs[y])) for x, y in rows]
    return pairs.with_columns(
        pl.Series(
            "group",
            [f"{a} – {b}" if (a, b) != ("models", "models") else "models" for a, b in sides],
            pl.String,
        ),
        pl.Series("across", [a != b for a, b in sides], pl.Boolean),
        pl.Series("floor", [x in floors or y in floors for x, y in rows], pl.Boolean),
    )
