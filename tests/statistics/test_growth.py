"""Curves of growth: each point against a plain score, errors against what they claim to be."""

import numpy as np
import polars as pl
import pytest
import torch

import platonic_ray as pr
from platonic_ray.errors import DataError, StudyError
from platonic_ray.results import GROWTH_SCHEMA
from platonic_ray.statistics import permutations


def pair(n, width=12, noise=1.0, seed=0):
    """Two noisy views of the same samples."""
    drawn = np.random.default_rng(seed)
    shared = drawn.normal(size=(n, width))
    return [(shared + noise * drawn.normal(size=shared.shape)).astype(np.float32) for _ in range(2)]


def chosen(n, size, seed):
    """The samples of a size, in their own order."""
    return np.sort(permutations(n, 1, seed)[0][:size].numpy())


@pytest.mark.parametrize(
    ("metric", "k"), [("mutual_knn", 5), ("cycle_knn", 5), ("cka", 10), ("unbiased_cka", 10)]
)
def test_every_point_of_all_against_all_is_the_score_of_its_subset(metric, k):
    x, y = pair(150)
    curve = pr.growth(x, y, metric, k, sizes=[30, 75, 150], seed=3)
    assert curve["size"].to_list() == [30, 75, 150]
    for size, score in curve.select("size", "score").iter_rows():
        rows = chosen(150, size, 3)
        assert score == pr.score(x[rows], y[rows], metric, k)
    assert curve["score"][2] == pr.score(x, y, metric, k)
    assert curve["target"].unique().to_list() == ["population"]
    assert (curve["standard_error"] > 0).all()


def test_smaller_subsets_are_parts_of_larger_ones():
    assert {*chosen(90, 20, 1)} < {*chosen(90, 50, 1)}
    assert {*chosen(90, 20, 1)} != {*chosen(90, 20, 2)}


