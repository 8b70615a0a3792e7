"""Small results to test with: seeded scores with a trained part, a floor and a hole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from platonic_ray.results import LayerInfo, PairScores, Result


def make_result(
    names: list[str], *, cross: int | None = None, depths: tuple[int, ...] = (3, 1, 5), seed: int = 0
) -> Result:
    """Return a result over `names`; with `cross`, the first `cross` of them against the others.

    The pair of the second and the last model is undefined; each model agrees fully with itself.
    """
    random = np.random.default_rng(seed)
    depth = {name: depths[at % len(depths)] for at, name in enumerate(names)}
    layers = [
        LayerInfo(name, at, f"block.{at}", width=8, zero_rows=int(at == 2), k=10, tied_share=0.25)
        for name in names
        for at in range(depth[name])
    ]
    pairs = []
    for i, x in enumerate(names):
        for j, y in enumerate(names):
            if j < i or (cross is not None and not i < cross <= j):
                continue
            scores = 0.01 + 0.4 * random.random((depth[x], depth[y]))
            status = None
            if i == j:
                np.fill_diagonal(scores, 1.0)
            elif (i, j) == (1, len(names) - 1):
                scores[:] = np.nan
                status = np.full(scores.shape, "constant representation", dtype=object)
            pairs.append(PairScores("mutual_knn", x, y, scores, status, n=1024, k=10, chance=10 / 1023))
    provenance = {
        "study": {"name": "test", "seed": 3},
        "study_key": "ab" * 32,
        "dataset": {"name": "emoji", "fingerprint": "cd" * 32, "n": 1024, "dropped": [7]},
        "versions": {"torch": "2.13.0"},
        "seed": 3,
        "floors": names[-1:],
        "notes": ["a smaller batch was used"],
    }
    return Result.from_pairs(pairs, layers, provenance)


@pytest.fixture
def make() -> Callable[..., Result]:
    return make_result


HOSTILE = [
    "org/model@main",
    "a, b; c",
    "<script>alert('x')</script> & \"q\"",
    "נץ החמה",
    "言語モデル-大",
    "$\\frac{1}{$",
    "[bold red]not markup[/]",
    "tab\tline\nescape\x1b[31m",
    "x" * 200,
    "model",
]


@pytest.fixture
def hostile() -> list[str]:
    return list(HOSTILE)
