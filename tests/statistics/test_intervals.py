"""Confidence intervals: their formulas against plain recomputation, and how often they cover."""

import math

import numpy as np
import pytest
import torch
from list_oracles import jaccard, lcs, levenshtein, overlap, rank_agreement
from scipy import stats

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.kernels import prepare
from platonic_ray.metrics import Neighbors, get_metric
from platonic_ray.statistics import Intervals, Layer
from platonic_ray.statistics.halves import cuts, half_scores, interval_of_layers
from platonic_ray.statistics.intervals import bounded_interval, queries_interval, sample_scores

MEANS = ("mutual_knn", "lcs_knn", "edit_distance_knn", "jaccard_knn", "rank_knn")


def score_of_sample(name, a, b):
    """A sample's own score, of two lists of k ids, as the definitions have it."""
    return {
        "mutual_knn": lambda: overlap(a, b) / len(a),
        "lcs_knn": lambda: lcs(a, b) / len(a),
        "edit_distance_knn": lambda: 1 - levenshtein(a, b) / len(a),
        "jaccard_knn": lambda: jaccard(a, b),
        "rank_knn": lambda: rank_agreement(a, b),
    }[name]()


def world(rng, d=12, r=4):
    """Two linear maps of a shared Gaussian factor; drawing from it gives paired samples."""
    return rng.normal(size=(r, d)) / 2, rng.normal(size=(r, d + 3)) / 2


def draw(rng, maps, n, noise=0.5):
    shared = rng.normal(size=(n, maps[0].shape[0]))
    return tuple((shared @ a + noise * rng.normal(size=(n, a.shape[1]))).astype(np.float32) for a in maps)


def unit(x):
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


def orders(x):
    """All other rows of every row, nearest first, by plain dense cosines."""
    cosines = unit(x) @ unit(x).T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1)[:, :-1]


def tables(x, k):
    return Neighbors(torch.from_numpy(orders(x)[:, : k + 1].copy())[None], torch.zeros(0))


def layer(x):
    return Layer(prepare(torch.from_numpy(x), "l2"), "0" * 16)


@pytest.mark.parametrize("name", MEANS)
def test_the_mean_over_samples_is_the_score(name):
    x, y = draw(np.random.default_rng(0), world(np.random.default_rng(1)), 60)
    metric = get_metric(name, k=6)
    numbers = sample_scores(metric, tables(x, 6), tables(y, 6))
    plain = [
        score_of_sample(name, a[:6].tolist(), b[:6].tolist())
        for a, b in zip(orders(x), orders(y), strict=True)
    ]
    np.testing.assert_allclose(numbers, plain, rtol=1e-12)
    assert numbers.mean() == pytest.approx(pr.score(x, y, name, k=6), rel=1e-9)


@pytest.mark.parametrize("name", MEANS)
def test_the_variance_over_queries_counts_what_mutual_neighbors_do_to_each_other(name):
    n, k = 40, 4
    x, y = draw(np.random.default_rng(2), world(np.random.default_rng(3)), n)
    lists = orders(x), orders(y)

    def own(i, without=None):
        a, b = ([j for j in side[i].tolist() if j != without][:k] for side in lists)
        return score_of_sample(name, a, b)

    c = np.array([own(i) for i in range(n)])
    influence = np.array([[c[i] - own(i, j) if i != j else 0.0 for j in range(n)] for i in range(n)])
    products = np.sum(influence * influence.T)
    assert products > 0
    variance = c.var(ddof=1) / n + products / n**2
    metric = get_metric(name, k=k)
    made = queries_interval(metric, tables(x, k), tables(y, k))
    expected = bounded_interval(c.mean(), math.sqrt(variance), n - 1, n, metric, 0.95)
    np.testing.assert_allclose((made.low, made.high), expected, rtol=1e-9)