def dense_lists(rows, queries, gallery, k):
    """The k nearest of the gallery by cosine in float64, for each query."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    nearest = np.argsort(-unit[queries] @ unit[gallery].T, axis=1)[:, :k]
    return gallery[nearest]


@pytest.mark.parametrize("k_share", [None, 0.05])
def test_queries_against_a_growing_gallery_are_a_direct_computation_at_every_size(k_share):
    x, y = pair(300)
    sizes = [40, 41, 100, 220]
    curve = pr.growth(x, y, k=6, sizes=sizes, protocol="queries", queries=80, seed=2, k_share=k_share)
    order = permutations(300, 1, 2)[0].numpy()
    for row in curve.iter_rows(named=True):
        gallery = order[80 : 80 + row["size"]]
        k = 6 if k_share is None else max(1, round(k_share * row["size"]))
        lists = [dense_lists(rows, order[:80], gallery, k) for rows in (x, y)]
        shares = np.array([len({*a} & {*b}) / k for a, b in zip(*lists, strict=True)])
        assert row["k"] == k
        assert row["score"] == pytest.approx(shares.mean(), abs=1e-12)
        assert row["standard_error"] == pytest.approx(shares.std(ddof=1) / np.sqrt(80), abs=1e-12)
        assert row["chance"] == pytest.approx(k / row["size"])
    assert curve["queries"].to_list() == [80] * 4


def test_all_neighbor_metrics_that_are_means_have_queries_and_others_say_why_not():
    x, y = pair(120)
    for metric in ("mutual_knn", "lcs_knn", "edit_distance_knn", "jaccard_knn", "rank_knn"):
        curve = pr.growth(x, x, metric, 4, sizes=[30, 60], protocol="queries")
        assert curve["score"].to_list() == pytest.approx([1, 1])
    for metric in ("cycle_knn", "cka"):
        with pytest.raises(StudyError, match='protocol="all"'):
            pr.growth(x, y, metric, 4, protocol="queries")


def test_mutual_knn_falls_as_the_gallery_grows_and_stays_where_k_grows_with_it():
    x, y = pair(1000, width=30)
    for protocol in ("all", "queries"):
        fixed = pr.growth(x, y, k=8, sizes=[60, 120, 240, 480], protocol=protocol)
        assert fixed["score"].is_sorted(descending=True)
        assert fixed["score"][0] > 1.7 * fixed["score"][3]
        grown = pr.growth(x, y, k_share=0.08, sizes=[60, 120, 240, 480], protocol=protocol)
        assert grown["k"].to_list() == [5, 10, 19, 38]
        assert abs(grown["score"][0] - grown["score"][3]) < 0.25 * grown["score"][0]


def test_the_error_for_queries_covers_the_mean_of_all_possible_queries():
    # The gallery is given: 100 rows; 4,000 others stand for the population of queries.
    x, y = pair(4100, width=6, seed=5)
    order = np.arange(4100)
    lists = [dense_lists(rows, order[100:], order[:100], 5) for rows in (x, y)]
    truth = np.mean([len({*a} & {*b}) / 5 for a, b in zip(*lists, strict=True)])
    drawn = np.random.default_rng(0)
    covered = 0
    for trial in range(120):
        picked = drawn.choice(4000, 60, replace=False) + 100
        place = permutations(160, 1, trial)[0].numpy()
        rows = np.empty(160, dtype=int)
        rows[place[:60]], rows[place[60:]] = picked, order[:100]
        curve = pr.growth(x[rows], y[rows], k=5, sizes=[100], protocol="queries", queries=60, seed=trial)
        covered += abs(curve["score"][0] - truth) <= 2.0 * curve["standard_error"][0]
    # 95 % of 120, less three deviations of such a count.
    assert covered >= 114 - 3 * np.sqrt(120 * 0.05 * 0.95)


@pytest.mark.parametrize("metric", ["mutual_knn", "unbiased_cka"])
def test_the_error_for_the_population_is_the_spread_of_samples_drawn_anew(metric):
    scores, errors = [], []
    for trial in range(60):
        x, y = pair(80, width=6, seed=100 + trial)
        curve = pr.growth(x, y, metric, 5, sizes=[80], splits=5, seed=trial)
        scores.append(curve["score"][0])
        errors.append(curve["standard_error"][0] ** 2)
    # The spread of 60 scores is known to 1/√120 = 9 %; the error is of halves, which scale but nearly.
    assert 0.65 < np.sqrt(np.mean(errors)) / np.std(scores, ddof=1) < 1.6


def test_of_stacks_the_pair_that_is_best_on_all_samples_is_followed_or_the_one_given():
    x, y = pair(120)
    noise = np.random.default_rng(9).normal(size=x.shape)
    curve = pr.growth([noise, x], np.stack([noise[::-1], y], axis=1), k=5, sizes=[60, 120])
    assert curve.select("layer_x", "layer_y", "layers").unique().rows() == [(1, 1, "best on all samples")]
    assert curve["score"].to_list() == pr.growth(x, y, k=5, sizes=[60, 120])["score"].to_list()
    given = pr.growth([noise, x], y, k=5, sizes=[60], layers=(0, 0))
    assert given["layers"].to_list() == ["given"]
    assert given["score"].to_list() == pr.growth(noise, y, k=5, sizes=[60])["score"].to_list()
    with pytest.raises(StudyError, match="x has layers 0 to 1"):
        pr.growth([noise, x], y, k=5, layers=(2, 0))


def test_the_clamp_of_the_published_recipe_is_that_of_all_samples():
    x, y = pair(100)
    bound = np.sort(np.abs(x).ravel())[int(0.95 * x.size)], np.sort(np.abs(y).ravel())[int(0.95 * y.size)]
    curve = pr.growth(x, y, k=5, sizes=[40, 100], recipe="huh2024")
    clipped = [np.clip(rows, -b, b) for rows, b in zip((x, y), bound, strict=True)]
    assert curve["score"].to_list() == pr.growth(*clipped, k=5, sizes=[40, 100])["score"].to_list()


def test_what_is_undefined_or_has_no_halves_says_so():
    x, y = pair(64)
    flat = pr.growth(x, np.ones_like(y), "cka", sizes=[20, 64])
    assert flat["score"].is_nan().all()
    assert flat["standard_error"].is_nan().all()
    assert all("constant" in status for status in flat["status"])
    small = pr.growth(x, y, k=10, sizes=[18, 64])
    assert small["standard_error"].is_null().to_list() == [True, False]
    assert small.schema == GROWTH_SCHEMA
    assert isinstance(small, pl.DataFrame)
    assert pr.growth(torch.tensor(x), torch.tensor(y), k=10, sizes=[18, 64]).equals(small)


def test_sizes_are_halvings_where_none_are_given():
    x, y = pair(320)
    assert pr.growth(x, y, k=5)["size"].to_list() == [20, 40, 80, 160, 320]
    assert pr.growth(x, y, k=30)["size"].to_list() == [80, 160, 320]
    assert pr.growth(x, y, k=5, protocol="queries")["size"].to_list() == [20, 40, 80, 160]


WRONG = {
    "k ≥ size": ({"sizes": [5, 50]}, "k ≤ 4"),
    "size beyond n": ({"sizes": [50, 101]}, "end at 100"),
    "size beyond the gallery": ({"sizes": [90], "protocol": "queries"}, "less 50 queries"),
    "sizes out of order": ({"sizes": [50, 20]}, "ascend"),
    "sizes that are no whole numbers": ({"sizes": [20.5]}, "whole numbers"),
    "sizes that are no list": ({"sizes": 20}, "list of whole numbers"),
    "queries that are no whole number": ({"queries": 20.5, "protocol": "queries"}, "whole number"),
    "splits that are no whole number": ({"splits": 2.5}, "whole number"),
    "one layer for two sides": ({"layers": (0,)}, "a layer of x and one of y"),
    "a layer that is none": ({"layers": (0, 1)}, "y has layers 0 to 0"),
    "a layer that is no number": ({"layers": ("last", 0)}, "whole numbers"),
    "one group": ({"groups": ["a"] * 100}, "one group"),
    "no sizes": ({"sizes": []}, "ascend"),
    "k_share": ({"k_share": 1.5}, "k_share"),
    "k_share without k": ({"k_share": 0.1, "metric": "cka"}, "has no k"),
    "queries of all": ({"queries": 10}, "belong to"),
    "one query": ({"queries": 1, "protocol": "queries"}, "at least 2"),
    "protocol": ({"protocol": "some"}, "protocol"),
    "splits": ({"splits": 1}, "splits"),
    "recipe": ({"recipe": "l3"}, "recipe"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_is_refused_by_name(options, message):
    x, y = pair(100)
    with pytest.raises(StudyError, match=message):
        pr.growth(x, y, **{"k": 5, **options})


def test_other_samples_on_both_sides_are_refused():
    x, y = pair(100)
    with pytest.raises(DataError, match="100, 99"):
        pr.growth(x, y[:99])


@pytest.mark.parametrize("name", ["cka", "cycle_knn"])
def test_in_the_references_arithmetic_a_curve_ends_at_its_score(name):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 4))
    y = x + rng.normal(size=x.shape)
    curve = pr.growth(x, y, name, k=4, sizes=[30, 60], splits=2, compat="platonic-rep")
    assert curve["score"][-1] == pytest.approx(pr.score(x, y, name, k=4, compat="platonic-rep"), rel=1e-9)


def test_groups_change_standard_errors_and_no_score():
    rng = np.random.default_rng(5)
    x, y = (np.repeat(side, 4, axis=0) + 0.01 * rng.normal(size=(160, side.shape[1])) for side in pair(40))
    groups = np.repeat([f"image {image}" for image in range(40)], 4)
    alone, grouped = (
        pr.growth(x, y, k=6, sizes=[80, 160], splits=10, groups=labels) for labels in (None, groups)
    )
    assert grouped["score"].to_list() == alone["score"].to_list()
    assert (grouped["standard_error"] != alone["standard_error"]).all()
    # On all samples the error is that of halves that keep groups together; 40 groups of 4 halve evenly.
    halves = np.reshape(pr.interval(x, y, k=6, splits=10, groups=groups).halves, (10, 2))
    assert grouped["standard_error"][1] == pytest.approx(np.sqrt(np.mean(np.diff(halves) ** 2)) / 2)


def test_a_standard_error_over_queries_is_that_of_the_sums_of_groups():
    x, y = pair(90)
    labels = np.arange(90) % 7
    curve = pr.growth(x, y, k=5, sizes=[50], protocol="queries", queries=40, groups=labels)
    order = permutations(90, 1, 0)[0].numpy()
    queries, gallery = order[:40], order[40:]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y)]
    lists = [np.argsort(-(side[queries] @ side[gallery].T), axis=1)[:, :5] for side in unit]
    own = np.array([len({*a} & {*b}) / 5 for a, b in zip(*lists, strict=True)])
    sums = [float((own - own.mean())[labels[queries] == label].sum()) for label in range(7)]
    assert curve["score"][0] == pytest.approx(own.mean())
    assert curve["standard_error"][0] == pytest.approx(np.sqrt(np.square(sums).sum() * 7 / 6) / 40)


def test_a_subset_too_small_for_its_halves_has_no_standard_error():
    x, y = pair(60)
    curve = pr.growth(x, y, "svcca", sizes=[14, 60], components=8, layers=(0, 0))
    assert curve["standard_error"].is_null().to_list() == [True, False]
