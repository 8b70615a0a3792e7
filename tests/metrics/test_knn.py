import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import exact_neighbors, prepare
from platonic_ray.metrics import (
    get_metric,
    nearest,
    rows_digest,
    score,
    score_tables,
    stack_neighbors,
)
from platonic_ray.metrics.knn import neighbor_sums
from platonic_ray.metrics.states import PairSums


def dense_mutual_knn(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """By cosine similarity in float64; for data without ties."""

    def sets(features: np.ndarray) -> list[set[int]]:
        rows = features / np.linalg.norm(features, axis=1, keepdims=True)
        kernel = rows @ rows.T
        np.fill_diagonal(kernel, -np.inf)
        return [set(line[:k].tolist()) for line in np.argsort(-kernel, axis=1)]

    return float(np.mean([len(a & b) / k for a, b in zip(sets(x), sets(y), strict=True)]))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(3, 60), st.integers(3, 40), st.data())
def test_mutual_knn_is_the_mean_share_of_common_neighbors(seed: int, n: int, width: int, data) -> None:  # type: ignore[no-untyped-def]
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(n, width))
    y = x + drawn.normal(size=(n, width))
    k = data.draw(st.integers(1, n - 1))
    assert score(x, y, k=k) == pytest.approx(dense_mutual_knn(x.astype("f4"), y.astype("f4"), k), abs=1e-12)
    assert score(x, y, k=k) == score(y, x, k=k)
    assert score(x, x, k=k) == 1
    assert score(x, y, k=n - 1) == 1


def one_hot_scores(ties: str) -> np.ndarray:
    """mutual_knn of independent one-hot representations, 10 neighbors of 120 samples, 12 pairs."""
    drawn, scores = np.random.default_rng(0), []
    for _ in range(12):
        tables = []
        for _ in range(2):
            rows = torch.from_numpy(np.eye(6, dtype="f4")[drawn.integers(0, 6, 120)])
            tables.append(stack_neighbors([exact_neighbors(rows, 10, rows_digest(rows), ties=ties)]))  # type: ignore[arg-type]
        sums = PairSums(120, neighbor_sums(get_metric("mutual_knn"), *tables))
        scores.append(get_metric("mutual_knn").score(sums)[0][0, 0])
    return np.array(scores)


def test_independent_one_hot_data_scores_at_chance_under_the_seeded_hash() -> None:
    scores, chance = one_hot_scores("hash"), 10 / 119
    assert abs(scores.mean() - chance) < 4 * scores.std(ddof=1) / np.sqrt(len(scores))
    assert abs(scores.mean() - chance) < 0.015


def test_independent_one_hot_data_scores_above_chance_when_the_lowest_id_wins() -> None:
    assert one_hot_scores("lowest").min() > 1.3 * 10 / 119


def test_zero_rows_are_kept_and_flagged_in_the_status() -> None:
    x = np.random.default_rng(0).normal(size=(20, 5))
    y = x.copy()
    y[3] = 0
    (table,) = score_tables({"x": x, "y": y}, metrics=[get_metric("mutual_knn", k=3)])
    assert table.status == [["zero rows: 0 in x, 1 in y"]]
    assert 0.5 < table.scores[0, 0] < 1


@pytest.mark.parametrize("similarity", ["cosine", "inner", "euclidean"])
def test_nearest_agrees_with_a_dense_sort(similarity: str) -> None:
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("f4")
    ((ids, values),) = nearest(x, 5, similarity)
    rows = prepare(torch.from_numpy(x), "l2" if similarity == "cosine" else "none").double().numpy()
    table = rows @ rows.T if similarity != "euclidean" else np.linalg.norm(rows[:, None] - rows[None], axis=2)
    order = -table if similarity != "euclidean" else table.copy()
    np.fill_diagonal(order, np.inf)
    expected = np.argsort(order, axis=1)[:, :5]
    assert ids.dtype == torch.int64
    assert values.dtype == torch.float32
    assert np.array_equal(ids.numpy(), expected)
    np.testing.assert_allclose(values, np.take_along_axis(table, expected, 1), rtol=1e-6)
