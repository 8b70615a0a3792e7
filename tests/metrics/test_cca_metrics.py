"""SVCCA and PWCCA against scipy and scikit-learn, and what becomes of them where CCA says nothing."""

import numpy as np
import pytest
import scipy.linalg
from sklearn.cross_decomposition import CCA

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.metrics import get_metric, score_tables


def pair(n, dx, dy, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 5))
    return tuple(
        (common @ rng.normal(size=(5, w)) + noise * rng.normal(size=(n, w)) + 2).astype(np.float32)
        for w in (dx, dy)
    )


def leading(x, count):
    x = x.astype(np.float64)
    z = (x - x.mean(0)) / (x.std(0, ddof=1) + 1e-8)
    return scipy.linalg.svd(z, full_matrices=False)[0][:, :count]


def one(x, y, metric, **options):
    (table,) = score_tables({"x": x}, {"y": y}, [get_metric(metric, **options)], recipe="none")
    return table.scores[0, 0], table.status[0][0]


@pytest.mark.parametrize(("n", "dx", "dy", "count"), [(200, 40, 25, 10), (90, 300, 30, 10), (70, 90, 120, 4)])
def test_svcca_is_the_mean_cosine_between_the_leading_subspaces(n, dx, dy, count):
    x, y = pair(n, dx, dy)
    cosines = np.cos(scipy.linalg.subspace_angles(leading(x, count), leading(y, count)))
    found, status = one(x, y, "svcca", components=count)
    assert found == pytest.approx(cosines.mean(), rel=1e-9)
    assert status is None


def test_svcca_is_what_scikit_learns_cca_of_the_leading_directions_finds():
    x, y = pair(150, 30, 20)
    u, v = leading(x, 4), leading(y, 4)
    a, b = CCA(n_components=4, max_iter=20_000, tol=1e-14).fit_transform(u, v)
    expected = np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)])
    assert one(x, y, "svcca", components=4)[0] == pytest.approx(expected, rel=1e-5)


def test_svcca_of_width_one_is_the_correlation_and_says_how_many_components_there_were():
    x, y = pair(60, 1, 1)
    found, status = one(x, y, "svcca")
    assert found == pytest.approx(abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1]), rel=1e-9)
    assert status.startswith("1 components instead of 10")


def test_svcca_says_how_many_correlations_are_one_whatever_the_data():
    x, y = np.random.default_rng(0).normal(size=(2, 16, 40))
    found, status = one(x, y, "svcca", components=10)
    assert status == "5 of 10 correlations are 1 whatever the data: ranks 10 + 10 > n − 1"
    assert found > 0.5


def test_svcca_says_where_its_leading_directions_are_arbitrary():
    # Four orthogonal columns of one length: no two of them lead.
    x = scipy.linalg.hadamard(16)[:, 1:5]
    _, status = one(x, pair(16, 6, 6)[0], "svcca", components=2)
    assert "singular values 2 and 3 are equal" in status


@pytest.mark.parametrize("components", [0, 2.0, True, 29, 40])
def test_components_that_cannot_be_had_are_refused(components):
    x, y = pair(30, 5, 5)
    with pytest.raises(StudyError, match=r"svcca.*components"):
        one(x, y, "svcca", components=components)


def dense_pwcca(x, y):
    """By whitening with the inverse square roots of the covariances, as the paper's appendix does."""
    x, y = (a.astype(np.float64) - a.astype(np.float64).mean(0) for a in (x, y))
    white_x, white_y = (a @ scipy.linalg.inv(scipy.linalg.sqrtm(a.T @ a)) for a in (x, y))
    u, rho, _ = scipy.linalg.svd(white_x.T @ white_y, full_matrices=False)
    weights = np.abs((white_x @ u).T @ x).sum(1)
    return (weights * rho).sum() / weights.sum()


@pytest.mark.parametrize(
    ("n", "dx", "dy"), [(200, 12, 30), (200, 30, 12), (300, 40, 40), (50, 1, 1), (50, 1, 7)]
)
def test_pwcca_is_the_mean_correlation_weighted_by_what_x_holds(n, dx, dy):
    x, y = pair(n, dx, dy)
    found, status = one(x, y, "pwcca")
    assert found == pytest.approx(dense_pwcca(x, y), rel=1e-9)
    assert one(y, x, "pwcca")[0] == pytest.approx(dense_pwcca(y, x), rel=1e-9)
    assert status is None


def test_pwcca_takes_no_notice_of_what_invertible_maps_do_to_y():
    x, y = pair(150, 10, 8)
    mixed = y.astype(np.float64) @ np.random.default_rng(1).normal(size=(8, 8))
    assert one(x, mixed, "pwcca")[0] == pytest.approx(one(x, y, "pwcca")[0], rel=1e-5)
    assert one(x, x @ np.diag(np.arange(1, 11)), "pwcca")[0] == pytest.approx(1, abs=1e-9)


def test_pwcca_of_shared_columns_is_the_same_in_any_order_of_samples():
    # Three correlations are 1 exactly, so their directions are determined by the rule alone.
    rng = np.random.default_rng(2)
    shared = rng.normal(size=(80, 3))
    x = np.hstack([shared @ rng.normal(size=(3, 3)), rng.normal(size=(80, 4))])
    y = np.hstack([shared, rng.normal(size=(80, 2))])
    order = rng.permutation(80)
    assert one(x[order], y[order], "pwcca")[0] == pytest.approx(one(x, y, "pwcca")[0], rel=1e-9)


def test_pwcca_of_a_width_that_reaches_n_is_no_agreement():
    x, y = np.random.default_rng(0).normal(size=(2, 30, 40))
    found, status = one(x, y[:, :5], "pwcca")
    assert np.isnan(found)
    assert status == "x: its rank reaches n − 1 = 29, every canonical correlation is 1"
    assert "y: its rank" in one(x[:, :5], y, "pwcca")[1]
    found, status = one(x[:, :20], y[:, :15], "pwcca")
    assert status == "6 of 15 correlations are 1 whatever the data: ranks 20 + 15 > n − 1"
    # The six equal ones leave the plain formula free to weigh them as rounding has it.
    assert found == pytest.approx(dense_pwcca(x[:, :20], y[:, :15]), abs=0.01)


def test_pwcca_counts_no_direction_that_is_rounding_alone():
    x, y = pair(100, 4, 6)
    doubled = np.hstack([x, (x.astype(np.float64) @ np.ones((4, 1)) / 3)]).astype(np.float32)
    found, _ = one(doubled, y, "pwcca")
    exact, _ = one(np.hstack([x, x[:, :1]]), y, "pwcca")
    assert found == pytest.approx(exact, abs=0.1)
    assert pr.score(doubled, y, "pwcca", recipe="none") == found
