"""The public verbs on arrays: what they accept, what they give back."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import platonic_ray as pr


@pytest.fixture
def rows():
    return np.random.default_rng(3).normal(size=(60, 12))


def test_arrays_come_back_as_arrays_and_tensors_as_tensors(rows):
    ids, similarities = pr.neighbors(rows, k=4)
    assert isinstance(ids, np.ndarray)
    assert (ids.dtype, ids.shape) == (np.int64, (60, 4))
    assert similarities.dtype == np.float32
    as_tensors = pr.neighbors(torch.tensor(rows), k=4)
    assert isinstance(as_tensors[0], torch.Tensor)
    np.testing.assert_array_equal(as_tensors[0].numpy(), ids)


def test_neighbors_are_those_of_a_dense_computation(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    ids, similarities = pr.neighbors(rows, k=5)
    np.testing.assert_array_equal(ids, np.argsort(-cosine, axis=1)[:, :5])
    np.testing.assert_allclose(similarities, -np.sort(-cosine, axis=1)[:, :5], rtol=1e-5)
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    ids, distances = pr.neighbors(rows, k=5, similarity="euclidean")
    np.testing.assert_array_equal(ids, np.argsort(distance, axis=1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(distance, axis=1)[:, :5], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_representation_agrees_with_itself_in_every_dtype(rows, dtype):
    x = torch.tensor(rows).to(dtype)
    assert pr.score(x, x) == 1.0
    assert pr.score(x, x, metric="cka") == pytest.approx(1.0, abs=1e-6)  # float32 products


def test_a_table_of_two_sides_has_no_scores_within_a_side(rows):
    result = pr.table({"a": rows, "b": rows[:, :5]}, {"c": rows[:, 3:]}, metric=["mutual_knn", "cka"])
    matrix = result.matrix("cka")
    assert (matrix.rows, matrix.columns) == (("a", "b"), ("c",))
    assert matrix.at("a", "c") == pytest.approx(pr.score(rows, rows[:, 3:], metric="cka"), abs=1e-6)


def test_one_name_for_two_representations_is_refused(rows):
    with pytest.raises(ValueError, match="'a'"):
        pr.table({"a": rows}, {"a": rows[:, :3]})


def test_the_best_layers_are_the_first_of_equal_ones(rows):
    layers = np.stack([rows, rows, rows[:, ::-1]], axis=1)
    best = pr.table({"a": layers, "b": rows}).models.filter(model_x="a", model_y="b")
    assert (best["layer_x"][0], best["layer_y"][0], best["score"][0]) == (0, 0, 1.0)


def test_a_constant_representation_is_nan_with_a_reason(rows):
    result = pr.table({"a": rows, "flat": np.ones((60, 3))}, metric="cka")
    row = result.models.filter(model_x="a", model_y="flat")
    assert np.isnan(row["score"][0])
    assert "constant" in row["status"][0]


def test_zero_rows_are_kept_and_flagged(rows):
    rows[7] = 0
    result = pr.table({"a": rows, "b": rows[:, :6]})
    assert "zero rows: 1 in x, 1 in y" in result.models.filter(model_x="a", model_y="b")["status"][0]


@pytest.mark.parametrize(("k", "message"), [(0, "at least 1"), (60, "k = 60"), (2.5, "whole number")])
def test_an_impossible_k_is_refused(rows, k, message):
    with pytest.raises(ValueError, match=message):
        pr.score(rows, rows, k=k)


def test_nothing_below_the_engine_needs_ray():
    """`score`, `neighbors` and `table` work where Ray cannot be imported at all."""
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "import numpy as np, platonic_ray as pr\n"
        "import platonic_ray.models, platonic_ray.store, platonic_ray.plan\n"
        "x = np.random.default_rng(0).normal(size=(30, 4))\n"
        "print(pr.score(x, x), pr.table({'a': x, 'b': x}).matrix().at('a', 'b'), pr.neighbors(x, 3)[0].shape)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["1.0", "1.0", "(30,", "3)"]


KINDS = {
    "random": lambda drawn, n, width: drawn.normal(size=(n, width)),
    "duplicated": lambda drawn, n, width: drawn.normal(size=(n, width))[drawn.integers(0, n // 2, n)],
    "constant": lambda drawn, n, width: np.tile(drawn.normal(size=width), (n, 1)),
    "anisotropic": lambda drawn, n, width: drawn.normal(size=(n, width)) + 10 * drawn.normal(size=width),
}


def dense_cosine(x):
    """Cosine similarities in float64 of what `l2` leaves as float32, the diagonal left out."""
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return unit, cosine


@given(st.sampled_from([*KINDS]), st.integers(0, 10**6), st.integers(8, 40), st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_neighbors_are_as_similar_as_the_nearest_of_a_dense_computation(kind, seed, n, width):
    x = KINDS[kind](np.random.default_rng(seed), n, width).astype(np.float32)
    ids, similarities = pr.neighbors(x, k=5)
    _, cosine = dense_cosine(x.astype(np.float64))
    # Which of equal rows are taken is the tie rule's; how similar they are is not.
    np.testing.assert_allclose(similarities, -np.sort(-cosine, axis=1)[:, :5], atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(cosine, ids, axis=1), similarities, atol=2e-6)
    assert all(len({row, *found}) == 6 for row, found in enumerate(ids.tolist()))


@given(
    st.sampled_from([*KINDS]),
    st.sampled_from([*KINDS]),
    st.integers(0, 10**6),
    st.integers(8, 40),
    st.integers(2, 30),
)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_a_dense_computation(kind_x, kind_y, seed, n, width):
    drawn = np.random.default_rng(seed)
    x, y = (KINDS[kind](drawn, n, width).astype(np.float32) for kind in (kind_x, kind_y))
    score = pr.score(x, y, metric="cka")
    if "constant" in (kind_x, kind_y):
        assert np.isnan(score)
    else:
        center = np.eye(n) - 1 / n
        k, l_ = (
            center @ unit @ unit.T @ center
            for unit in (dense_cosine(z.astype(np.float64))[0] for z in (x, y))
        )
        assert score == pytest.approx(
            (k * l_).sum() / np.sqrt((k * k).sum() * (l_ * l_).sum()), rel=1e-4, abs=1e-6
        )
    overlap = sum(
        len({*a} & {*b})
        for a, b in zip(pr.neighbors(x, k=5)[0].tolist(), pr.neighbors(y, k=5)[0].tolist(), strict=True)
    )
    assert pr.score(x, y, k=5) == pytest.approx(overlap / (5 * n), abs=1e-12)


def test_a_table_says_what_the_published_recipe_clamped_to(rows):
    sparse = np.eye(60)[:, :30]
    result = pr.table({"a": rows, "sparse": sparse}, recipe="huh2024", permutations=0)
    bound = np.sort(np.abs(rows.astype("f4")).ravel())[int(0.95 * rows.size)]
    assert result.provenance["clamp"] == {"a": [bound], "sparse": [0.0]}
    assert any("sparse: the recipe clamps layer 0 to 0" in note for note in result.provenance["notes"])
    assert result.layers["zero_rows"].to_list() == [0, 60]
    clipped = np.clip(rows, -bound, bound)
    assert result.matrix().at("a", "a") == 1
    assert pr.score(rows, rows[:, :4], recipe="huh2024") == pr.score(
        clipped, np.clip(rows[:, :4], *(np.array([-1, 1]) * _clamp(rows[:, :4])))
    )
    assert pr.table({"a": rows}, permutations=0).provenance["clamp"] is None


def _clamp(x):
    return np.sort(np.abs(x.astype("f4")).ravel())[int(0.95 * x.size)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pr.score(x, None), "model 'y' must be an array"),
        (lambda x: pr.score(x, 3.0), "given: float"),
        (lambda x: pr.table({"a": x, "b": {"layer": x}}), "model 'b' must be an array.*given: dict"),
        (lambda x: pr.table(x, x), "xs must map names of models to features.*ndarray"),
        (lambda x: pr.table({"a": x}, {}), "no models"),
        (lambda x: pr.table({"a": x}, metric=[]), "no metrics"),
        (lambda x: pr.interval(x, x, target="none"), 'target must be "population" or "queries"'),
        (lambda x: pr.neighbors(x, 2.5), "k must be a whole number"),
        (lambda x: pr.neighbors(x, True), "k must be a whole number"),
        (lambda x: pr.neighbors(x, 3, sizes=20), "sizes must be a list of whole numbers"),
    ],
)
def test_what_is_no_features_model_or_number_is_refused_by_name(rows, call, message):
    with pytest.raises(ValueError, match=message):
        call(rows)


def test_a_null_that_cannot_be_is_refused_before_scores_are_made(rows, monkeypatch):
    monkeypatch.setattr("platonic_ray.metrics.score_tables", lambda *_, **__: pytest.fail("work was spent"))
    for wrong in ({"null_metrics": ["cka"]}, {"k": 60}, {"intervals": "population", "k": 30}):
        with pytest.raises(ValueError, match=r"null\.metrics|k = "):
            pr.table({"a": rows, "b": rows[:, :3]}, **wrong)


def test_numpy_numbers_are_numbers(rows):
    assert pr.score(rows, rows[:, :3], k=np.int64(5)) == pr.score(rows, rows[:, :3], k=5)
    assert (pr.neighbors(rows, np.int32(5))[0] == pr.neighbors(rows, 5)[0]).all()
    assert pr.score(rows, rows[:, :3], "cka", kernel="rbf", sigma=np.float64(2)) == pr.score(
        rows, rows[:, :3], "cka", kernel="rbf", sigma=2.0
    )


def test_a_study_may_be_a_dictionary_of_the_file_s_shape(tiny_study):
    as_dictionary = pr.align(tiny_study.model_dump(mode="json"), quiet=True)
    assert as_dictionary.models.equals(pr.align(tiny_study, quiet=True).models)
    with pytest.raises(pr.PlatonicRayError, match="models"):
        pr.align({"name": "nothing"})
