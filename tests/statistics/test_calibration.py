"""p-values, thresholds, calibrated scores and q-values against their definitions, written plainly."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from platonic_ray.statistics import benjamini_hochberg, calibrate

# Few distinct values, so that ties are the rule.
scores = st.integers(0, 8).map(lambda score: score / 8)
nulls = st.lists(scores, max_size=60)
alphas = st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.3, 0.5])


@given(observed=scores, null=nulls, alpha=alphas)
def test_calibration_is_its_definition(observed, null, alpha):
    made = calibrate(observed, null, alpha)
    at_least_as_good = sum(score >= observed for score in null)
    assert made.p == (1 + at_least_as_good) / (len(null) + 1)
    everything = sorted([observed, *null])
    hundredths = round(100 * (1 - alpha)) * len(everything)
    threshold = everything[-(-hundredths // 100) - 1]
    assert made.threshold == threshold
    if threshold == 1:
        assert math.isnan(made.calibrated)
    else:
        assert made.calibrated == pytest.approx(max((observed - threshold) / (1 - threshold), 0))


@given(observed=scores, null=nulls, alpha=alphas)
def test_a_calibrated_score_is_positive_exactly_where_p_is_at_most_alpha(observed, null, alpha):
    made = calibrate(observed, null, alpha)
    assert (made.calibrated > 0) == (made.p <= alpha + 1e-12)


@given(observed=scores, null=nulls, alpha=alphas)
def test_a_distance_is_a_similarity_turned_round(observed, null, alpha):
    similarity = calibrate(observed, null, alpha)
    distance = calibrate(1 - observed, [1 - score for score in null], alpha, 0.0, "distance")
    assert distance.p == similarity.p
    assert distance.threshold == 1 - similarity.threshold
    assert distance.calibrated == pytest.approx(similarity.calibrated, nan_ok=True)


@given(observed=scores, null=nulls)
def test_without_a_best_score_the_excess_is_returned(observed, null):
    for limit in (None, math.inf):
        made = calibrate(observed, null, limit=limit)
        assert made.calibrated == observed - made.threshold
    made = calibrate(observed, null, limit=None, direction="distance")
    assert made.calibrated == made.threshold - observed


def test_the_rank_of_the_threshold_is_not_rounded_in_binary():
    # (1 − 0.7) · 10 is 3.0000000000000004 in float64.
    assert calibrate(0.0, [score / 100 for score in range(1, 10)], alpha=0.7).threshold == 0.02


def test_what_is_undefined_stays_undefined():
    made = calibrate(math.nan, [0.1, 0.2])
    assert all(math.isnan(value) for value in (made.p, made.threshold, made.calibrated))
    with pytest.raises(ValueError, match="NaN"):
        calibrate(0.5, [0.1, math.nan])
    with pytest.raises(ValueError, match="alpha"):
        calibrate(0.5, [0.1], alpha=1.0)


@given(p=st.lists(st.one_of(st.just(math.nan), st.integers(1, 40).map(lambda p: p / 40)), max_size=30))
def test_q_is_that_of_scipy_and_nan_is_left_out(p):
    q = benjamini_hochberg(p)
    known = ~np.isnan(p)
    assert np.isnan(q[~known]).all()
    if known.any():
        np.testing.assert_allclose(q[known], false_discovery_control(np.asarray(p)[known]), rtol=1e-12)
