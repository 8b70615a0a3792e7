"""Every metric of neighbor tables against plain Python, and the laws that it must keep."""

import list_oracles as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.errors import StudyError
from platonic_ray.kernels import MICRO, exact_neighbors, tree_sum
from platonic_ray.metrics import (
    Metric,
    Neighbors,
    PairSums,
    get_metric,
    neighbor_sums,
    rows_digest,
    score,
    score_tables,
)

Table = list[list[int]]


def _mean(function, x: Table, y: Table) -> float:  # type: ignore[no-untyped-def]
    return float(np.mean([function(a, b) for a, b in zip(x, y, strict=True)]))


PLAIN = {
    "mutual_knn": lambda x, y, k: _mean(oracle.overlap, x, y) / k,
    "cycle_knn": lambda x, y, k: oracle.cycles(x, y) / len(x),
    "lcs_knn": lambda x, y, k: _mean(oracle.lcs, x, y) / k,
    "edit_distance_knn": lambda x, y, k: 1 - _mean(oracle.levenshtein, x, y) / k,
    "jaccard_knn": lambda x, y, k: _mean(oracle.jaccard, x, y),
    "rank_knn": lambda x, y, k: _mean(oracle.rank_agreement, x, y),
}
SYMMETRIC = [name for name in PLAIN if name != "cycle_knn"]


def drawn_tables(seed: int, layers: int, n: int, k: int) -> Neighbors:
    """Random tables of others, one column more than k, as a model's state has it."""
    drawn = np.random.default_rng(seed)
    ids = [[drawn.permutation(np.delete(np.arange(n), i))[: k + 1] for i in range(n)] for _ in range(layers)]
    table = torch.from_numpy(np.array(ids))
    return Neighbors(table, torch.zeros(table.shape, dtype=torch.float64))


def scores_of(metric: Metric, x: Neighbors, y: Neighbors) -> np.ndarray:
    return metric.score(PairSums(x.ids.shape[1], neighbor_sums(metric, x, y)))[0]


def relabelled(of: Neighbors, order: torch.Tensor) -> Neighbors:
    """The tables of the same samples in another order."""
    return Neighbors(order.argsort()[of.ids[:, order]], of.values[:, order])


@pytest.mark.parametrize("name", PLAIN)
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(3, 24), st.data())
def test_a_metric_is_that_of_plain_python_and_keeps_its_laws(name: str, seed: int, n: int, data) -> None:  # type: ignore[no-untyped-def]
    k = data.draw(st.integers(1, n - 2))
    metric = get_metric(name, k=k)
    x, y = drawn_tables(seed, 2, n, k), drawn_tables(seed + 1, 3, n, k)
    scores = scores_of(metric, x, y)
    for i, j in np.ndindex(2, 3):
        plain = PLAIN[name](x.ids[i, :, :k].tolist(), y.ids[j, :, :k].tolist(), k)
        assert scores[i, j] == pytest.approx(plain, rel=1e-11, abs=1e-14)
    assert (scores >= metric.bounds[0]).all()
    assert (scores <= metric.bounds[1]).all()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    np.testing.assert_allclose(
        scores_of(metric, relabelled(x, order), relabelled(y, order)), scores, rtol=1e-13, atol=1e-15
    )
    if metric.symmetric:
        assert np.array_equal(scores, scores_of(metric, y, x).T)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_a_representation_agrees_with_itself_entirely(name: str) -> None:
    for k in (1, 3, 10, 33):
        x = drawn_tables(k, 2, 40, k)
        assert scores_of(get_metric(name, k=k), x, x).diagonal().tolist() == [1, 1]


def test_cycles_depend_on_the_order_of_the_arguments() -> None:
    x, y = (
        Neighbors(torch.tensor([lists]), torch.zeros(1, 4, 2))
        for lists in ([[1, 2], [2, 0], [0, 3], [0, 2]], [[2, 3], [3, 2], [1, 0], [1, 0]])
    )
    metric = get_metric("cycle_knn", k=2)
    assert not metric.symmetric
    assert scores_of(metric, x, y).item() == 0.5
    assert scores_of(metric, y, x).item() == 1.0


@pytest.mark.parametrize("name", PLAIN)
def test_blocks_of_rows_change_no_byte(name: str) -> None:
    metric, n = get_metric(name, k=4), 5 * MICRO + 17
    drawn = torch.Generator().manual_seed(3)
    x, y = (Neighbors(torch.rand(2, n, 40, generator=drawn).argsort(2)[:, :, :5], None) for _ in range(2))  # type: ignore[arg-type]
    whole = neighbor_sums(metric, x, y)
    for blocks in (1, 2, 4):
        rows = range(0, n, blocks * MICRO)
        parts = [neighbor_sums(metric, x, y, slice(start, start + blocks * MICRO)) for start in rows]
        assert torch.equal(tree_sum(parts), whole)
    with pytest.raises(ValueError, match="multiple of 256"):
        neighbor_sums(metric, x, y, slice(100, 300))


