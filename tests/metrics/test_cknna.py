"""Both forms of cknna against the formulas written out over dense kernels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.api import interval
from platonic_ray.kernels import MICRO, as_rows, exact_neighbors, kernel_row_sums, tree_sum
from platonic_ray.metrics import (
    Neighbors,
    get_metric,
    model_state,
    neighbor_sums,
    rows_digest,
    score,
    score_tables,
)
from platonic_ray.metrics.unary import Wanted
from platonic_ray.statistics import NeighborSide, Null, null_scores

from .dense_hsic import hsic_unbiased

BOTH = ["cknna", "cknna_paper"]


def neighbor_mask(x: np.ndarray, k: int) -> np.ndarray:
    rows = torch.from_numpy(x)
    ids = exact_neighbors(rows, k, rows_digest(rows)).ids[:, :k].numpy()
    mask = np.zeros((len(x), len(x)))
    np.put_along_axis(mask, ids, 1.0, axis=1)
    return mask


def dense_cknna(x: np.ndarray, y: np.ndarray, k: int, paper: bool) -> float:
    of_x, of_y = neighbor_mask(x, k), neighbor_mask(y, k)
    K, L = (rows.astype("f8") @ rows.astype("f8").T for rows in (x, y))
    if paper:
        K, L = K - K.mean(axis=1, keepdims=True), L - L.mean(axis=1, keepdims=True)
        cross, own_x, own_y = (of_x * of_y * K * L).sum(), (of_x * K * K).sum(), (of_y * L * L).sum()
    else:
        both = of_x * of_y
        cross = hsic_unbiased(both * K, both * L)
        own_x, own_y = hsic_unbiased(of_x * K, of_x * K), hsic_unbiased(of_y * L, of_y * L)
    return float(cross / np.sqrt(own_x) / np.sqrt(own_y)) if min(own_x, own_y) > 0 else float("nan")


def pair(seed: int, n: int, width: int, mean: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(n, width)) + mean
    y = x[:, : max(1, width // 2)] + drawn.normal(size=(n, max(1, width // 2)))
    return x.astype("f4"), y.astype("f4")


@pytest.mark.parametrize("name", BOTH)
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(4, 40), st.integers(1, 8), st.sampled_from([0.0, 3.0]), st.data())
def test_cknna_is_that_of_the_dense_formula(name, seed, n, width, mean, data):  # type: ignore[no-untyped-def]
    k = data.draw(st.integers(1, n - 1))
    x, y = pair(seed, n, width, mean)
    expected = dense_cknna(x, y, k, name == "cknna_paper")
    got = score(x, y, name, k=k, recipe="none")
    # A score near 0 is a difference of larger terms: there the bound is absolute.
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-10, nan_ok=True)


@pytest.mark.parametrize("name", BOTH)
def test_every_layer_pair_of_two_stacks_has_its_own_score(name: str) -> None:
    n, k = 2 * MICRO + 70, 6
    drawn = np.random.default_rng(1)
    base = drawn.normal(size=(n, 9))
    x, y = (
        [(base[:, i:] + drawn.normal(size=(n, 9 - i))).astype("f4") for i in range(layers)]
        for layers in (3, 2)
    )
    (table,) = score_tables({"x": x}, {"y": y}, [get_metric(name, k=k)], recipe="none")
    for i, j in np.ndindex(3, 2):
        expected = dense_cknna(x[i], y[j], k, name == "cknna_paper")
        assert table.scores[i, j] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("kind", ["duplicates", "one-hot", "hubs"])
def test_ties_and_hubs_are_scored_from_the_neighbors_that_the_tie_rule_draws(name: str, kind: str) -> None:
    drawn = np.random.default_rng(4)
    if kind == "hubs":  # long rows are everybody's neighbors
        x, y = (drawn.normal(size=(60, 4)) + 1 for _ in range(2))
        x[:3], y[:2] = 30 * x[:3], 20 * y[:2]
    else:
        rows = {"duplicates": np.repeat(drawn.normal(size=(8, 3)), 5, axis=0), "one-hot": np.eye(4)}[kind]
        x, y = (rows[drawn.integers(0, len(rows), 40)] for _ in range(2))
    x, y = x.astype("f4"), y.astype("f4")
    expected = dense_cknna(x, y, 6, name == "cknna_paper")
    assert score(x, y, name, k=6, recipe="none") == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", BOTH)
def test_blocks_of_rows_change_no_byte(name: str) -> None:
    metric, n = get_metric(name, k=4), 5 * MICRO + 17
    drawn = torch.Generator().manual_seed(3)
    x, y = (
        Neighbors(
            torch.rand(2, n, 40, generator=drawn).argsort(2)[:, :, :5],
            torch.rand(2, n, 5, generator=drawn, dtype=torch.float64),
            torch.rand(2, n, generator=drawn, dtype=torch.float64),
        )
        for _ in range(2)
    )
    whole = neighbor_sums(metric, x, y)
    for blocks in (1, 2, 4):
        rows = range(0, n, blocks * MICRO)
        parts = [neighbor_sums(metric, x, y, slice(start, start + blocks * MICRO)) for start in rows]
        assert torch.equal(tree_sum(parts), whole)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(4, 30), st.integers(1, 6))
def test_the_form_of_the_paper_is_symmetric_and_bounded_by_one(seed: int, n: int, width: int) -> None:
    x, y = pair(seed, n, width)
    k = 1 + seed % (n - 1)
    forth, back = (score(a, b, "cknna_paper", k=k) for a, b in ((x, y), (y, x)))
    assert forth == pytest.approx(back, rel=1e-12, abs=1e-13, nan_ok=True)
    assert np.isnan(forth) or abs(forth) <= 1
    itself = score(x, x, "cknna_paper", k=k)
    assert np.isnan(itself) or itself == pytest.approx(1, abs=1e-12)


def test_the_form_of_the_code_depends_on_the_order_and_is_not_bounded_by_one() -> None:
    metric = get_metric("cknna", k=3)
    assert (metric.bounds, metric.symmetric) == ((-np.inf, np.inf), False)
    x, y = pair(5, 40, 4)
    assert score(x, x, metric) == pytest.approx(1, abs=1e-12)
    forth, back = (score(a, b, "cknna", k=6, recipe="none") for a, b in ((x, y), (y, x)))
    assert abs(forth - back) > 1e-3
    highest = max(score(*pair(seed, 6, 3), "cknna", k=4) for seed in range(60))
    assert highest > 1.05


@pytest.mark.parametrize("name", BOTH)
def test_a_self_term_that_is_not_positive_is_nan_with_a_reason(name: str) -> None:
    drawn = np.random.default_rng(0)
    flat = np.zeros((30, 5)) if name == "cknna" else np.full((30, 5), 0.1)
    good = drawn.normal(size=(30, 5))
    (table,) = score_tables({"x": [flat, good]}, {"y": good}, [get_metric(name, k=3)], recipe="none")
    assert np.isnan(table.scores[0, 0])
    assert str(table.status[0][0]).startswith("x: self term not positive")
    assert table.scores[1, 0] == pytest.approx(1)
    assert table.status[1][0] is None


def test_row_sums_of_a_kernel_are_those_of_the_dense_one_however_it_is_cut() -> None:
    n = 3 * MICRO + 40
    rows = [torch.randn(n, width, generator=torch.Generator().manual_seed(width)) + 1 for width in (3, 200)]
    whole = kernel_row_sums(rows, rows)
    dense = torch.stack([(layer.double() @ layer.double().T).sum(1) for layer in rows])
    torch.testing.assert_close(whole, dense, rtol=1e-12, atol=1e-9)
    for size in (MICRO, 2 * MICRO):
        cut = [slice(start, start + size) for start in range(0, n, size)]
        parts = [
            tree_sum(
                kernel_row_sums([layer[mine] for layer in rows], [layer[other] for layer in rows])
                for other in cut
            )
            for mine in cut
        ]
        assert torch.equal(torch.cat(parts, 1), whole)
    state = model_state(rows, "none", Wanted.of([get_metric("cknna_paper", k=3)])).neighbors
    assert torch.equal(state.row_sums, whole)
    assert model_state(rows, "none", Wanted.of([get_metric("cknna", k=3)])).neighbors.row_sums is None


@pytest.mark.parametrize("name", BOTH)
def test_the_null_is_the_best_score_of_permuted_features(name: str) -> None:
    drawn = np.random.default_rng(6)
    x, y = ([drawn.normal(size=(40, 5)) for _ in range(layers)] for layers in (2, 3))
    metric = get_metric(name, k=5)
    null = Null({metric.label: 6}, 0.1, seed=0)
    sides = [
        NeighborSide(model_state([as_rows(r) for r in rows], "l2", Wanted.of([metric])).neighbors)
        for rows in (x, y)
    ]
    expected = [
        score_tables({"x": x}, {"y": [rows[order] for rows in y]}, [metric])[0].best()[0]
        for order in null.permutations(40, 6).numpy()
    ]
    np.testing.assert_allclose(null_scores(metric, *sides, null), expected, rtol=1e-9)


@pytest.mark.parametrize("name", BOTH)
def test_an_interval_of_the_population_holds_the_score(name: str) -> None:
    x, y = pair(0, 60, 6)
    made = interval(x, y, name, k=5, splits=4)
    assert made.low < score(x, y, name, k=5) < made.high
