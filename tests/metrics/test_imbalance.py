"""Information imbalance and the ranks it counts, against sorted dense similarities, with and without ties."""

import numpy as np
import pytest
import torch

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.kernels import exact_neighbors, neighbor_ranks, prepare, tie_keys
from platonic_ray.kernels import ranks as ranks_module
from platonic_ray.metrics import get_metric, make_state, score_tables

DIGESTS = {"x": "1" * 16, "y": "2" * 16}


def dense_orders(rows, digest, similarity):
    """For every row, the others, nearest first: by float64 similarity, then by tie key."""
    rows = rows.astype(np.float64)
    cost = -rows @ rows.T if similarity == "inner" else ((rows[:, None] - rows[None]) ** 2).sum(-1)
    keys = tie_keys(digest, torch.arange(len(rows))).numpy()
    return [[j for j in np.lexsort((keys, line)) if j != i] for i, line in enumerate(cost)]


def dense(x, y, similarity="inner"):
    of_x, of_y = dense_orders(x, DIGESTS["x"], similarity), dense_orders(y, DIGESTS["y"], similarity)
    ranks = [of_y[i].index(of_x[i][0]) + 1 for i in range(len(x))]
    return 2 / len(x) * np.mean(ranks)


def scored(x, y, **options):
    metric = get_metric("information_imbalance", **options)
    digests = {name: [digest] for name, digest in DIGESTS.items()}
    (table,) = score_tables({"x": x}, {"y": y}, [metric], recipe="none", digests=digests)
    return table.scores[0, 0]


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
def test_it_is_the_mean_rank_among_sorted_similarities(similarity):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 20)) + rng.normal(size=(90, 20))).astype(np.float32)
    assert scored(x, y, similarity=similarity) == pytest.approx(dense(x, y, similarity), rel=1e-12)
    assert scored(x, y, similarity=similarity) != scored(y, x, similarity=similarity)


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@pytest.mark.parametrize("kind", ["one-hot", "duplicates", "small integers", "sparse", "width 1"])
def test_ties_go_by_the_rule_of_all_neighbors(kind, similarity, monkeypatch):
    monkeypatch.setattr(ranks_module, "_CELLS", 300)  # several chunks
    monkeypatch.setattr(ranks_module, "_PAIR_BYTES", 40_000)
    rng = np.random.default_rng(1)
    make = {
        "one-hot": lambda: np.eye(7, dtype=np.float32)[rng.integers(0, 7, size=60)],
        "duplicates": lambda: rng.integers(-9, 9, size=(12, 4)).astype(np.float32)[
            rng.integers(0, 12, size=60)
        ],
        "small integers": lambda: rng.integers(-2, 3, size=(60, 3)).astype(np.float32),
        "sparse": lambda: ((rng.random(size=(60, 30)) < 0.05) * rng.integers(1, 4, size=(60, 30))).astype(
            np.float32
        ),
        "width 1": lambda: rng.integers(-20, 20, size=(60, 1)).astype(np.float32),
    }[kind]
    x, y = make(), make()
    assert scored(x, y, similarity=similarity) == pytest.approx(dense(x, y, similarity), rel=1e-12)


def test_ranks_invert_the_table_of_all_neighbors():
    rng = np.random.default_rng(2)
    rows = prepare(torch.from_numpy(rng.normal(size=(70, 9)).astype(np.float32)))
    rows[40:] = rows[:30]
    digest = "ab" * 8
    table = exact_neighbors(rows, 69, digest).ids[:, :69]
    keys = tie_keys(digest, torch.arange(70))
    for rank in (1, 2, 3, 35, 69):
        assert neighbor_ranks(rows, keys, table[:, rank - 1]).tolist() == [rank] * 70


def test_a_representation_of_itself_has_the_least_imbalance_and_noise_about_one():
    rng = np.random.default_rng(3)
    x, noise = rng.normal(size=(2, 200, 6))
    assert pr.score(x, x, "information_imbalance") == pytest.approx(2 / 200)
    assert pr.score(x, noise, "information_imbalance") == pytest.approx(1, abs=0.15)
    assert get_metric("information_imbalance").chance(200) == 1


def test_a_projection_is_foretold_by_the_whole_and_not_the_other_way_round():
    x = np.random.default_rng(4).normal(size=(150, 3))
    part = x[:, :1]
    whole = {"similarity": "euclidean", "recipe": "none"}
    assert pr.score(x, part, "information_imbalance", **whole) < pr.score(
        part, x, "information_imbalance", **whole
    )


def test_a_permuted_state_is_that_of_permuted_rows_with_their_own_keys():
    rng = np.random.default_rng(5)
    x, y = (torch.from_numpy(rng.integers(0, 3, size=(50, 4)).astype(np.float32)) for _ in range(2))
    order = torch.from_numpy(rng.permutation(50))
    metric = get_metric("information_imbalance")
    state_x, state_y = make_state(metric, x, DIGESTS["x"]), make_state(metric, y, DIGESTS["y"])
    both = metric.pair(metric.permute(state_x, order), metric.permute(state_y, order), metric.options)
    assert both == metric.pair(state_x, state_y, metric.options)
    moved = metric.permute(state_y, order)
    assert torch.equal(moved["rows"], y[order])
    nearest = order[moved["nearest"]]
    assert torch.equal(nearest, state_y["nearest"][order])


def test_a_similarity_there_is_not_is_refused():
    with pytest.raises(StudyError, match="similarity"):
        get_metric("information_imbalance", similarity="cosine")