def test_halves_share_no_sample_and_do_not_depend_on_how_many_are_drawn():
    few, many = cuts(11, 3, seed=5), cuts(11, 6, seed=5)
    assert few.sum(dim=1).tolist() == [5, 5, 5]
    assert torch.equal(few, many[:3])
    assert len({tuple(half.tolist()) for half in many}) > 1


@pytest.mark.parametrize("name", [*MEANS, "cycle_knn"])
@pytest.mark.parametrize("clustered", [False, True])
def test_a_halfs_score_is_that_of_its_samples_alone(name, clustered):
    rng = np.random.default_rng(4)
    x, y = draw(rng, world(rng), 70)
    if clustered:  # most of a row's long list lies in its own cluster, of which a cut may keep little
        x[:40, 0] += 50
        y[10:55, 1] += 50
    metric = get_metric(name, k=9)
    how = Intervals("population", splits=4, seed=3)
    made = half_scores(metric, layer(x), layer(y), how)
    for scores, half in zip(made, cuts(70, 4, seed=3).numpy(), strict=True):
        plain = [pr.score(x[rows], y[rows], name, k=9) for rows in (half, ~half)]
        np.testing.assert_allclose(scores, plain, rtol=1e-12)


def test_rows_whose_list_runs_out_are_searched_again(monkeypatch):
    rng = np.random.default_rng(5)
    x, y = draw(rng, world(rng), 60)
    monkeypatch.setattr("platonic_ray.statistics.halves._longer", lambda k: k + 1)
    how = Intervals("population", splits=3)
    made = half_scores(get_metric("mutual_knn", k=5), layer(x), layer(y), how)
    halves = cuts(60, 3, seed=0).numpy()
    plain = [[pr.score(x[rows], y[rows], k=5) for rows in (half, ~half)] for half in halves]
    np.testing.assert_allclose(made, plain, rtol=1e-12)


@pytest.mark.parametrize("name", ["cka", "unbiased_cka", "cknna"])
def test_kernel_scores_of_halves_are_those_of_their_rows(name):
    rng = np.random.default_rng(6)
    x, y = draw(rng, world(rng), 300)
    how = Intervals("population", splits=3, seed=1)
    made = half_scores(get_metric(name), layer(x), layer(y), how)
    halves = cuts(300, 3, seed=1).numpy()
    plain = [[pr.score(x[rows], y[rows], name) for rows in (half, ~half)] for half in halves]
    np.testing.assert_allclose(made, plain, rtol=1e-5)  # the error of float32 products


def test_the_interval_for_the_population_is_made_of_the_differences_of_halves():
    rng = np.random.default_rng(7)
    x, y = draw(rng, world(rng), 61)
    made = pr.interval(x, y, k=4, splits=10, seed=2, level=0.9)
    halves = half_scores(
        get_metric("mutual_knn", k=4), layer(x), layer(y), Intervals("population", splits=10, seed=2)
    )
    error = math.sqrt(np.mean(np.diff(halves, axis=1) ** 2) * 30 * 31) / 61
    p, t = pr.score(x, y, k=4), stats.t.ppf(0.95, 10)
    # Wilson's interval: the p' for which |p − p'| is t standard errors, these being those of p'.
    size = p * (1 - p) / error**2
    roots = np.roots([1 + t**2 / size, -(2 * p + t**2 / size), p**2])
    np.testing.assert_allclose((made.low, made.high), sorted(roots), rtol=1e-9)
    assert made.target == "population"
    assert "90 %" in made.method


@pytest.mark.parametrize("target", ["queries", "population"])
@pytest.mark.parametrize("name", MEANS)
def test_a_representation_is_like_itself_without_doubt(name, target):
    x, _ = draw(np.random.default_rng(8), world(np.random.default_rng(8)), 40)
    made = pr.interval(x, x, name, k=4, target=target, splits=5)
    assert (made.low, made.high) == (1, 1)


def test_a_constant_representation_has_no_interval():
    x, _ = draw(np.random.default_rng(9), world(np.random.default_rng(9)), 40)
    made = pr.interval(x, np.ones_like(x), "cka")
    assert math.isnan(made.low)
    assert math.isnan(made.high)


