"""The finished table: select, save, load, draw and print it. Nothing here computes a score."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from platonic_ray.results.capability import CAPABILITY_SCHEMA, capability_frame
from platonic_ray.results.examples import EXAMPLES_SCHEMA, SAMPLES_SCHEMA, examples_frame, samples_frame
from platonic_ray.results.growth import GROWTH_SCHEMA, growth_frame
from platonic_ray.results.matrix import Matrix
from platonic_ray.results.pairs import Chosen, LayerInfo, PairScores
from platonic_ray.results.result import Result, load_result
from platonic_ray.results.show import render_json, render_table

if TYPE_CHECKING:
    from platonic_ray.results.figures import draw, heatmap, save_figure

__all__ = [
    "CAPABILITY_SCHEMA",
    "EXAMPLES_SCHEMA",
    "GROWTH_SCHEMA",
    "SAMPLES_SCHEMA",
    "Chosen",
    "LayerInfo",
    "Matrix",
    "PairScores",
    "Result",
    "capability_frame",
    "draw",
    "examples_frame",
    "growth_frame",
    "heatmap",
    "load_result",
    "render_json",
    "render_table",
    "samples_frame",
    "save_figure",
]


def __getattr__(name: str) -> Any:
    if name not in ("draw", "heatmap", "save_figure"):
        raise AttributeError(f"module 'platonic_ray.results' has no attribute {name!r}")
    return getattr(importlib.import_module("platonic_ray.results.figures"), name)
