"""The fast search: proposals of every precision, their bounds, and what each stage hands on."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import platonic_ray.kernels.compiled as compiled
import platonic_ray.kernels.frame as frame
import platonic_ray.kernels.neighbors as neighbors_module
import platonic_ray.kernels.proposals as proposals
import platonic_ray.kernels.search as search
from platonic_ray.kernels import TieRule, exact_ids, exact_neighbors, l2_normalize, tile_neighbors

from .dense_neighbors import dense, neighbors
from .test_neighbors import DIGEST, KINDS

LARGER = KINDS | {
    "one dominating dimension": lambda drawn, n, width: (
        drawn.normal(size=(n, width)) * np.r_[1e4, np.ones(width - 1)]
    ),
    "tiny": lambda drawn, n, width: drawn.normal(size=(n, width)) * 1e-30,
    "huge": lambda drawn, n, width: drawn.normal(size=(n, width)) * 1e30,
    "subnormal": lambda drawn, n, width: drawn.normal(size=(n, width)) * 1e-41,
    "near float32's end": lambda drawn, n, width: drawn.choice([-3e38, 3e38], size=(n, width)),
    "far from the origin": lambda drawn, n, width: drawn.normal(size=(n, width)) * 1e-3 + 100,
    "clusters": lambda drawn, n, width: (
        drawn.normal(size=(5, width))[drawn.integers(0, 5, n)] + 1e-3 * drawn.normal(size=(n, width))
    ),
}
SEARCHES = st.tuples(
    st.sampled_from(sorted(LARGER)),
    st.integers(0, 2**32),
    st.integers(30, 200),
    st.sampled_from([1, 2, 65, 130, 600]),
)


def make(case: tuple[str, int, int, int]) -> torch.Tensor:
    kind, seed, n, width = case
    return torch.from_numpy(LARGER[kind](np.random.default_rng(seed), n, width).astype("f4"))


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@settings(deadline=None, max_examples=40)
@given(
    case=SEARCHES,
    normalize=st.booleans(),
    k=st.integers(1, 6),
    low=st.booleans(),
    slack=st.sampled_from([-20, 0, 64]),
    cells=st.sampled_from([1000, 2**22]),
    loops=st.booleans(),
)
def test_every_stage_finds_what_a_dense_sort_finds(  # type: ignore[no-untyped-def]
    similarity, case, normalize, k, low, slack, cells, loops
) -> None:
    rows = make(case)
    rows = l2_normalize(rows) if normalize else rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame, "fast_bfloat16", lambda device: low)
        patch.setattr(search, "_SLACK", slack)
        patch.setattr(search, "_CELLS", cells)
        patch.setattr(compiled, "LEAST", 0 if loops else 2**62)
        found = exact_neighbors(rows, k, DIGEST, similarity)
        ids = exact_ids(rows, k, DIGEST, similarity)
        sets = exact_ids(rows, k, DIGEST, similarity, ordered=False)
    expected, values = neighbors(rows.numpy(), k + 1, DIGEST, similarity)
    assert np.array_equal(found.ids.numpy(), expected)
    assert found.values.numpy().tobytes() == values.tobytes()
    assert np.array_equal(ids.numpy(), expected)
    assert np.array_equal(sets.numpy(), np.sort(expected[:, :k], 1))


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@pytest.mark.parametrize("precision", ["highest", "medium"])
@settings(deadline=None, max_examples=40)
@given(case=SEARCHES, low=st.booleans())
def test_scores_are_within_their_bounds_of_canonical_values(similarity, precision, case, low) -> None:  # type: ignore[no-untyped-def]
    rows = make(case)
    before = torch.get_float32_matmul_precision()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame, "fast_bfloat16", lambda device: low)
        torch.set_float32_matmul_precision(precision)
        try:
            proposer = proposals.Proposer(rows, similarity)
            if not proposer.fit:
                return
            n = len(rows)
            every, own = torch.arange(n), proposer.own
            refined = proposer.refine(own, every.repeat_interleave(n), every.repeat(n)).reshape(n, n)
            worst = {"refined": (refined, proposer.frame.refined_error(own.norms), 0.0)}
            for dtype in proposer.dtypes:
                error = proposer.frame.error(own.norms, dtype)
                proposed = proposer.scores(own, slice(0, n), dtype).double()
                roundoff = 2.0**-8 if dtype == torch.bfloat16 else 0.0
                slack = roundoff * (3 * proposed.abs() + 3 * proposer.frame.highest)
                worst[str(dtype)] = (proposed, error, slack)
        finally:
            torch.set_float32_matmul_precision(before)
    canonical = torch.from_numpy(dense(rows.numpy(), similarity)) * proposer.frame.scale**2
    canonical = canonical if similarity == "inner" else -canonical / 2
    for scores, error, slack in worst.values():
        # What all rows of the gallery have in common is left out of a score: compare differences.
        off = scores - canonical
        spread = (off - off[:, :1]).abs()
        allowed = 2 * error[:, None] + slack + (slack[:, :1] if isinstance(slack, torch.Tensor) else 0)
        assert (spread <= allowed).all()


def test_a_search_of_other_rows_than_the_gallerys_leaves_out_only_a_querys_own() -> None:
    drawn = np.random.default_rng(0)
    rows = torch.from_numpy(drawn.normal(size=(300, 20)).astype("f4"))
    ids = torch.arange(300)
    got = tile_neighbors(rows[100:200], rows[150:], ids[100:200], ids[150:], 3, TieRule(DIGEST))
    values = dense(rows.numpy())[100:200, 150:]
    for query in range(100):
        others = [j for j in range(150) if 150 + j != 100 + query]
        expected = sorted(others, key=lambda j: -values[query, j])[:4]
        assert got.ids[query].tolist() == [150 + j for j in expected]


def test_most_rows_of_usual_features_are_settled_by_the_first_stage_with_few_canonical_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbors_module, "DENSE_IDS_BESIDE_UNITS", 2**22)
    drawn = np.random.default_rng(0)
    rows = drawn.normal(size=(1024, 30)) @ drawn.normal(size=(30, 256)) + 5 * drawn.normal(size=256)
    tally: Counter[str] = Counter()
    exact_ids(l2_normalize(torch.from_numpy(rows.astype("f4"))), 10, DIGEST, tally=tally)
    assert tally["bfloat16"] + tally["float32"] == 1024
    assert 0 < tally["pairs"] < 0.3 * 1024 * 11


def test_the_digest_is_asked_for_only_where_rows_tie() -> None:
    def fail() -> str:
        raise AssertionError("nothing ties")

    drawn = np.random.default_rng(0)
    rows = torch.from_numpy(drawn.normal(size=(200, 40)).astype("f4"))
    assert torch.equal(exact_ids(rows, 5, fail), exact_ids(rows, 5, DIGEST))
    rows[7] = rows[8]
    with pytest.raises(AssertionError, match="nothing ties"):
        exact_ids(rows, 5, fail)
    assert torch.equal(exact_ids(rows, 5, lambda: DIGEST), exact_neighbors(rows, 5, DIGEST).ids)


@pytest.mark.parametrize("low", [False, True])
def test_the_bound_of_bfloat16_holds_where_rounding_loses_most(low: bool) -> None:
    """Halfway between two numbers of eight bits, both factors lose all that rounding can."""
    rows = torch.tensor([[1 + 2.0**-8], [-1 - 2.0**-8]])
    measured = frame.measure(lambda: [rows], "inner", low)
    rounded = rows.bfloat16().double()
    off = (rounded @ rounded.T - rows.double() @ rows.double().T).abs()
    assert (off > 1.9 * 2.0**-8).all()
    assert (off <= measured.frame.error(measured.norms, torch.bfloat16)[:, None]).all()


@pytest.mark.parametrize("similarity", ["inner", "euclidean"])
@settings(deadline=None, max_examples=60)
@given(case=SEARCHES, low=st.booleans())
def test_compiled_loops_measure_what_torch_measures(similarity, case, low) -> None:  # type: ignore[no-untyped-def]
    rows = make(case)
    by = []
    for least in (0, 2**62):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled, "LEAST", least)
            by.append(frame.measure(lambda: [rows[:3], rows[3:]], similarity, low))
    ours, plain = by
    assert (ours is None) == (plain is None)
    if ours is None or plain is None:
        return
    assert torch.equal(ours.frame.center, plain.frame.center)
    if ours.frame.scale != 1:
        return
    centered = ours.frame.centered(rows).double()
    exact = centered.norm(dim=1)
    assert (ours.norms >= exact).all()
    assert torch.allclose(ours.norms, plain.norms, rtol=1e-4)
    with_what = centered / -2 if similarity == "euclidean" else ours.frame.center.double()
    bias = (centered * with_what).sum(1)
    size = (centered * with_what).abs().sum(1).amax()
    assert ((ours.biases - (bias - bias.mean())).abs() <= 1e-12 * size).all()
    if low:
        lost = (centered - centered.float().bfloat16().double()).norm(dim=1)
        assert (lost <= ours.frame.rounding * ours.norms).all()
        assert ours.frame.rounding <= 2.0**-8
        assert ours.frame.rounding == pytest.approx(plain.frame.rounding, rel=1e-4)