def test_a_score_of_zero_leaves_room_above_it():
    metric = get_metric("mutual_knn")
    low, high = bounded_interval(0.0, 0.0, 99, 100, metric, 0.95)
    assert low == 0
    # The share of samples above 0 for which 100 of them all miss it with probability 2.5 %.
    assert (1 - high) ** 100 == pytest.approx(0.025)


def test_an_interval_stays_within_the_bounds_and_holds_the_score():
    metric = get_metric("mutual_knn")
    for score in (0.0, 1e-9, 0.01, 0.5, 0.999, 1.0):
        for error in (0.0, 1e-9, 0.01, 0.5):
            low, high = bounded_interval(score, error, 40, 100, metric, 0.95)
            assert 0 <= low <= score <= high <= 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target": "queries", "metric": "cka"}, "no interval"),
        ({"target": "queries", "metric": "cycle_knn"}, "no interval"),
        ({"target": "samples"}, "target"),
        ({"level": 1.0}, "level"),
        ({"splits": 1}, "splits"),
        ({"k": 15}, "halves of the 30 samples"),
        ({"target": "queries", "k": 30}, "needs more than 30 samples"),
    ],
)
def test_what_cannot_be_is_refused(given, said):
    x, y = draw(np.random.default_rng(10), world(np.random.default_rng(10)), 30)
    with pytest.raises(StudyError, match=said):
        pr.interval(x, y, **given)


def covered(target, metric, n, sims, splits=20, seed=0):
    """Of so many tables drawn anew, how many intervals cover their target."""
    rng = np.random.default_rng(seed)
    maps = world(rng)
    how = Intervals(target, splits=splits)
    made, scores, targets = [], [], []
    for _ in range(sims):
        x, y = draw(rng, maps, n)
        scores.append(pr.score(x, y, metric.name, **metric.options))
        made.append(interval_of_layers(metric, scores[-1], layer(x), layer(y), how))
        if target == "queries":
            targets.append(new_queries(rng, maps, x, y, metric.k))
    truth = np.array(targets) if targets else np.full(sims, np.mean(scores))
    low, high = (np.array([getattr(each, side) for each in made]) for side in ("low", "high"))
    return int(((low <= truth) & (truth <= high)).sum())


def new_queries(rng, maps, x, y, k, count=2000):
    """The mean overlap of new samples' neighbors in the gallery (x, y)."""
    lists = [
        np.argpartition(-unit(q) @ unit(gallery).T, k, axis=1)[:, :k]
        for q, gallery in zip(draw(rng, maps, count), (x, y), strict=True)
    ]
    return (lists[0][:, :, None] == lists[1][:, None, :]).sum() / (count * k)


@pytest.mark.parametrize("target", ["queries", "population"])
def test_intervals_cover_what_they_say(target):
    sims = 120
    found = covered(target, get_metric("mutual_knn", k=5), 100, sims, splits=15)
    assert found >= stats.binom.ppf(1e-3, sims, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("queries", "mutual_knn"),
        ("population", "mutual_knn"),
        ("population", "lcs_knn"),
        ("population", "cycle_knn"),
        ("population", "cka"),
        ("population", "unbiased_cka"),
    ],
)
def test_intervals_cover_what_they_say_in_many_tables(target, name):
    metric = get_metric(name)
    metric = metric.with_options({"k": 5}) if metric.k else metric
    sims = 500
    assert covered(target, metric, 150, sims, splits=40, seed=1) >= stats.binom.ppf(1e-3, sims, 0.95)


