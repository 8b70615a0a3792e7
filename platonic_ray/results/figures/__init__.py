"""Pictures of a result, as matplotlib figures that a paper can print: a module a family.

`table` has the models × models heat map, `maps` are layers against layers and metrics against metrics,
`scatter` has points, `curves` growth and the sweep of k, `panels` examples of neighbors; `style` is what
they share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from platonic_ray.errors import StudyError
from platonic_ray.results.figures.curves import growth, k_sweep
from platonic_ray.results.figures.maps import layer_map, metric_map
from platonic_ray.results.figures.panels import neighbor_panels
from platonic_ray.results.figures.scatter import SIZE, calibrated, capability, plane
from platonic_ray.results.figures.style import save_figure
from platonic_ray.results.figures.table import heatmap
from platonic_ray.results.order import Order
from platonic_ray.results.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "heatmap": "models × models, the best score of every two",
    "layers": "layers × layers of a pair",
    "growth": "scores against the number of samples",
    "k-sweep": "scores against k",
    "capability": "alignment against a capability, with fit and rank correlation",
    "size": "alignment against the number of parameters",
    "calibrated": "calibrated against raw scores",
    "metrics": "how alike metrics order pairs, Spearman’s ρ",
    "plane": "models on a plane, near where they are alike (classical scaling)",
    "neighbors": "what two models find near to some samples",
}
_OF_A_PAIR = ("layers", "neighbors")


def draw(
    result: Result,
    kind: str,
    metric: str | None = None,
    *,
    pair: tuple[str, str] | None = None,
    order: Order = "study",
    of: str | None = None,
    against: str | None = None,
) -> Figure:
    """Draw one kind of picture; `KINDS` says which there are.

    :param pair: two models, for "layers" and "neighbors" (by default the most alike), "growth" and "k-sweep".
    :param order: of the models of "heatmap".
    :param of: the capability of "capability"; `against` the model that alignment is with.
    :raises StudyError: for a kind that is not one, or where the result lacks what it shows.
    """
    if kind not in KINDS:
        raise StudyError(f"There is no figure {kind!r}; there are: {', '.join(KINDS)}.")
    if kind in _OF_A_PAIR:
        chosen = pair or most_alike(result, metric)
        return (layer_map if kind == "layers" else neighbor_panels)(result, metric, pair=chosen)
    if kind in ("growth", "k-sweep"):
        return (growth if kind == "growth" else k_sweep)(result, metric, pair=pair)
    if kind in ("capability", "size"):
        return capability(result, metric, of=SIZE if kind == "size" else of, against=against)
    if kind == "heatmap":
        return heatmap(result, metric, order=order)
    return {"calibrated": calibrated, "metrics": metric_map, "plane": plane}[kind](result, metric)


def most_alike(result: Result, metric: str | None = None) -> tuple[str, str]:
    """Return the most alike of trained models that read different things, else of different models.

    :raises StudyError: if no pair of different models has a score.
    """
    from platonic_ray.results.groups import with_groups

    pairs = with_groups(result, result.metric(metric))
    pairs = pairs.filter(pairs["score"].is_not_nan())
    if pairs.is_empty():
        raise StudyError("No pair of different models has a score: there is nothing to draw.")
    descending = result.direction(metric) != "distance"
    best = pairs.sort("floor", "across", "score", descending=[False, True, descending], maintain_order=True)
    return str(best["model_x"][0]), str(best["model_y"][0])


__all__ = [
    "KINDS",
    "calibrated",
    "capability",
    "draw",
    "growth",
    "heatmap",
    "k_sweep",
    "layer_map",
    "metric_map",
    "most_alike",
    "neighbor_panels",
    "plane",
    "save_figure",
]
