"""The table itself: maxima, layers, transposes, labels."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.errors import StudyError
from platonic_ray.results import LayerInfo, Matrix, PairScores, Result, heatmap, load_result, render_table
from platonic_ray.statistics import Calibration


def layers_of(**depths: int) -> list[LayerInfo]:
    return [LayerInfo(name, at, f"l{at}", width=4) for name, depth in depths.items() for at in range(depth)]


def one_pair(scores, status=None, **more) -> Result:
    rows, columns = np.shape(scores)
    pair = PairScores("cka", "a", "b", scores, status, n=50, **more)
    return Result.from_pairs([pair], layers_of(a=rows, b=columns))


def test_equal_scores_go_to_the_first_layer_pair():
    row = one_pair([[0.1, 0.7], [0.7, 0.7]]).models.row(0, named=True)
    assert (row["score"], row["layer_x"], row["layer_y"]) == (0.7, 0, 1)
    assert (row["layer_x_name"], row["layer_y_name"]) == ("l0", "l1")


def test_a_pair_of_negative_scores_reports_its_true_maximum():
    row = one_pair([[-0.5, -0.2], [-0.9, -0.3]]).models.row(0, named=True)
    assert (row["score"], row["layer_x"], row["layer_y"]) == (-0.2, 0, 1)


def test_minus_infinity_beside_nan_is_a_score():
    row = one_pair([[np.nan, -np.inf]]).models.row(0, named=True)
    assert (row["score"], row["layer_y"]) == (-np.inf, 1)


def test_a_pair_that_is_nowhere_defined_is_nan_without_layers_and_says_why():
    reasons = [["constant representation", None]]
    result = one_pair([[np.nan, np.nan]], reasons)
    row = result.models.row(0, named=True)
    assert np.isnan(row["score"])
    assert [row[key] for key in ("layer_x", "layer_y", "layer_x_name", "layer_y_name")] == [None] * 4
    assert (row["model_x"], row["model_y"]) == ("a", "b")
    assert row["status"] == "constant representation, undefined"
    assert result.scores["status"].to_list() == ["constant representation", "undefined"]


def test_a_partly_undefined_pair_says_how_much_is_missing():
    result = one_pair([[np.nan, 0.5]], [["constant representation", "a zero row"]])
    assert result.models["score"].item() == 0.5
    assert (
        result.models["status"].item() == "a zero row; 1 of 2 layer pairs undefined: constant representation"
    )


def test_a_defined_pair_has_no_status_and_k_and_chance_may_be_unknown():
    row = one_pair([[0.5]]).models.row(0, named=True)
    assert (row["status"], row["k"], row["chance"], row["n"]) == (None, None, None, 50)


def test_the_matrix_of_a_symmetric_metric_fills_both_triangles(make):
    result = make(["a", "b", "c"])
    values = np.asarray(result.matrix("mutual_knn"))
    assert np.array_equal(values, values.T, equal_nan=True)
    assert np.isnan(values[1, 2])
    assert values.dtype == np.float64
    assert (np.diag(values) == 1).all()


def test_a_metric_that_is_not_symmetric_keeps_the_order_of_its_arguments():
    pairs = [
        PairScores("cycle_knn", x, y, [[score]], n=9, symmetric=False)
        for x, y, score in (("a", "a", 1.0), ("a", "b", 0.2), ("b", "a", 0.4), ("b", "b", 1.0))
    ]
    result = Result.from_pairs(pairs, layers_of(a=1, b=1))
    assert result.matrix().values.tolist() == [[1.0, 0.2], [0.4, 1.0]]
    assert result.layers_matrix("b", "a").values.tolist() == [[0.4]]


def test_the_order_that_was_not_computed_is_refused_where_order_matters():
    pair = PairScores("cycle_knn", "a", "b", [[0.5]], n=9, symmetric=False)
    result = Result.from_pairs([pair], layers_of(a=1, b=1))
    with pytest.raises(StudyError, match="not symmetric"):
        result.layers_matrix("b", "a")


def test_a_cross_table_has_xs_down_and_ys_across(make):
    result = make(["a", "b", "c", "d", "e"], cross=2)
    matrix = result.matrix()
    assert (matrix.rows, matrix.columns) == (("a", "b"), ("c", "d", "e"))
    assert matrix.at("a", "d") == result.models.row(1, named=True)["score"]
    assert np.isnan(matrix.at("b", "e"))


def test_a_model_on_both_sides_of_a_cross_table_stays_in_its_place():
    pairs = [
        PairScores("cka", x, y, [[0.5]], n=9) for x, y in (("a", "a"), ("a", "c"), ("b", "a"), ("b", "c"))
    ]
    matrix = Result.from_pairs(pairs, layers_of(a=1, b=1, c=1)).matrix()
    assert (matrix.rows, matrix.columns) == (("a", "b"), ("a", "c"))
    assert not np.isnan(matrix.values).any()


def test_pairs_without_the_diagonal_still_make_a_square_table():
    pairs = [PairScores("cka", x, y, [[0.5]], n=9) for x, y in (("a", "b"), ("c", "a"), ("b", "c"))]
    matrix = Result.from_pairs(pairs, layers_of(a=1, b=1, c=1)).matrix()
    assert matrix.rows == matrix.columns == ("a", "b", "c")
    assert np.array_equal(np.isnan(matrix.values), np.eye(3, dtype=bool))


def test_the_layer_table_of_a_pair_is_transposed_when_asked_the_other_way_round(make):
    result = make(["a", "b", "c"])
    there, back = result.layers_matrix("a", "c"), result.layers_matrix("c", "a")
    assert there.shape == (3, 5)
    assert np.array_equal(there.values.T, back.values)
    assert (there.rows, there.columns) == (back.columns, back.rows)
    assert there.at("block.2", "block.4") == there.values[2, 4]


def test_layers_may_be_any_depths_of_a_model():
    layers = [LayerInfo("a", depth, f"block.{depth}", width=4) for depth in (0, 6, 12)]
    result = Result.from_pairs([PairScores("cka", "a", "a", np.diag([0.2, 0.3, 0.9]), n=9)], layers)
    assert result.models.select("layer_x", "layer_x_name").row(0) == (12, "block.12")


def test_a_layer_used_at_two_ks_is_one_layer():
    layers = [LayerInfo("a", 0, "last", 4, k=k, tied_share=share) for k, share in ((5, 0.1), (10, 0.2))]
    pairs = [PairScores(f"mutual_knn[k={k}]", "a", "a", [[1.0]], n=99, k=k) for k in (5, 10)]
    result = Result.from_pairs(pairs, layers)
    assert result.metrics == ("mutual_knn[k=5]", "mutual_knn[k=10]")
    assert result.layers.height == 2
    assert result.scores.height == 2


def test_pairs_may_arrive_in_any_order(make):
    layers = layers_of(a=2, b=1, c=3)
    random = np.random.default_rng(0)
    depth = {"a": 2, "b": 1, "c": 3}
    pairs = [
        PairScores("cka", x, y, random.random((depth[x], depth[y])), n=9)
        for x, y in (("a", "a"), ("a", "b"), ("a", "c"), ("b", "b"), ("b", "c"), ("c", "c"))
    ]
    assert Result.from_pairs(pairs, layers).equals(Result.from_pairs(pairs[::-1], layers))


def test_an_unknown_metric_lists_those_there_are(make):
    result = make(["a", "b"])
    for ask in (result.matrix, result.pairs, result.facts, lambda name: result.layers_matrix("a", "b", name)):
        with pytest.raises(StudyError, match=r"'ckka' is not in this result; it has: mutual_knn"):
            ask("ckka")


def test_an_unknown_model_lists_those_there_are(make):
    with pytest.raises(StudyError, match="among: a, b"):
        make(["a", "b"]).layers_matrix("a", "z")
    with pytest.raises(StudyError, match="it has: a, b"):
        make(["a", "b"]).matrix().at("a", "z")


def test_an_empty_result_says_so():
    with pytest.raises(StudyError, match="empty"):
        Result.from_pairs([], []).matrix()


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([PairScores("cka", "a", "z", [[1.0]])], "no layers are listed"),
        ([PairScores("cka", "a", "b", [[1.0, 2.0]])], "shape"),
        ([PairScores("cka", "a", "b", [[1.0]], status=["x", "y"])], "status"),
        ([PairScores("cka", "a", "b", [[1.0]]), PairScores("cka", "b", "a", [[1.0]])], "twice"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(pairs, said):
    with pytest.raises(StudyError, match=said):
        Result.from_pairs(pairs, layers_of(a=1, b=1))


def test_a_result_cannot_be_changed_and_can_be_pickled(make):
    result = make(["a", "b", "c"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.scores = pl.DataFrame()
    with pytest.raises(ValueError, match="read-only"):
        result.matrix().values[0, 0] = 2
    assert pickle.loads(pickle.dumps(result)).equals(result)


def test_a_frame_of_another_shape_is_refused(make):
    result = make(["a", "b"])
    with pytest.raises(StudyError, match="'models' has the columns"):
        Result(result.scores, result.scores, result.layers)


def test_a_matrix_becomes_a_frame_whatever_its_columns_are_called():
    frame = Matrix("cka", ("a",), ("model", "b"), np.array([[0.5, np.nan]])).to_polars()
    assert frame.columns == ["model_", "model", "b"]
    assert frame.row(0)[:2] == ("a", 0.5)


def test_a_matrix_is_an_array():
    matrix = Matrix("cka", ("a",), ("b",), np.array([[0.5]]))
    assert np.asarray(matrix, dtype=np.float32).dtype == np.float32
    assert np.array(matrix, copy=True).flags.writeable
    assert "0.5000" in repr(matrix)


def test_the_summary_names_the_extremes_and_what_to_be_aware_of(make):
    result = make(["a", "b", "c", "d"])
    text = result.summary()
    for said in (
        "emoji: 4 models",
        "n = 1,024 · k = 10 · chance 0.0098",
        "highest: 0.4",
        "undefined: 1 of 6 model pairs",
        "dropped samples: 1",
        "all zero: a, c, d",
        "a smaller batch was used",
    ):
        assert said in text
    assert repr(result) == "<Result: 4 models, mutual_knn, 94 scores>"


scores_with_holes = st.lists(
    st.sampled_from([float("nan"), -1.0, -0.25, -0.0, 0.0, 0.25, 0.25, 1.0]), min_size=12, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(scores_with_holes, min_size=3, max_size=3),
    shape=st.sampled_from([(3, 4), (12, 1), (2, 6)]),
)
def test_the_models_are_a_brute_force_maximum_over_the_scores(cells, shape):
    rows, columns = shape
    names = ["a", "b", "c"]
    layers = [*layers_of(**dict.fromkeys(names, rows)), *layers_of(z=columns)]
    pairs = [PairScores("m", x, "z", np.reshape(c, shape), n=9) for x, c in zip(names, cells, strict=True)]
    result = Result.from_pairs(pairs, layers)
    for row in result.models.iter_rows(named=True):
        best = (float("nan"), None, None)
        for cell in result.scores.filter(pl.col("model_x") == row["model_x"]).iter_rows(named=True):
            if cell["score"] == cell["score"] and not cell["score"] <= best[0]:
                best = (cell["score"], cell["layer_x"], cell["layer_y"])
        assert (row["layer_x"], row["layer_y"]) == best[1:]
        assert row["score"] == best[0] or np.isnan([row["score"], best[0]]).all()


class TestNull:
    def table(self, p: dict[tuple[str, str], float | None], metric: str = "mutual_knn") -> list[PairScores]:
        return [
            PairScores(metric, x, y, [[0.5]], null=None if value is None else Calibration(value, 0.2, 0.375))
            for (x, y), value in p.items()
        ]

    def test_q_is_over_the_pairs_of_different_models_of_one_metric(self):
        p = {("a", "b"): 0.01, ("a", "c"): 0.02, ("b", "c"): 0.6, ("a", "a"): None}
        others = {("a", "b"): 0.01, ("a", "c"): float("nan")}
        result = Result.from_pairs(
            [*self.table(p), *self.table(others, "other"), *self.table({("a", "b"): None}, "cka")],
            layers_of(a=1, b=1, c=1),
        )
        shown = result.pairs("mutual_knn").select("model_x", "model_y", "p", "q").rows()
        assert shown == [
            ("a", "a", None, None),
            ("a", "b", 0.01, 0.03),
            ("a", "c", 0.02, 0.03),
            ("b", "c", 0.6, 0.6),
        ]
        assert result.pairs("other")["q"][0] == 0.01
        assert np.isnan(result.pairs("other")["q"][1])
        row = result.pairs("cka").row(0, named=True)
        assert [row[name] for name in ("null_threshold", "calibrated", "p", "q")] == [None] * 4
        assert result.pairs("other").row(0, named=True)["null_threshold"] == 0.2

    def test_a_saved_result_keeps_them(self, tmp_path):
        result = Result.from_pairs(self.table({("a", "b"): 0.25}), layers_of(a=1, b=1))
        assert load_result(result.save(tmp_path / "r")).equals(result)

    @pytest.mark.parametrize(("alpha", "marked"), [(None, 1), (0.3, 0), (0.02, 3)])
    def test_what_is_not_significant_is_marked(self, alpha, marked):
        p = {("a", "b"): 0.01, ("a", "c"): 0.02, ("b", "c"): 0.2}
        provenance = {} if alpha is None else {"null": {"alpha": alpha}}
        result = Result.from_pairs(self.table(p), layers_of(a=1, b=1, c=1), provenance)
        text = render_table(result, width=100)
        assert text.count("(0,0)·") == marked
        assert ("not significant" in text) == (marked > 0)
        figure = heatmap(result)
        # Both triangles are drawn.
        assert len(figure.axes[0].lines) == 2 * marked
        assert any("not significant" in note.get_text() for note in figure.texts) == (marked > 0)
