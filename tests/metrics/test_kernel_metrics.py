"""CKA with RBF kernels, distance correlation and RSA against plain float64 oracles, and both precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.errors import StudyError
from platonic_ray.kernels import Kernel, median_distances, span
from platonic_ray.metrics import get_metric, score, score_tables

from .dense_dissimilarities import distance_correlation, distances, rbf_cka, rsa
from .dense_hsic import cka

ORACLES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "cka rbf sigma": ("cka", {"kernel": "rbf", "sigma": 2.0}, lambda x, y: rbf_cka(x, y, False, 2.0)),
    "cka rbf median": ("cka", {"kernel": "rbf"}, lambda x, y: rbf_cka(x, y, False)),
    "unbiased_cka rbf median": (
        "unbiased_cka",
        {"kernel": "rbf", "median": 0.6},
        lambda x, y: rbf_cka(x, y, True, median=0.6),
    ),
    "distance_correlation": ("distance_correlation", {}, distance_correlation),
    "rsa correlation": ("rsa", {}, lambda x, y: rsa(x, y, "correlation")),
    "rsa cosine": ("rsa", {"dissimilarity": "cosine"}, lambda x, y: rsa(x, y, "cosine")),
    "rsa euclidean": ("rsa", {"dissimilarity": "euclidean"}, lambda x, y: rsa(x, y, "euclidean")),
}
LINEAR = {
    "cka": ("cka", {}, cka),
    "unbiased_cka": ("unbiased_cka", {}, lambda x, y: cka(x, y, True)),
}
EVERY = pytest.mark.parametrize("case", list(ORACLES))


def scored(case: str, x: Any, y: Any, precision: str = "float64", recipe: str = "none") -> float:
    name, options, _ = (ORACLES | LINEAR)[case]
    return score(x, y, get_metric(name, **options, precision=precision), recipe=recipe)


def pair(seed: int, n: int, width: int, mean: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(n, width)) + mean * drawn.normal(size=width)
    y = x[:, : max(3, width // 2)] + drawn.normal(size=(n, max(3, width // 2)))
    return x.astype("f4"), y.astype("f4")


def anisotropic(seed: int, n: int, width: int) -> np.ndarray:
    """Unit rows with a mean cosine above 0.95, a few large dimensions, as language models have them."""
    drawn = np.random.default_rng(seed)
    low = drawn.normal(size=(n, 12)) @ drawn.normal(size=(12, width))
    x = 0.1 * low / np.sqrt(12) + 0.1 * drawn.normal(size=(n, width)) + drawn.normal(size=width)
    x[:, :3] *= 8
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f4")


@EVERY
@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.integers(5, 60), st.integers(3, 30), st.sampled_from([0.0, 1.0, 30.0]))
def test_scores_are_those_of_the_dense_formulas(
    case: str, seed: int, n: int, width: int, mean: float
) -> None:
    x, y = pair(seed, n, width, mean)
    expected = ORACLES[case][2](x, y)
    assert scored(case, x, y) == pytest.approx(expected, rel=1e-9, abs=1e-11)
    # Of a handful of samples the self terms can be small differences: there the bound is absolute.
    assert scored(case, x, y, "float32") == pytest.approx(expected, rel=1e-5, abs=2e-5)


@EVERY
def test_scores_over_several_micro_tiles_are_those_of_the_dense_formulas(case: str) -> None:
    x, y = pair(3, 530, 7)
    expected = ORACLES[case][2](x, y)
    assert scored(case, x, y) == pytest.approx(expected, rel=1e-9)
    assert scored(case, x, y, "float32") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", list(ORACLES | LINEAR))
def test_float32_products_cost_less_than_1e_5_of_a_score_on_anisotropic_rows(case: str) -> None:
    shared = anisotropic(0, 700, 96)
    y = shared[:, ::-1][:, :64] + 0.02 * anisotropic(1, 700, 64)
    cosines = shared @ shared.T
    assert cosines[np.triu_indices(700, 1)].mean() > 0.95
    exact = scored(case, shared, y, recipe="l2")
    assert abs(scored(case, shared, y, "float32", "l2") / exact - 1) < 1e-5
    unrelated = anisotropic(2, 700, 64)
    near_zero = scored(case, shared, unrelated, recipe="l2")
    assert abs(scored(case, shared, unrelated, "float32", "l2") - near_zero) < 1e-5 * max(
        abs(near_zero), 0.01
    )


@pytest.mark.parametrize("case", list(ORACLES | LINEAR))
def test_duplicates_and_tight_clusters_cost_no_digits(case: str) -> None:
    drawn = np.random.default_rng(5)
    centers = 10 * drawn.normal(size=(9, 20))
    x = (centers[drawn.integers(0, 9, 300)] + 1e-4 * drawn.normal(size=(300, 20))).astype("f4")
    x[200:] = x[:100]
    y = pair(1, 300, 8)[0] + x[:, :8]
    expected = (ORACLES | LINEAR)[case][2](x, y)
    assert scored(case, x, y) == pytest.approx(expected, rel=1e-9)
    assert scored(case, x, y, "float32") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", list(ORACLES | LINEAR))
def test_permuting_the_samples_of_both_sides_changes_nothing(case: str) -> None:
    x, y = pair(2, 300, 9)
    order = np.random.default_rng(0).permutation(300)
    assert scored(case, x[order], y[order]) == pytest.approx(scored(case, x, y), rel=1e-10)


@pytest.mark.parametrize("case", ["distance_correlation", "rsa cosine", "rsa euclidean", "cka rbf median"])
@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1e12])
def test_rotation_and_scaling_change_nothing(case: str, scale: float) -> None:
    x, y = pair(4, 80, 8)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    turned = scale * (x.astype("f8") @ rotation)
    for precision in ("float32", "float64"):
        assert scored(case, turned, y, precision) == pytest.approx(scored(case, x, y, precision), abs=1e-6)


@EVERY
def test_a_representation_agrees_with_itself_entirely(case: str) -> None:
    x, _ = pair(6, 50, 6)
    assert scored(case, x, x) == pytest.approx(1, abs=1e-12)
    assert scored(case, x, x, "float32") == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("case", [name for name in ORACLES if name not in ("rsa correlation", "rsa cosine")])
def test_width_one_is_a_representation_too(case: str) -> None:
    x, y = pair(7, 40, 6)
    assert scored(case, x[:, :1], y) == pytest.approx(ORACLES[case][2](x[:, :1], y), rel=1e-9)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@EVERY
def test_a_constant_representation_is_nan_with_a_reason_and_stops_no_table(case: str, precision: str) -> None:
    name, options, _ = ORACLES[case]
    metric = get_metric(name, **options, precision=precision)
    flat = np.tile(np.random.default_rng(0).normal(size=7), (300, 1))
    fine = pair(0, 300, 7)
    (table,) = score_tables({"m": [flat, fine[0]]}, {"o": fine[1]}, [metric], recipe="none")
    assert np.isnan(table.scores[0, 0])
    reason = {
        "cka rbf sigma": "constant representation",
        "cka rbf median": "median distance is zero",
        "unbiased_cka rbf median": "median distance is zero",
        "distance_correlation": "constant representation",
    }.get(case, "all dissimilarities are equal")
    assert table.status[0][0] == f"x: {reason}"
    assert np.isfinite(table.scores[1, 0])
    assert table.status[1][0] is None


def test_a_median_distance_of_zero_is_nan_with_a_reason_where_a_given_width_is_none() -> None:
    x, y = pair(8, 60, 5)
    x[10:] = x[10]  # most pairs are the same sample twice
    (median, given) = score_tables(
        {"x": x}, {"y": y}, [get_metric("cka", kernel="rbf"), get_metric("cka", kernel="rbf", sigma=1.0)]
    )
    assert np.isnan(median.scores).all()
    assert median.status == [["x: median distance is zero"]]
    assert np.isfinite(given.scores).all()


def test_rsa_counts_rows_without_direction_and_gives_them_dissimilarity_one() -> None:
    x, y = pair(9, 40, 6)
    x[3], x[17] = 2.0, -1.0  # constant: no correlation with anything
    (table,) = score_tables({"x": x}, {"y": y}, [get_metric("rsa", precision="float64")], recipe="none")
    assert table.status == [["rows without direction: 2 in x, 0 in y"]]
    wide = x - x.mean(1, keepdims=True, dtype="f8")
    norms = np.linalg.norm(wide, axis=1)
    unit = wide / np.where(norms > 1e-9, norms, np.inf)[:, None]
    above = np.triu_indices(40, 1)
    other = y - y.mean(1, keepdims=True, dtype="f8")
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    expected = np.corrcoef((1 - unit @ unit.T)[above], (1 - other @ other.T)[above])[0, 1]
    assert table.scores[0, 0] == pytest.approx(expected, rel=1e-9)


def test_rsa_is_that_of_scipys_distances() -> None:
    distance, stats = pytest.importorskip("scipy.spatial.distance"), pytest.importorskip("scipy.stats")
    x, y = pair(10, 90, 12)
    for kind in ("correlation", "cosine", "euclidean"):
        expected = stats.pearsonr(distance.pdist(x, kind), distance.pdist(y, kind)).statistic
        metric = get_metric("rsa", dissimilarity=kind, precision="float64")
        assert score(x, y, metric, recipe="none") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", ["distance_correlation", "rsa euclidean", "unbiased_cka rbf median"])
def test_scores_average_to_their_stated_chance_over_broken_pairings(case: str) -> None:
    x, y = pair(0, 30, 10)
    assert get_metric(ORACLES[case][0]).chance(30) == 0
    shuffles = [np.random.default_rng(i).permutation(30) for i in range(100)]
    null = np.array([scored(case, x, y[order], "float32") for order in shuffles])
    assert abs(null.mean()) < 4 * null.std() / np.sqrt(len(null))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(2, 70), st.integers(0, 3), st.booleans())
def test_the_median_distance_is_that_of_all_pairs_whatever_the_blocks(
    seed: int, n: int, level: int, repeated: bool
) -> None:
    drawn = np.random.default_rng(seed)
    x = [drawn.normal(size=(n, width)).astype("f4") + 3 for width in (1, 6)]
    if repeated:
        x = [layer[drawn.integers(0, max(1, n // 3), n)] for layer in x]
    stack = [torch.from_numpy(layer) for layer in x]
    found = median_distances(
        lambda block: [layer[span(level, block, n, 8)] for layer in stack],
        n,
        Kernel("euclidean", precision="float64"),
        level,
        micro=8,
    )
    above = np.triu_indices(n, 1)
    expected = [np.median(distances(layer)[above].astype("f4").astype("f8")) for layer in x]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_the_number_of_threads_changes_no_byte_of_a_median_or_a_score() -> None:
    x, y = pair(11, 600, 20)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append([scored(case, x, y, "float32") for case in ORACLES | LINEAR])
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kernel": "poly"}, "one of 'linear', 'rbf'"),
        ({"precision": "float16"}, "one of 'float32', 'float64'"),
        ({"sigma": 1.0}, 'belongs to kernel = "rbf"'),
        ({"kernel": "rbf", "sigma": 0}, "sigma must be a positive number"),
        ({"kernel": "rbf", "median": "one"}, "median must be a positive number"),
        ({"kernel": "rbf", "sigma": 1.0, "median": 1.0}, "not both"),
    ],
)
def test_options_that_no_kernel_has_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        get_metric("cka", **options)


def test_metrics_of_one_kernel_share_it_and_those_of_another_precision_do_not() -> None:
    assert get_metric("cka").kernel == get_metric("unbiased_cka").kernel == Kernel("linear")
    assert get_metric("cka", precision="float64").kernel != get_metric("cka").kernel
    assert get_metric("distance_correlation").kernel == get_metric("rsa", dissimilarity="euclidean").kernel
    assert get_metric("mutual_knn").kernel is None
