"""Metrics of the user's own, named by where they are imported from: `my_module:MY_METRIC`.

Such a metric is a `Metric` at the top level of a module that every process of a run can import, and its
functions are too. It crosses to another process as its import path and its options, and is imported there
again, from the same source or not at all.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from platonic_ray.digest import digest_items
from platonic_ray.errors import StudyError
from platonic_ray.metrics.base import Metric
from platonic_ray.metrics.registry import metrics


def is_import_path(name: str) -> bool:
    """Whether a metric's name says where to import it from."""
    return ":" in name


def import_metric(path: str) -> Metric:
    """Return the metric at an import path, marked with the path and a digest of its module's source.

    The digest becomes part of the metric's key, so that another source makes another result; of what
    the module itself imports it says nothing.

    :raises StudyError: if the module cannot be imported, has no such metric, has no source to be read,
        or its metric is incomplete or has the name of another.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise StudyError(
            f"The metric {path!r} cannot be imported: {type(error).__name__}: {error}. "
            "Every process of the run has to find the module: put its folder on PYTHONPATH."
        ) from error
    found = getattr(module, attribute, None)
    if not isinstance(found, Metric):
        there = sorted(name for name, value in vars(module).items() if isinstance(value, Metric))
        given = f"a {type(found).__name__}" if hasattr(module, attribute) else "not there"
        raise StudyError(
            f"{path!r} is {given}, not a platonic_ray.metrics.Metric. "
            f"Metrics of {module_name}: {', '.join(there) or 'none'}."
        )
    if found.name in {metric.name for metric in metrics()}:
        raise StudyError(
            f"{path!r} has the name of a metric of platonic_ray, {found.name!r}; give it another name."
        )
    if found.family == "neighbors" and (found.joint is None or found.k is None):
        raise StudyError(f"{path!r}: a metric of neighbors declares `joint` and the option k.")
    if found.family == "kernel" and found.kernel is None:
        raise StudyError(f"{path!r}: a metric of kernels declares `kernel_with`.")
    return replace(found, imported=(path, _source_digest(module)))


# Of the source that was imported: a file that changes later changes nothing of what this process runs.
_DIGESTS: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()


def _source_digest(module: ModuleType) -> str:
    if module not in _DIGESTS:
        try:
            source = Path(inspect.getsourcefile(module) or "").read_bytes()
        except (TypeError, OSError):
            raise StudyError(
                f"The source of {module.__name__} cannot be read; put its metric in a file."
            ) from None
        _DIGESTS[module] = digest_items([source])
    return _DIGESTS[module]


def restore(path: str, digest: str, options: Mapping[str, Any], compat: bool) -> Metric:
    """Import a metric again in another process.

    :raises StudyError: as `import_metric`, and if the source is another here.
    """
    metric = import_metric(path)
    if metric.imported != (path, digest):
        raise StudyError(
            f"The source of the metric {path!r} differs between the driver and a worker. "
            "Put it where every node sees the same file, and run again."
        )
    return (metric.as_reference() if compat else metric).with_options(options)
