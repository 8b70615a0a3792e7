"""The metrics that there are, and how one is found by its name or its entry in a study."""

from __future__ import annotations

import difflib
from typing import Any

from platonic_ray.errors import StudyError
from platonic_ray.metrics import cca, cka, cknna, distances, imbalance, knn, regression, rsa, shapes
from platonic_ray.metrics.base import COMPAT, Metric
from platonic_ray.study import MetricEntry


def get_metric(entry: MetricEntry | Metric | str, *, compat: str | None = None, **options: Any) -> Metric:
    """Return a metric by its name or by its entry in a study, with its options set.

    :param entry: a name that `metrics()` has, or the import path of one's own, "my_module:MY_METRIC".
    :param compat: "platonic-rep" for the arithmetic of the reference's code, with its defaults.
    :raises StudyError: if there is no such metric or option, or a value is not allowed.

    >>> get_metric("mutual_knn", k=5).label
    'mutual_knn(k=5)'
    """
    if compat not in (None, COMPAT):
        raise StudyError(f'compat must be "{COMPAT}" or left out (given: {compat!r}).')
    if isinstance(entry, Metric):
        return (entry if compat is None else entry.as_reference()).with_options(options)
    name, given = (entry, {}) if isinstance(entry, str) else (entry.name, entry.options)
    found = _find(name)
    return (found if compat is None else found.as_reference()).with_options({**given, **options})


def _find(name: str) -> Metric:
    from platonic_ray.metrics.own import import_metric, is_import_path

    if is_import_path(name):
        return import_metric(name)
    known = {metric.name: metric for metric in metrics()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise StudyError(
            f"There is no metric {name!r}.{guess} Known: {', '.join(sorted(known))}. "
            "One of your own is named by its import path, module:NAME."
        )
    return known[name]


def metrics() -> tuple[Metric, ...]:
    """Return all metrics, with their default options."""
    kernels = (cka.CKA, cka.UNBIASED_CKA, *distances.METRICS, rsa.RSA)
    rows = (*shapes.METRICS, *cca.METRICS, *regression.METRICS, *imbalance.METRICS)
    return (*knn.METRICS, cknna.CKNNA, cknna.CKNNA_PAPER, *kernels, *rows)
