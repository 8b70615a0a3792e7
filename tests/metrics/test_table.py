import weakref
from functools import partial

import numpy as np
import pytest
import torch

from platonic_ray.errors import DataError, StudyError
from platonic_ray.metrics import best, get_metric, rows_digest, score, score_tables

drawn = np.random.default_rng(0)
BASE = drawn.normal(size=(60, 12))
MODELS = {
    "small": [BASE[:, :4], BASE[:, 2:9]],
    "wide": [BASE + drawn.normal(size=BASE.shape), np.tile(BASE, 2), drawn.normal(size=(60, 3))],
    "one": BASE[:, ::-1].copy(),
}


def test_every_cell_of_a_table_is_the_score_of_its_two_layers() -> None:
    metrics = [
        get_metric("mutual_knn", k=5),
        get_metric("mutual_knn", k=9),
        get_metric("cka", precision="float64"),
        get_metric("unbiased_cka", precision="float64"),
    ]
    tables = score_tables(MODELS, metrics=metrics)
    assert [(table.x, table.y) for table in tables[::4]] == [
        ("small", "wide"),
        ("small", "one"),
        ("wide", "one"),
    ]
    for table in tables:
        left, right = ([MODELS[m]] if m == "one" else MODELS[m] for m in (table.x, table.y))
        assert table.scores.shape == (len(left), len(right))
        for i, x in enumerate(left):
            for j, y in enumerate(right):
                assert table.scores[i, j] == pytest.approx(score(x, y, table.metric), abs=1e-12)


def test_two_sides_may_use_the_same_name_for_different_models() -> None:
    (table,) = score_tables({"m": MODELS["small"]}, {"m": MODELS["one"]}, ["cka"])
    assert (table.x, table.y) == ("m", "m")
    assert table.scores[1, 0] == pytest.approx(score(MODELS["small"][1], MODELS["one"], "cka"))


def test_only_the_pairs_asked_for_are_scored() -> None:
    tables = score_tables(MODELS, metrics=["cka", "mutual_knn"], pairs=[("one", "small"), ("one", "one")])
    assert [(t.x, t.y, t.metric.name) for t in tables] == [
        ("one", "small", "cka"),
        ("one", "small", "mutual_knn"),
        ("one", "one", "cka"),
        ("one", "one", "mutual_knn"),
    ]
    assert tables[3].scores.tolist() == [[1.0]]
    with pytest.raises(StudyError, match="no model 'two'; known: small, wide, one"):
        score_tables(MODELS, pairs=[("one", "two")])


def test_models_that_are_made_when_their_turn_comes_are_made_once_and_let_go() -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def make(name: str) -> list[torch.Tensor]:
        assert not any(earlier() is not None for earlier in made)
        layers = MODELS[name] if isinstance(MODELS[name], list) else [MODELS[name]]
        rows = [torch.from_numpy(layer.astype("f4")) for layer in layers]
        made.extend(weakref.ref(layer) for layer in rows)
        return rows

    names = ["mutual_knn", "cycle_knn", "lcs_knn"]
    lazily = score_tables({name: partial(make, name) for name in MODELS}, metrics=names)
    assert len(made) == 6
    for got, expected in zip(lazily, score_tables(MODELS, metrics=names), strict=True):
        assert np.array_equal(got.scores, expected.scores)
    with pytest.raises(DataError, match="same samples"):
        score_tables({"a": lambda: BASE, "b": lambda: BASE[:-1]})


def test_sets_of_neighbors_score_as_lists_in_order_do() -> None:
    tied = {name: np.round(np.asarray(model)) for name, model in {"a": BASE, "b": BASE[:, :5]}.items()}
    for models in (MODELS, tied):
        both = score_tables(models, metrics=["mutual_knn", "lcs_knn"])
        alone = score_tables(models, metrics=["mutual_knn"])
        for got, expected in zip(alone, both[::2], strict=True):
            assert np.array_equal(got.scores, expected.scores)


def test_a_stack_of_one_width_may_come_as_one_array() -> None:
    stack = np.stack([BASE, BASE * 2 + 1], axis=1)
    (got,) = score_tables({"m": stack}, {"o": MODELS["one"]}, ["cka"])
    (expected,) = score_tables({"m": [BASE, BASE * 2 + 1]}, {"o": MODELS["one"]}, ["cka"])
    assert np.array_equal(got.scores, expected.scores)


