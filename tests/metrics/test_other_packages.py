"""Scores and nulls against packages that others wrote: ckatorch, calibrated-similarity, SciPy."""

import numpy as np
import pytest
import scipy.spatial
import torch
from calibrated_similarity import calibrate_layers
from ckatorch.core import cka_base, cka_batch

import platonic_ray as pr
from platonic_ray.statistics import rotations

N = 50


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 3, 6, generator=generator)
    y = torch.randn(N, 2, 5, generator=generator)
    y[:, :, :3] += x[:, :2, :3]
    return x, y


def exact(x, y, metric, **options):
    return pr.score(x, y, metric, recipe="none", **options)


def test_cka_is_that_of_ckatorch(pair):
    x, y = (side[:, 0] for side in pair)
    assert exact(x, y, "cka", precision="float64") == pytest.approx(float(cka_base(x, y)), rel=1e-9)
    unbiased = float(cka_batch(x[None], y[None]))
    assert exact(x, y, "unbiased_cka", precision="float64") == pytest.approx(unbiased, rel=1e-9)


def test_cka_of_an_rbf_kernel_is_that_of_ckatorch(pair):
    x, y = (side[:, 0] for side in pair)
    # Its width is the median over all cells, the diagonal's zeros among them: of each side another.
    y = (
        y
        * float((torch.cdist(x, x).double() ** 2).median() / (torch.cdist(y, y).double() ** 2).median())
        ** 0.5
    )
    sigma = float((torch.cdist(x.double(), x.double()) ** 2).median()) ** 0.5
    theirs = float(cka_base(x, y, kernel="rbf"))
    ours = exact(x, y, "cka", kernel="rbf", sigma=sigma, precision="float64")
    assert ours == pytest.approx(theirs, rel=1e-5)  # y was scaled in float32


def test_procrustes_is_that_of_scipy(pair):
    x, y = (side[:, 0].double().numpy() for side in pair)
    wide = np.pad(y, ((0, 0), (0, x.shape[1] - y.shape[1])))
    # Scipy's second matrix may also be scaled: what is left is 1 − s² for the sum s of singular values.
    left = scipy.spatial.procrustes(x, wide)[2]
    assert exact(x, y, "procrustes") == pytest.approx((1 - left) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("metric", ["mutual_knn", "cka"])
def test_a_null_over_all_layers_is_that_of_calibrated_similarity(pair, metric):
    x, y = pair
    drawn = iter(rotations(N, 29, seed=0).permutations())
    score, p, threshold = calibrate_layers(
        [x[:, layer] for layer in range(3)],
        [y[:, layer] for layer in range(2)],
        lambda a, b: pr.score(a, b, metric, k=5),
        K=29,
        alpha=0.1,
        perm_fn=lambda n, device: next(drawn),
    )
    table = pr.table({"x": x}, {"y": y}, metric=metric, k=5, permutations=29, alpha=0.1)
    (row,) = table.models.to_dicts()
    assert row["p"] == pytest.approx(float(p), rel=1e-6)
    assert row["null_threshold"] == pytest.approx(float(threshold), rel=1e-5)
    assert row["calibrated"] == pytest.approx(float(score), rel=1e-4)
