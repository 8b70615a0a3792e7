"""Spearman's RSA against scipy's ranks of dense dissimilarities, exact and on drawn pairs."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from platonic_ray.errors import StudyError
from platonic_ray.metrics import get_metric, score_tables, spearman

FORMS = ["correlation", "cosine", "euclidean"]


def pair(n=60, dx=9, dy=20, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 4))
    return tuple(
        (common @ rng.normal(size=(4, w)) + rng.normal(size=(n, w)) + 1).astype(np.float32) for w in (dx, dy)
    )


def scored(x, y, form="correlation", pairs=2**25, seed=0):
    options = {"dissimilarity": form, "pairs": pairs, "seed": seed}
    states = [spearman.unary(torch.from_numpy(np.asarray(a, np.float32)), "", options) for a in (x, y)]
    return spearman.pair(*states, options)


def dense(x, y, form="correlation"):
    return spearmanr(*(pdist(np.asarray(a, np.float64), form) for a in (x, y))).statistic


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [3, 60, 150])
def test_it_is_scipys_rank_correlation_of_the_dissimilarities(form, n):
    x, y = pair(n)
    found, status = scored(x, y, form)
    assert found == pytest.approx(dense(x, y, form), rel=1e-9)
    assert status is None


@pytest.mark.parametrize("kind", ["one-hot", "duplicates", "small integers"])
def test_equal_dissimilarities_share_their_mean_rank(kind):
    rng = np.random.default_rng(1)
    # Powers of two and whole numbers, of which the dense distances are exact, and so tie exactly.
    make = {
        "one-hot": lambda: np.eye(8)[rng.integers(0, 8, size=50)],
        "duplicates": lambda: rng.integers(-5, 5, size=(9, 3))[rng.integers(0, 9, size=50)],
        "small integers": lambda: rng.integers(-1, 2, size=(50, 4)),
    }[kind]
    x, y = make(), make()
    squared = [((a[:, None] - a[None]) ** 2).sum(-1)[np.triu_indices(50, 1)] for a in (x, y)]
    assert scored(x, y, "euclidean")[0] == pytest.approx(spearmanr(*squared).statistic, rel=1e-9)


def test_duplicates_of_any_rows_tie_in_spite_of_rounding():
    x, y = pair(12, 40, 33)
    rows = np.repeat(np.arange(12), 5)
    grouped = np.add.outer(rows * 100, rows)[np.triu_indices(60, 1)]
    options = {"dissimilarity": "cosine", "pairs": 2**25, "seed": 0}
    state = spearman.unary(torch.from_numpy(x[rows]), "", options)
    ranks = state["ranks"].numpy()
    for kind in np.unique(grouped)[:20]:
        assert np.unique(ranks[grouped == kind]).size == 1
    assert np.isfinite(scored(x[rows], y[rows])[0])


@pytest.mark.parametrize("pairs", [2**25, 2000])
def test_a_permuted_state_is_that_of_permuted_rows(pairs):
    x, y = pair(90)
    options = {"dissimilarity": "euclidean", "pairs": pairs, "seed": 3}
    order = torch.from_numpy(np.random.default_rng(0).permutation(90))
    state_x, state_y, moved = (
        spearman.unary(rows, "", options)
        for rows in (torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(y)[order])
    )
    permuted = spearman.permute(state_y, order)
    np.testing.assert_allclose(permuted["ranks"], moved["ranks"], atol=1e-9)
    assert spearman.pair(state_x, permuted, options)[0] == pytest.approx(
        spearman.pair(state_x, moved, options)[0], abs=1e-9
    )


def test_drawn_pairs_estimate_the_score_within_their_standard_error():
    x, y = pair(300)
    exact = dense(x, y)
    off = []
    for seed in range(30):
        found, status = scored(x, y, pairs=4000, seed=seed)
        assert status.startswith("of 3")
        assert "drawn from 44850; standard error" in status
        off.append((found - exact) / float(status.rsplit(" ", 1)[1]))
    assert 0.5 < np.std(off) < 1.6
    assert abs(np.mean(off)) < 0.7


def test_a_draw_is_of_different_pairs_and_the_same_for_one_seed():
    drawn = spearman.draw(300, 5000, 7)
    assert drawn.unique().numel() == drawn.numel() > 4500
    assert torch.equal(drawn, spearman.draw(300, 5000, 7))
    i, j = spearman.pair_at(drawn, 300)
    assert bool((i < j).all())
    assert int(i.min()) == 0
    assert int(j.max()) == 299
    upper = torch.arange(300 * 299 // 2)
    assert torch.equal(torch.stack(spearman.pair_at(upper, 300)), torch.triu_indices(300, 300, 1))


def test_dissimilarities_that_are_all_equal_are_no_order():
    x, _ = pair(8)
    found, status = scored(np.eye(8), x, "euclidean")
    assert np.isnan(found)
    assert status == "x: all dissimilarities are equal"
    assert scored(x, np.ones((8, 4)))[1] == "y: constant representation"


class TestRsaByRanks:
    def test_it_scores_every_layer_pair_unless_told_otherwise(self):
        x, y = pair(40)
        models = {"a": [x, x[:, :4]], "b": [y, y[:, :7], x]}
        everything = get_metric("rsa", correlation="spearman", dissimilarity="cosine")
        (table,) = score_tables(models, metrics=[everything], recipe="none")
        for i, of_a in enumerate(models["a"]):
            for j, of_b in enumerate(models["b"]):
                assert table.scores[i, j] == pytest.approx(dense(of_a, of_b, "cosine"), rel=1e-9)
        (last,) = score_tables(models, metrics=[everything.with_options({"layers": "last"})], recipe="none")
        assert np.isnan(last.scores).sum() == 5
        assert last.scores[1, 2] == table.scores[1, 2]

    def test_its_key_makes_it_again_and_pearson_has_none_of_its_options(self):
        ranks = get_metric("rsa", correlation="spearman", pairs=5000)
        assert (ranks.family, ranks.kernel, ranks.options["seed"]) == ("rows", None, 0)
        assert get_metric("rsa", **ranks.key["options"]) == ranks
        plain = get_metric("rsa", correlation="pearson")
        assert (plain.family, plain) == ("kernel", get_metric("rsa"))
        with pytest.raises(StudyError, match=r"pairs is an option of correlation"):
            get_metric("rsa", pairs=5000)

    @pytest.mark.parametrize("options", [{"pairs": 10}, {"seed": -1}, {"layers": "some"}, {"pairs": 1e6}])
    def test_options_that_make_no_draw_are_refused(self, options):
        with pytest.raises(StudyError, match=f"rsa: .*{next(iter(options))}"):
            get_metric("rsa", correlation="spearman", **options)

    def test_rows_without_direction_are_counted(self):
        x, y = pair(30)
        x[4] = 0.5
        y[[1, 2]] = 0.0
        found, status = scored(x, y)
        assert status == "rows without direction: 1 in x, 2 in y"
        assert np.isfinite(found)
