"""A metric of a user's own, a distance, in a module that every process can import."""

import numpy as np

from platonic_ray.kernels import overlap_counts
from platonic_ray.metrics import Metric
from platonic_ray.metrics.base import Scored, no_status
from platonic_ray.metrics.states import NeighborRows, PairSums


def joint(x: NeighborRows, y: NeighborRows):  # type: ignore[no-untyped-def]
    return overlap_counts(x.ids, y.ids)


def scorer(sums: PairSums, options) -> Scored:  # type: ignore[no-untyped-def]
    assert sums.joint is not None
    scores = 1 - sums.joint.double().numpy() / (sums.n * options["k"])
    scores[np.isclose(scores, 1)] = np.nan
    return scores, no_status(scores.shape)


UNSHARED = Metric(
    name="unshared",
    family="neighbors",
    needs=("joint",),
    bounds=(0.0, 1.0),
    min_samples=2,
    description="mean share of neighbors that two representations do not share; NaN where they share none",
    cost="as mutual_knn",
    scorer=scorer,
    joint=joint,
    direction="distance",
    options={"k": 10},
)

CKA = Metric(
    name="cka",
    family="kernel",
    needs=("inner",),
    bounds=(0.0, 1.0),
    min_samples=2,
    description="has a name that is taken",
    cost="none",
    scorer=scorer,
)

NO_METRIC = 3
