"""The clamp of the published recipe: order statistics against a plain sort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.errors import StudyError
from platonic_ray.kernels import clamp_bounds, prepare, prepare_layers, quantile

KINDS = {
    "normal": lambda drawn, size: drawn.normal(size=size),
    "heavy": lambda drawn, size: drawn.standard_cauchy(size=size) * 1e3,
    "tied": lambda drawn, size: drawn.integers(-3, 4, size=size),
    "sparse": lambda drawn, size: drawn.normal(size=size) * (drawn.random(size) < 0.06),
    "one-hot": lambda drawn, size: drawn.random(size) < 0.01,
    "constant": lambda drawn, size: np.full(size, -2.5),
    "zero": lambda drawn, size: np.where(drawn.random(size) < 0.5, 0.0, -0.0),
    "denormal": lambda drawn, size: drawn.normal(size=size) * 1e-43,
    "huge": lambda drawn, size: drawn.choice([-1, 1], size=size) * np.finfo(np.float32).max,
}


def sorted_bound(x):
    """The definition, word for word."""
    return np.sort(np.abs(x.astype(np.float32)).ravel())[int(0.95 * x.size)]


def interpolated_bound(x):
    """The mean over rows of the rows' interpolated quantiles, in float64."""
    return np.quantile(np.abs(x.astype(np.float32)).astype(np.float64), 0.95, axis=1).mean()


def make(kind, seed, n, widths):
    drawn = np.random.default_rng(seed)
    return [KINDS[kind](drawn, (n, width)).astype(np.float32) for width in widths]


def blocks(layers, rows):
    """The same layers in blocks of rows."""
    tensors = [torch.from_numpy(layer) for layer in layers]
    return lambda: [[layer[i : i + rows] for layer in tensors] for i in range(0, len(layers[0]), rows)]


@given(
    st.sampled_from([*KINDS]),
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 50),
)
@settings(max_examples=120, deadline=None)
def test_the_exact_clamp_is_the_element_of_a_sort_for_any_blocks(kind, seed, n, widths, alike, rows):
    widths = [widths[0]] * len(widths) if alike else widths
    layers = make(kind, seed, n, widths)
    got = clamp_bounds(blocks(layers, rows), "huh2024")
    if len(set(widths)) == 1:
        expected = [sorted_bound(np.stack(layers, axis=1))] * len(layers)
    else:
        expected = [sorted_bound(layer) for layer in layers]
    assert np.array_equal(np.float32(got), expected)


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("small", ["sample", "memory", "wrong sample"])
def test_a_bracket_that_misses_or_overflows_changes_nothing(monkeypatch, kind, small):
    layers = make(kind, 1, 300, [40, 40, 40])
    expected = sorted_bound(np.stack(layers, axis=1))
    monkeypatch.setattr(quantile, "_CHUNK", 1000)
    if small == "sample":
        monkeypatch.setattr(quantile, "_SAMPLE", 500)
    if small == "memory":
        monkeypatch.setattr(quantile, "_COMPRESS", 50)
        monkeypatch.setattr(quantile, "_MOST_KEPT", 200)
    peek = blocks([layer[:1] * 0 + 1e30 for layer in layers], 1) if small == "wrong sample" else None
    calls = []
    stacks = blocks(layers, 70)
    got = clamp_bounds(lambda: calls.append(1) or stacks(), "huh2024", peek)
    assert np.float32(got[0]) == np.float32(got[2]) == expected
    if small == "wrong sample" and kind != "huge":  # those lie beyond 1e30, in the bracket
        assert len(calls) == 3  # the bracket missed, and the two passes of the select found it


@pytest.mark.parametrize("kind", [*KINDS])
def test_the_radix_select_alone_finds_every_rank(kind):
    layers = make(kind, 2, 13, [5, 8])
    ordered = [np.sort(np.abs(layer).ravel()) for layer in layers]
    for share in (0.0, 0.3, 0.95, 1.0):
        ranks = {index: int(share * (values.size - 1)) for index, values in enumerate(ordered)}
        found = quantile._radix_select(blocks(layers, 4), ranks, grouped=False)
        assert [np.float32(found[i]) for i in ranks] == [ordered[i][rank] for i, rank in ranks.items()]


@given(
    st.sampled_from([*KINDS]),
    st.integers(0, 10**6),
    st.integers(1, 30),
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 40),
)
@settings(max_examples=80, deadline=None)
def test_the_approximate_clamp_is_the_mean_of_the_rows_quantiles_for_any_blocks(
    kind, seed, n, widths, alike, rows
):
    widths = [widths[0]] * len(widths) if alike else widths
    layers = make(kind, seed, n, widths)
    got = clamp_bounds(blocks(layers, rows), "huh2024-approx")
    assert got == clamp_bounds(blocks(layers, n), "huh2024-approx")
    groups = [np.concatenate(layers, axis=1)] * len(layers) if len(set(widths)) == 1 else layers
    expected = [interpolated_bound(group) for group in groups]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-45)


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("order", ["random", "ascending"])
def test_long_rows_are_searched_among_their_largest_values(monkeypatch, kind, order):
    monkeypatch.setattr(quantile, "_LONG_ROW", 100)
    monkeypatch.setattr(quantile, "_ROW_SAMPLE", 40)
    (layer,) = make(kind, 3, 20, [999])
    if order == "ascending":  # the last of a row are the largest, and a sample misses some of them
        layer = np.sort(layer, axis=1)
    got = clamp_bounds(blocks([layer], 7), "huh2024-approx")
    np.testing.assert_allclose(got, [interpolated_bound(layer)], rtol=1e-6, atol=1e-45)


def test_a_long_row_whose_sample_misleads_is_searched_whole(monkeypatch):
    monkeypatch.setattr(quantile, "_LONG_ROW", 100)
    monkeypatch.setattr(quantile, "_ROW_SAMPLE", 100)
    layer = np.zeros((2, 1000), dtype=np.float32)
    layer[:, ::10] = 1 + np.arange(100)  # every value that is sampled, and no other
    assert clamp_bounds(blocks([layer], 2), "huh2024-approx") == (
        pytest.approx(np.quantile(layer[0].astype(float), 0.95)),
    )


def test_the_approximate_clamp_agrees_with_torch_as_the_published_code_calls_it():
    x = torch.randn(64, 3, 50, generator=torch.Generator().manual_seed(0))
    published = torch.quantile(x.abs().flatten(start_dim=1), 0.95, dim=1).mean()
    (got, *_) = clamp_bounds(lambda: [list(x.unbind(1))], "huh2024-approx")
    assert got == pytest.approx(published.item(), rel=1e-5)


def test_rows_are_clamped_and_then_normalized():
    x = np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32)
    bound = float(sorted_bound(x))
    clamped = np.clip(x, -np.float32(bound), np.float32(bound)).astype(np.float64)
    (got,) = prepare_layers([torch.from_numpy(x)], "huh2024", [bound])
    expected = clamped / np.linalg.norm(clamped, axis=1, keepdims=True)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1.2e-7)
    assert (prepare(torch.from_numpy(x), "huh2024", 0.0) == 0).all()


def test_a_bound_is_given_where_the_recipe_has_one_and_nowhere_else():
    x = torch.ones(2, 2)
    assert clamp_bounds(lambda: [[x]], "l2") is None
    with pytest.raises(ValueError, match="needs a bound"):
        prepare(x, "huh2024")
    with pytest.raises(ValueError, match="has no bound"):
        prepare(x, "l2", 1.0)
    with pytest.raises(StudyError, match="huh2024-approx"):
        clamp_bounds(lambda: [[x]], "huh")