def test_numpy_and_torch_and_float64_give_the_same_scores() -> None:
    x, y = BASE, MODELS["wide"][0]
    expected = score(x, y, k=4)
    assert score(torch.from_numpy(x), torch.from_numpy(y).float(), k=4) == expected
    assert score(x.astype("f4"), y, k=4) == expected
    assert score(x, y, get_metric("mutual_knn"), k=4) == expected


def test_the_best_of_a_table_is_its_first_maximum_and_nan_is_passed_over() -> None:
    nan = np.nan
    assert best(np.array([[nan, 0.5], [0.7, 0.7]])) == (0.7, 1, 0)
    assert best(np.array([[-0.3, nan], [-0.2, -0.4]])) == (-0.2, 1, 0)
    assert best(np.array([[0.3, nan], [0.2, 0.2]]), "distance") == (0.2, 1, 0)
    value, i, j = best(np.full((2, 2), nan))
    assert np.isnan(value)
    assert (i, j) == (-1, -1)


def test_the_digest_of_a_representation_is_that_of_its_shape_and_rows() -> None:
    rows = torch.arange(6, dtype=torch.float32)
    assert rows_digest(rows.reshape(2, 3)) == rows_digest(rows.reshape(2, 3).clone())
    assert (
        len(
            {
                rows_digest(rows.reshape(2, 3)),
                rows_digest(rows.reshape(3, 2)),
                rows_digest(-rows.reshape(2, 3)),
            }
        )
        == 3
    )


def test_given_digests_seed_the_ties() -> None:
    flat = {"a": np.ones((40, 2)), "b": np.ones((40, 3))}
    knn = [get_metric("mutual_knn", k=5)]
    (alike,) = score_tables(flat, metrics=knn, digests={"a": ["1" * 64], "b": ["1" * 64]})
    (apart,) = score_tables(flat, metrics=knn, digests={"a": ["1" * 64], "b": ["2" * 64]})
    assert alike.scores[0, 0] == 1
    assert apart.scores[0, 0] < 0.6


def test_features_that_cannot_be_scored_are_named() -> None:
    bad = BASE.copy()
    bad[7, 2] = np.nan
    with pytest.raises(DataError, match="model 'm', layer 1: 1 of 60 rows"):
        score_tables({"m": [BASE, bad]}, {"o": BASE})
    with pytest.raises(DataError, match="same samples"):
        score(BASE, BASE[:-1])
    with pytest.raises(DataError, match="no layers"):
        score_tables({"m": []}, {"o": BASE})
    with pytest.raises(DataError, match="row 0"):
        score(BASE * 1e300, BASE)
    with pytest.raises(StudyError, match="k ≤ 59"):
        score(BASE, BASE, k=60)
    with pytest.raises(StudyError, match="recipe"):
        score(BASE, BASE, recipe="magic")


def clamped_rows(layers: list[np.ndarray], bound: float) -> list[np.ndarray]:
    clipped = [np.clip(layer.astype("f4"), -np.float32(bound), np.float32(bound)) for layer in layers]
    return [layer / np.linalg.norm(layer.astype("f8"), axis=1, keepdims=True) for layer in clipped]


def test_the_published_recipe_clamps_all_layers_of_one_width_alike_and_then_normalizes() -> None:
    stack = np.random.default_rng(3).standard_t(3, size=(60, 2, 9)) * [[[1.0], [4.0]]]
    bound = np.sort(np.abs(stack.astype("f4")).ravel())[int(0.95 * stack.size)]
    clamps: dict = {}
    got = score_tables(
        {"m": stack, "o": BASE}, metrics=["cka", "mutual_knn"], recipe="huh2024", clamps=clamps
    )
    of_base = np.sort(np.abs(BASE.astype("f4")).ravel())[int(0.95 * BASE.size)]
    assert clamps == {("x", "m"): (bound, bound), ("x", "o"): (of_base,)}
    rows = clamped_rows([stack[:, 0], stack[:, 1]], bound), clamped_rows([BASE], of_base)
    expected = score_tables(dict(zip("mo", rows, strict=True)), metrics=["cka", "mutual_knn"], recipe="none")
    for mine, plain in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine.scores, plain.scores, rtol=1e-6)


def test_features_that_the_clamp_leaves_nothing_of_are_flagged() -> None:
    sparse = np.eye(60)[:, :40]
    (table,) = score_tables({"m": sparse, "o": BASE}, metrics=["cka"], recipe="huh2024")
    assert np.isnan(table.scores[0, 0])
    assert "zero rows: 60 in x" in (table.status[0][0] or "")
