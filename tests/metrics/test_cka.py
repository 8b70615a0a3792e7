import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import Anchor, blocks_of, root_level, super_tile
from platonic_ray.metrics import PairSums, get_metric, kernel_rows, score, score_tables

from .dense_hsic import cka, exact_cka

BOTH = ["cka", "unbiased_cka"]


def pair(seed: int, n: int, width: int, mean: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(n, width)) + mean * drawn.normal(size=width)
    y = x[:, : max(1, width // 2)] + drawn.normal(size=(n, max(1, width // 2)))
    return x.astype("f4"), y.astype("f4")


@pytest.mark.parametrize("metric", BOTH)
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(5, 11), st.integers(2, 6), st.sampled_from([0.0, 1.0, 10.0, 100.0]))
def test_cka_is_that_of_exact_arithmetic(metric: str, seed: int, n: int, width: int, mean: float) -> None:
    x, y = pair(seed, n, width, mean)
    expected = exact_cka(x, y, metric == "unbiased_cka")
    # A tiny score is itself a difference of larger terms: there the bound is absolute.
    found = score(x, y, metric, recipe="none", precision="float64")
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    rounded = score(x, y, metric, recipe="none")
    assert rounded == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("metric", BOTH)
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(20, 60), st.integers(2, 30))
def test_cka_is_that_of_the_dense_formulas(metric: str, seed: int, n: int, width: int) -> None:
    x, y = pair(seed, n, width, 1.0)
    expected = cka(x, y, metric == "unbiased_cka")
    found = score(x, y, metric, recipe="none", precision="float64")
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    rounded = score(x, y, metric, recipe="none")
    assert rounded == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("metric", BOTH)
def test_cka_over_several_micro_tiles_is_that_of_the_dense_formulas(metric: str) -> None:
    for n in (256, 257, 700):
        x, y = pair(n, n, 12, 2.0)
        expected = cka(x, y, metric != "cka")
        assert score(x, y, metric, recipe="none", precision="float64") == pytest.approx(expected, rel=1e-9)
        assert score(x, y, metric, recipe="none") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", [*BOTH, "distance_correlation", "rsa"])
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.one_of(st.integers(4, 40), st.integers(250, 300)), st.integers(1, 300))
def test_float32_products_move_a_score_by_no_more_than_they_may_at_any_number_of_samples(
    metric: str, seed: int, n: int, width: int
) -> None:
    x, y = pair(seed, n, width, 3.0)
    exact, rounded = (score(x, y, get_metric(metric, precision=to)) for to in ("float64", "float32"))
    # The root of a small squared distance has half its digits: a score near 0 has them in absolute terms.
    absolute = 1e-5 if metric == "distance_correlation" else 1e-7
    assert rounded == pytest.approx(exact, rel=1e-5, abs=absolute, nan_ok=True)
    if n <= 256:
        assert rounded == pytest.approx(exact, rel=1e-9, abs=1e-10, nan_ok=True)


@pytest.mark.parametrize("metric", BOTH)
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([1e-20, 1e-3, 1.0, 1e15]))
def test_cka_is_invariant_to_rotation_scaling_and_translation(metric: str, seed: int, scale: float) -> None:
    x, y = pair(seed, 40, 8)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
    turned = scale * (x.astype("f8") @ rotation + 3)
    assert score(turned, y, metric, recipe="none") == pytest.approx(
        score(x, y, metric, recipe="none"), abs=1e-6
    )


@pytest.mark.parametrize("metric", BOTH)
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(5, 50), st.integers(1, 20))
def test_cka_is_symmetric_within_its_bounds_and_one_with_itself(
    metric: str, seed: int, n: int, width: int
) -> None:
    x, y = pair(seed, n, width)
    for precision, close in (("float64", 1e-12), ("float32", 1e-5)):
        one = get_metric(metric, precision=precision)
        forth, back = score(x, y, one, recipe="none"), score(y, x, one, recipe="none")
        assert forth == pytest.approx(back, rel=close, abs=close)
        assert -1 <= forth <= 1
        assert score(x, x, one, recipe="none") == pytest.approx(1, abs=close)


def test_unbiased_cka_averages_to_chance_over_broken_pairings() -> None:
    x, y = pair(0, 30, 10)
    shuffles = [np.random.default_rng(i).permutation(30) for i in range(150)]
    null = np.array([score(x, y[order], "unbiased_cka", recipe="none") for order in shuffles])
    assert abs(null.mean()) < 4 * null.std() / np.sqrt(len(null))


@pytest.mark.parametrize("recipe", ["l2", "none"])
@pytest.mark.parametrize("n", [4, 5, 300])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e-30, 1e30])
def test_a_constant_representation_is_nan_with_a_reason_and_stops_no_table(
    recipe: str, n: int, value: float
) -> None:
    drawn = np.random.default_rng(0)
    flat = np.full((n, 7), value) * drawn.normal(size=7)
    tables = score_tables(
        {"m": [flat, drawn.normal(size=(n, 7))]}, {"o": drawn.normal(size=(n, 3))}, BOTH, recipe=recipe
    )
    for table in tables:
        assert np.isnan(table.scores[0, 0])
        assert "x: constant representation" in str(table.status[0][0])
        assert np.isfinite(table.scores[1, 0])
        assert table.status[1][0] is None
        assert table.best()[1:] == (1, 0)


def test_a_constant_representation_is_told_even_where_the_sums_have_no_origin() -> None:
    n = 600
    drawn = torch.Generator().manual_seed(0)
    stacks = {
        "x": [torch.randn(1, 50, generator=drawn).repeat(n, 1)],
        "y": [torch.randn(n, 5, generator=drawn)],
    }
    about = {name: [Anchor(torch.zeros(stack[0].shape[1]))] for name, stack in stacks.items()}
    level = root_level(blocks_of(n))
    for name in BOTH:
        for precision in ("float32", "float64"):
            metric = get_metric(name, precision=precision)
            sums = super_tile(
                stacks, stacks, [("x", "y")], level, 0, 0, n, metric.kernel, about, unary=["x", "y"]
            )
            rows = kernel_rows(sums)
            scores, status = metric.score(PairSums(n, None, sums.inner["x", "y"], rows["x"], rows["y"]))
            assert np.isnan(scores).all()
            assert status == [["x: constant representation"]]


def test_an_unbiased_self_term_of_zero_is_nan_with_a_reason() -> None:
    # One row apart from the rest: removing the diagonal leaves a kernel that centers to zero.
    x = np.zeros((6, 2), "f4")
    x[0, 0] = 1
    (biased, unbiased) = score_tables({"x": x}, {"y": pair(0, 6, 3)[0]}, BOTH, recipe="none")
    assert np.isfinite(biased.scores[0, 0])
    assert np.isnan(unbiased.scores[0, 0])
    assert unbiased.status[0][0].startswith("x: self term not positive")


def test_strong_anisotropy_costs_no_digits() -> None:
    x, y = pair(1, 300, 20)
    near = np.float32(2.0**10)  # exact: the features are moved, not rounded
    grid_x, grid_y = np.round(x * 2**10) / 2**10, np.round(y * 2**10) / 2**10
    for metric in BOTH:
        for precision, close in (("float64", 1e-10), ("float32", 1e-6)):
            one = get_metric(metric, precision=precision)
            expected = score(grid_x, grid_y, one, recipe="none")
            found = score(grid_x + near, grid_y - near, one, recipe="none")
            assert found == pytest.approx(expected, rel=close)
