"""The null of metrics of whole representations: the states of the layers asked for, reordered.

No state is made again, but the step of a pair is: with K permutations a null takes K times what the
scores take. So there is one only where it is asked for by the metric's name. Where the layers are
those at which another metric is best there is none: they were chosen on the samples as they are paired.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from platonic_ray.metrics import Metric, PairSums, winners_of


def has_rows_null(metric: Metric) -> bool:
    """Whether a metric's null is made of reordered states."""
    return metric.permute is not None and winners_of(metric) is None


def rows_null_scores(metric: Metric, sums: PairSums, perms: Tensor) -> npt.NDArray[np.float64]:
    """Return the best score over the layer pairs asked for under every permutation, `[K] float64`.

    :param sums: of the pair, with `states`; those of y are permuted.
    :param perms: `[K, n] int64`.
    """
    states, permute = sums.states, metric.permute
    assert states is not None
    assert permute is not None
    found = []
    for perm in perms:
        moved = {layer: permute(state, perm) for layer, state in states.y.items()}
        scores, _ = metric.score(replace(sums, states=replace(states, y=moved)))
        found.append(metric.best(scores)[0])
    return np.array(found)
