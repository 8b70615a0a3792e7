"""Durable, content-addressed Arrow on any pyarrow filesystem. See `platonic_ray.store.store`."""

from platonic_ray.store.arrow import arrays_table, feature_array, feature_table, table_arrays
from platonic_ray.store.store import CorruptArtifactError, Draft, Manifest, Part, Store

__all__ = [
    "CorruptArtifactError",
    "Draft",
    "Manifest",
    "Part",
    "Store",
    "arrays_table",
    "feature_array",
    "feature_table",
    "table_arrays",
]