@pytest.mark.slow
def test_a_standard_error_over_samples_alone_does_not_cover_the_population():
    rng, metric = np.random.default_rng(2), get_metric("mutual_knn", k=5)
    maps = world(rng)
    numbers = np.array(
        [sample_scores(metric, *(tables(side, 5) for side in draw(rng, maps, 100))) for _ in range(500)]
    )
    means, errors = numbers.mean(axis=1), numbers.std(axis=1, ddof=1) / 10
    share = (np.abs(means - means.mean()) <= 1.984 * errors).mean()
    assert share < 0.92


# -- groups and the reference's arithmetic -------------------------------------------------------------


def test_halves_cut_no_group_and_are_as_equal_as_can_be():
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    halves = cuts(10, 20, seed=1, groups=groups)
    for half in halves:
        assert all(half[groups == group].unique().numel() == 1 for group in range(4))
        assert int(half.sum()) in (4, 5, 6)
    assert len({tuple(half.tolist()) for half in halves}) > 2
    with pytest.raises(StudyError, match="one group"):
        cuts(4, 2, seed=0, groups=torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("target", ["queries", "population"])
def test_samples_that_repeat_each_other_make_an_interval_wider_where_they_are_one_group(target):
    rng = np.random.default_rng(11)
    base = draw(rng, world(rng), 30)
    x, y = (np.repeat(side, 4, axis=0) + 0.01 * rng.normal(size=(120, side.shape[1])) for side in base)
    alone, grouped = (
        pr.interval(x, y, k=8, target=target, groups=groups) for groups in (None, np.repeat(np.arange(30), 4))
    )
    assert grouped.high - grouped.low > 1.3 * (alone.high - alone.low)
    assert "30 groups" in grouped.method


@pytest.mark.parametrize("target", ["queries", "population"])
def test_groups_of_one_sample_each_are_no_groups(target):
    x, y = draw(np.random.default_rng(12), world(np.random.default_rng(12)), 40)
    metric, how = get_metric("mutual_knn", k=4), Intervals(target, splits=6)
    score = pr.score(x, y, k=4)
    alone, grouped = (
        interval_of_layers(metric, score, layer(x), layer(y), how, groups)
        for groups in (None, torch.arange(40))
    )
    assert (alone.low, alone.high) == pytest.approx((grouped.low, grouped.high), rel=1e-9)


def test_intervals_of_groups_cover_what_they_say():
    rng = np.random.default_rng(13)
    maps, sims, members = world(rng), 60, 3
    made, truths = [], []
    for _ in range(sims):
        x, y = draw(rng, maps, 40)
        x, y = (np.repeat(side, members, axis=0) for side in (x, y))
        x, y = (side + 0.3 * rng.normal(size=side.shape).astype("f4") for side in (x, y))
        labels = np.repeat(np.arange(40), members)
        made.append(pr.interval(x, y, "cka", target="population", splits=8, groups=labels))
        truths.append(pr.score(x, y, "cka"))
    truth = np.mean(truths)
    assert sum(each.low <= truth <= each.high for each in made) >= stats.binom.ppf(1e-3, sims, 0.95)


@pytest.mark.parametrize("name", ["cka", "cknna", "lcs_knn"])
def test_an_interval_in_the_references_arithmetic_is_of_its_score(name):
    x, y = draw(np.random.default_rng(14), world(np.random.default_rng(14)), 60)
    made = pr.interval(x, y, name, k=4, splits=4, compat="platonic-rep")
    score = pr.score(x, y, name, k=4, compat="platonic-rep")
    assert made.low <= score <= made.high
    halves = cuts(60, 4, seed=0).numpy()
    plain = [
        [pr.score(x[rows], y[rows], name, k=4, compat="platonic-rep") for rows in (half, ~half)]
        for half in halves
    ]
    error = math.sqrt(np.mean(np.diff(plain, axis=1) ** 2)) / 2
    metric = get_metric(name, compat="platonic-rep")
    metric = metric.with_options({"k": 4}) if metric.k else metric
    expected = bounded_interval(score, error, 4, 60, metric, 0.95)
    np.testing.assert_allclose((made.low, made.high), expected, rtol=1e-3, atol=1e-6)
