"""platonic_ray: how alike do many models see many samples?

The public names are loaded when they are first used, so that `import platonic_ray.kernels` needs
torch and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platonic_ray.api import align as align
    from platonic_ray.api import extract as extract
    from platonic_ray.api import growth as growth
    from platonic_ray.api import interval as interval
    from platonic_ray.api import load as load
    from platonic_ray.api import neighbors as neighbors
    from platonic_ray.api import score as score
    from platonic_ray.api import submit as submit
    from platonic_ray.api import table as table
    from platonic_ray.engine.scorer import Scorer as Scorer
    from platonic_ray.errors import PlatonicRayError as PlatonicRayError
    from platonic_ray.results import Result as Result
    from platonic_ray.study import Study as Study
    from platonic_ray.training import AlignmentCallback as AlignmentCallback
    from platonic_ray.training_lightning import LightningAlignment as LightningAlignment

__version__ = "0.1.0"

_HOME = {
    "AlignmentCallback": "platonic_ray.training",
    "LightningAlignment": "platonic_ray.training_lightning",
    "align": "platonic_ray.api",
    "extract": "platonic_ray.api",
    "growth": "platonic_ray.api",
    "interval": "platonic_ray.api",
    "load": "platonic_ray.api",
    "neighbors": "platonic_ray.api",
    "score": "platonic_ray.api",
    "submit": "platonic_ray.api",
    "table": "platonic_ray.api",
    "PlatonicRayError": "platonic_ray.errors",
    "Result": "platonic_ray.results",
    "Scorer": "platonic_ray.engine.scorer",
    "Study": "platonic_ray.study",
}
__all__ = [*sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'platonic_ray' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
