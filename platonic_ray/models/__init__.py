"""What turns a view into features: models, their layers, their weights.

Kinds (`kinds.KINDS`), one module each: "transformers-text" (`text`), "transformers-vision" (`vision`),
"static-text" (`static`), "efficientnet-lite" (`efficientnet`), "features" (`stored`), "char-tfidf" and
"pixels" (`floors`).

Importing this package is cheap: torch, transformers and the like are imported when a model is loaded.
"""

from __future__ import annotations

from platonic_ray.models.base import RANDOM_INIT_SEED as RANDOM_INIT_SEED
from platonic_ray.models.base import Description as Description
from platonic_ray.models.base import Features as Features
from platonic_ray.models.base import Model as Model
from platonic_ray.models.base import ModelSpec as ModelSpec
from platonic_ray.models.base import check_rows as check_rows
from platonic_ray.models.base import describe as describe
from platonic_ray.models.base import load as load
from platonic_ray.models.base import rows_of as rows_of
from platonic_ray.models.catalog import CATALOG as CATALOG
from platonic_ray.models.catalog import CatalogEntry as CatalogEntry
from platonic_ray.models.check import ModelCheck as ModelCheck
from platonic_ray.models.check import calibrate_models as calibrate_models
from platonic_ray.models.check import check_models as check_models
from platonic_ray.models.layers import Layer as Layer
from platonic_ray.models.likelihood import Likelihood as Likelihood
from platonic_ray.models.resolve import resolve as resolve

__all__ = [
    "CATALOG",
    "RANDOM_INIT_SEED",
    "CatalogEntry",
    "Description",
    "Features",
    "Layer",
    "Likelihood",
    "Model",
    "ModelCheck",
    "ModelSpec",
    "calibrate_models",
    "check_models",
    "check_rows",
    "describe",
    "load",
    "resolve",
    "rows_of",
]
