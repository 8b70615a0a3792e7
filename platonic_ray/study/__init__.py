"""What is asked: the frozen, validated description of a study, read from TOML or made in Python.

A study holds everything that determines a result (dataset, models, metrics, null, intervals, growth,
recipe, shard size, seed); `models` may name presets (`platonic_ray.presets`). Where and how it runs
(`[run]`: store, engine, cores) changes no number and enters no key.
Whether a metric, a model of the catalog or a column exists is checked by the layers that know.
"""

from platonic_ray.study.inputs import DatasetEntry, ModelEntry, Pooling, ViewEntry
from platonic_ray.study.questions import GrowthEntry, IntervalsEntry, MetricEntry, NullEntry
from platonic_ray.study.running import Prices, RunEntry
from platonic_ray.study.study import Recipe, Study
from platonic_ray.study.tables import Name

__all__ = [
    "DatasetEntry",
    "GrowthEntry",
    "IntervalsEntry",
    "MetricEntry",
    "ModelEntry",
    "Name",
    "NullEntry",
    "Pooling",
    "Prices",
    "Recipe",
    "RunEntry",
    "Study",
    "ViewEntry",
]
