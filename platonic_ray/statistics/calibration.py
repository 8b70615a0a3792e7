"""What a score means against its null: p-value, threshold, calibrated score; and false discoveries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Calibration:
    """A score set against the scores of permuted samples; all NaN where the score is undefined.

    `p` is the p-value, `threshold` the score τ that is to be passed at level α, `calibrated` the
    score on a scale from 0 (not above the threshold) to 1 (as good as can be).
    """

    p: float
    threshold: float
    calibrated: float


def calibrate(
    observed: float,
    null: npt.ArrayLike,
    alpha: float = 0.05,
    limit: float | None = 1.0,
    direction: Literal["similarity", "distance"] = "similarity",
) -> Calibration:
    """Set a score against K scores under permuted samples (Westfall & Young 1993; Gröger et al. 2026).

    With T observed and T_1 … T_K permuted: p = (1 + #{b : T_b ≥ T}) / (K + 1); τ is the
    ⌈(1 − α)(K + 1)⌉-th smallest of {T, T_1, …, T_K}; calibrated = max((T − τ) / (T_max − τ), 0), NaN
    where τ = T_max. It is positive exactly where p ≤ α. For a distance the order is turned round.

    T is one of the K + 1, and equal scores count against it: if T and the T_b are exchangeable,
    P(p ≤ α) ≤ α holds exactly, whatever the ties.

    :param null: `[K]`, each the same statistic as `observed` (the best over the same layer pairs).
    :param limit: the best score there can be, T_max. None or infinite where there is none:
        `calibrated` is then the excess T − τ (for a distance τ − T), which may be negative.
    :raises ValueError: if alpha is not between 0 and 1, or a permuted score is NaN.

    >>> calibrate(0.6, [0.1, 0.2, 0.2], alpha=0.25)
    Calibration(p=0.25, threshold=0.2, calibrated=0.49999999999999994)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1 (given: {alpha})")
    scores = np.asarray(null, dtype=np.float64).ravel()
    if math.isnan(observed):
        return Calibration(math.nan, math.nan, math.nan)
    if np.isnan(scores).any():
        raise ValueError("a permuted score is NaN")
    sign = -1.0 if direction == "distance" else 1.0
    score, scores = sign * observed, sign * scores
    p = (1 + int((scores >= score).sum())) / (len(scores) + 1)
    rank = math.ceil((1 - Fraction(repr(float(alpha)))) * (len(scores) + 1))
    threshold = float(np.sort(np.append(scores, score))[rank - 1])
    excess = score - threshold
    if limit is None or math.isinf(limit):
        calibrated = excess
    elif threshold == sign * limit:
        calibrated = math.nan
    else:
        calibrated = max(excess / (sign * limit - threshold), 0.0)
    return Calibration(p, sign * threshold, calibrated)


def benjamini_hochberg(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the q-values of p-values `[m]` (Benjamini & Hochberg 1995): q ≤ α bounds the false discovery rate.

    q of the r-th smallest p is the least of p_s m / s over s ≥ r. NaN stays NaN and is not counted.

    >>> benjamini_hochberg([0.01, 0.5, float("nan"), 0.03]).tolist()
    [0.03, 0.5, nan, 0.045]
    """
    given = np.asarray(p, dtype=np.float64)
    q = np.full(given.shape, np.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    steps = given[order] * len(order) / np.arange(1, len(order) + 1)
    q[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return q