@pytest.mark.parametrize("kind", ["duplicates", "one-hot"])
@pytest.mark.parametrize("name", PLAIN)
def test_ties_are_scored_from_the_neighbors_that_the_tie_rule_draws(name: str, kind: str) -> None:
    drawn = np.random.default_rng(4)
    rows = {"duplicates": np.repeat(drawn.normal(size=(8, 3)), 5, axis=0), "one-hot": np.eye(4)}[kind]
    x, y = (rows[drawn.integers(0, len(rows), 40)].astype("f4") for _ in range(2))
    lists = [
        exact_neighbors(part, 6, rows_digest(part)).ids[:, :6].tolist()
        for part in (torch.from_numpy(x), torch.from_numpy(y))
    ]
    got = score(x, y, name, k=6, recipe="none")
    assert got == pytest.approx(PLAIN[name](*lists, 6), rel=1e-11, abs=1e-14)


@pytest.mark.parametrize("name", ["mutual_knn", "lcs_knn", "jaccard_knn", "rank_knn"])
def test_chance_is_the_mean_over_broken_pairings(name: str) -> None:
    n, k = 14, 4
    metric = get_metric(name, k=k)
    x, y = drawn_tables(5, 1, n, k), drawn_tables(6, 1, n, k)
    drawn = np.random.default_rng(7)
    orders = [torch.from_numpy(drawn.permutation(n)) for _ in range(1500)]
    stack = Neighbors(torch.cat([relabelled(y, order).ids for order in orders]), y.values)
    null = scores_of(metric, x, stack)[0]
    assert metric.chance(n) == pytest.approx(null.mean(), abs=4 * null.std() / np.sqrt(len(null)))
    assert metric.chance(k + 1) == pytest.approx(1 if name in ("mutual_knn", "jaccard_knn") else 0.6, abs=0.2)


def test_longest_increasing_subsequences_of_random_permutations_have_the_known_means() -> None:
    from platonic_ray.metrics.knn import _mean_increasing

    # OEIS A003316: the sum over all permutations of 1 … 6.
    totals = [1, 3, 12, 58, 335, 2261]
    assert [_mean_increasing(m) for m in range(1, 7)] == pytest.approx(
        [total / np.prod(np.arange(1, m + 1)) for m, total in enumerate(totals, 1)]
    )
    assert get_metric("lcs_knn", k=21).chance(100) is None
    assert get_metric("edit_distance_knn").chance(100) is None
    assert get_metric("cycle_knn").chance(100) is None


def test_the_raw_lcs_is_k_times_the_normalized_one() -> None:
    drawn = np.random.default_rng(8)
    x = drawn.normal(size=(50, 4))
    y = x + drawn.normal(size=x.shape)
    raw = get_metric("lcs_knn", normalized=False, k=7)
    assert score(x, y, raw) == pytest.approx(7 * score(x, y, "lcs_knn", k=7))
    assert raw.bounds == (0, 7)
    assert raw.chance(50) == pytest.approx(7 * get_metric("lcs_knn", k=7).chance(50))  # type: ignore[operator]
    with pytest.raises(StudyError, match="normalized must be true or false"):
        get_metric("lcs_knn", normalized=1)


def test_a_metric_that_is_not_symmetric_is_scored_in_both_orders() -> None:
    drawn = np.random.default_rng(9)
    models = {"a": drawn.normal(size=(30, 2, 3)), "b": drawn.normal(size=(30, 5))}
    found = score_tables(models, metrics=["mutual_knn", "cycle_knn"], pairs=[("a", "a"), ("a", "b")])
    assert [(t.metric.name, t.x, t.y, t.scores.shape) for t in found] == [
        ("mutual_knn", "a", "a", (2, 2)),
        ("cycle_knn", "a", "a", (2, 2)),
        ("mutual_knn", "a", "b", (2, 1)),
        ("cycle_knn", "a", "b", (2, 1)),
        ("cycle_knn", "b", "a", (1, 2)),
    ]
    assert found[4].scores[0, 1] == score(models["b"], models["a"][:, 1], "cycle_knn")
    across = score_tables({"a": models["a"]}, {"b": models["b"]}, ["cycle_knn"])
    assert [(table.x, table.y) for table in across] == [("a", "b")]
