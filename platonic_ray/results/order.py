"""In which order models stand beside each other: the study's, by family, or by how alike they are."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from platonic_ray.errors import StudyError
from platonic_ray.results.result import Result

Order = Literal["study", "family", "clustering"]


def order_of(result: Result, metric: str | None, order: Order) -> list[str]:
    """Return all models of a metric in an order.

    "family" puts models that read the same view beside each other, floors last among them;
    "clustering" those that are alike (`cluster_order`).

    :raises StudyError: for an order that is not one.
    """
    if order == "clustering":
        return cluster_order(result, metric)
    layout = result.layout(metric)
    names = list(dict.fromkeys((*layout.rows, *layout.columns)))
    if order == "study":
        return names
    if order != "family":
        raise StudyError(f"order must be 'study', 'family' or 'clustering' (given: {order!r}).")
    study = result.provenance.get("study") or {}
    views = {entry["name"]: entry.get("view", "") for entry in study.get("models") or []}
    known = [*dict.fromkeys(views.get(name, "") for name in names)]
    floors = set(result.provenance.get("floors") or ())
    return sorted(names, key=lambda name: (known.index(views.get(name, "")), name in floors))


def cluster_order(result: Result, metric: str | None = None) -> list[str]:
    """Return the models of a metric so that those that are alike stand beside each other.

    Average linkage of the distances of `distances_of`, leaves ordered so that neighbors are near
    (Bar-Joseph et al. 2001). A cross table keeps its order.
    """
    layout = result.layout(metric)
    if not layout.square or len(layout.rows) < 3:
        return list(dict.fromkeys((*layout.rows, *layout.columns)))
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    apart = distances_of(result, metric)
    tree = linkage(squareform(apart, checks=False), "average", optimal_ordering=len(apart) <= 200)
    return [layout.rows[at] for at in leaves_list(tree)]


def distances_of(result: Result, metric: str | None = None) -> npt.NDArray[np.float64]:
    """Return how far apart models are, `[models, models]`, in the order of `matrix(metric).rows`.

    The best score of any pair, minus the score (of a distance the score minus the lowest); both orders
    averaged. What is undefined is as far apart as the farthest pair.

    :raises StudyError: for a cross table: not every pair of its models was scored.
    """
    layout = result.layout(metric)
    if not layout.square:
        raise StudyError("Distances between models need a square table: every model with every other.")
    values = np.array(result.matrix(metric).values)
    values = (values + values.T) / 2
    np.fill_diagonal(values, np.nan)
    if result.direction(metric) != "distance":
        values = -values
    finite = values[np.isfinite(values)]
    apart = np.where(np.isfinite(values), values, finite.max(initial=0.0)) - finite.min(initial=0.0)
    np.fill_diagonal(apart, 0.0)
    return np.asarray(apart)
