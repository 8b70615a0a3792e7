"""Linear predictivity against scikit-learn's ridge regression, fold by fold."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.metrics import get_metric, make_state, score_tables
from platonic_ray.metrics.regression import folds_of


def pair(n, dx, dy, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dx)) + 1
    y = x @ rng.normal(size=(dx, dy)) / np.sqrt(dx) + rng.normal(size=(n, dy)) * 0.3 - 2
    return x.astype(np.float32), y.astype(np.float32)


def dense(x, y, ridge, folds):
    x, y = x.astype(np.float64), y.astype(np.float64)
    left = total = 0.0
    for fold in np.unique(folds):
        out = folds == fold
        fitted = x[~out] - x[~out].mean(0)
        penalty = ridge * (fitted**2).sum(1).mean()
        model = Ridge(alpha=penalty, solver="svd").fit(x[~out], y[~out])
        left += ((y[out] - model.predict(x[out]).reshape(out.sum(), -1)) ** 2).sum()
        total += ((y[out] - y[~out].mean(0)) ** 2).sum()
    return 1 - left / total


@pytest.mark.parametrize(("n", "dx", "dy"), [(120, 10, 4), (60, 150, 30), (50, 20, 90), (40, 1, 1)])
@pytest.mark.parametrize(("ridge", "folds"), [(0.01, 5), (1.0, 3), (0.1, 40)])
def test_it_is_the_r_squared_of_ridge_regressions(n, dx, dy, ridge, folds):
    x, y = pair(n, dx, dy)
    metric = get_metric("linear_predictivity", ridge=ridge, folds=folds, seed=4)
    (table,) = score_tables({"x": x}, {"y": y}, [metric], recipe="none")
    expected = dense(x, y, ridge, folds_of(n, folds, 4).numpy())
    assert table.scores[0, 0] == pytest.approx(expected, rel=1e-9)


def test_folds_are_of_one_size_seeded_and_of_every_sample_once():
    folds = folds_of(103, 5, seed=1)
    assert sorted(torch.bincount(folds).tolist()) == [20, 20, 21, 21, 21]
    assert torch.equal(folds, folds_of(103, 5, seed=1))
    assert not torch.equal(folds, folds_of(103, 5, seed=2))
    assert len(set(folds[:20].tolist())) > 1


def test_a_rotation_of_either_side_changes_nothing_but_rounding():
    x, y = pair(80, 12, 12)
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    one, turned = (pr.score(a, b, "linear_predictivity", recipe="none") for a, b in ((x, y), (x @ q, y @ q)))
    assert turned == pytest.approx(one, abs=1e-6)


def test_noise_foretells_nothing_and_a_linear_image_is_foretold():
    x, _ = pair(200, 10, 3)
    noise = np.random.default_rng(9).normal(size=(200, 3))
    assert pr.score(x, noise, "linear_predictivity", recipe="none") < 0.02
    image = x[:, :4] @ np.ones((4, 2)) + 5
    assert pr.score(x, image, "linear_predictivity", recipe="none", ridge=1e-8) > 1 - 1e-6
    back = pr.score(image, x, "linear_predictivity", recipe="none")
    assert back < 0.5


def test_both_orders_are_scored_and_differ():
    x, y = pair(60, 6, 3)
    forth, back = score_tables({"x": x, "y": y}, metrics=["linear_predictivity"])
    assert (forth.x, back.x) == ("x", "y")
    assert forth.scores[0, 0] != back.scores[0, 0]


def test_a_fold_fitted_to_equal_rows_foretells_their_mean():
    x = np.zeros((6, 2))
    x[0] = 1.0
    y = np.random.default_rng(0).normal(size=(6, 2))
    folds = folds_of(6, 6, 0).numpy()
    metric = get_metric("linear_predictivity", folds=6)
    (table,) = score_tables({"x": x}, {"y": y}, [metric], recipe="none")
    left = total = 0.0
    for i in range(6):
        rest = [j for j in range(6) if folds[j] != folds[i]]
        mean = y[rest].mean(0)
        fitted = x[rest] - x[rest].mean(0)
        alpha = 0.01 * (fitted**2).sum() / 5
        solved = fitted.T @ (y[rest] - mean)
        inverse = np.linalg.pinv(fitted.T @ fitted + alpha * np.eye(2)) if alpha else np.zeros((2, 2))
        left += ((y[i] - mean - (x[i] - x[rest].mean(0)) @ inverse @ solved) ** 2).sum()
        total += ((y[i] - mean) ** 2).sum()
    assert table.scores[0, 0] == pytest.approx(1 - left / total, rel=1e-6)


def test_a_permuted_state_keeps_each_rows_fold_and_prediction():
    x, y = (torch.from_numpy(rows) for rows in pair(50, 6, 70))
    metric = get_metric("linear_predictivity")
    order = torch.from_numpy(np.random.default_rng(5).permutation(50))
    state_x, state_y = (make_state(metric, rows, "c" * 16) for rows in (x, y))
    both = metric.pair(metric.permute(state_x, order), metric.permute(state_y, order), metric.options)[0]
    assert both == pytest.approx(metric.pair(state_x, state_y, metric.options)[0], rel=1e-12)
    # A permuted y is foretold as if the rows of y had come in that order.
    moved = make_state(metric, y[order], "c" * 16)
    one, other = (
        metric.pair(state_x, side, metric.options)[0] for side in (metric.permute(state_y, order), moved)
    )
    assert one == pytest.approx(other, rel=1e-9)
    assert one < 0.2


@pytest.mark.parametrize(
    "options",
    [
        *({"ridge": ridge} for ridge in (0, -1.0, float("nan"), "big")),
        *({"folds": folds} for folds in (1, 31, 2.0)),
        *({"seed": seed} for seed in (-1, 2**63)),
    ],
)
def test_options_that_make_no_regression_are_refused(options):
    x, y = pair(30, 3, 3)
    with pytest.raises(StudyError, match=f"linear_predictivity: .*{next(iter(options))}"):
        score_tables({"x": x}, {"y": y}, [get_metric("linear_predictivity", **options)])
