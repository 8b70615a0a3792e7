"""The heat map: it renders at every size, and says what it must."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from platonic_ray.errors import StoreError, StudyError
from platonic_ray.results import LayerInfo, PairScores, Result, heatmap, save_figure
from platonic_ray.results.figures.style import readable_on


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        t.get_text() for t in figure.texts
    ]


@pytest.mark.parametrize("models", [1, 2, 12, 40])
def test_it_renders_and_no_text_is_cut_off(make, tmp_path, models):
    figure = heatmap(make([f"organisation/model-{at:02d}-base" for at in range(models)]))
    path = save_figure(figure, tmp_path / "map.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= width
    assert box.y1 <= height


def test_the_title_and_the_scale_say_what_the_numbers_rest_on(make):
    figure = heatmap(make(["a", "b", "c"]))
    assert "mutual_knn" in texts(figure)
    assert "emoji · n = 1,024 · k = 10 · chance 0.0098" in texts(figure)
    assert "0.0098 chance" in [label.get_text() for label in figure.axes[1].get_yticklabels()]


def test_cells_hold_values_and_layers_only_where_there_is_room(make):
    assert "0, 0" in texts(heatmap(make([f"m{at}" for at in range(6)], depths=(1,))))
    sixteen = texts(heatmap(make([f"m{at}" for at in range(16)], depths=(1,))))
    assert "0, 0" not in sixteen
    assert "undef." in sixteen
    assert len(texts(heatmap(make([f"m{at}" for at in range(30)], depths=(1,))))) == 3


def test_layers_are_turned_round_below_the_diagonal():
    layers = [LayerInfo(name, at, f"l{at}", width=4) for name in "abc" for at in range(3)]
    scores = np.zeros((3, 3))
    scores[0, 2] = 0.5
    pairs = [PairScores("cka", x, y, scores, n=9) for x, y in (("a", "b"), ("a", "c"), ("b", "c"))]
    figure = heatmap(Result.from_pairs(pairs, layers))
    shown = {(t.get_position()[0], round(t.get_position()[1])): t.get_text() for t in figure.axes[0].texts}
    assert shown[1, 0] == "0, 2"
    assert shown[0, 1] == "2, 0"


def test_the_diagonal_does_not_stretch_the_scale(make):
    result = make(["a", "b", "c"])
    assert heatmap(result).axes[1].get_ylim()[1] == max(
        score for score in result.models["score"] if score < 1
    )


def test_floors_are_set_apart_by_name_or_by_the_provenance(make):
    result = make(["a", "b", "c"])
    for figure, expected in ((heatmap(result), {"c"}), (heatmap(result, floors=["a"]), {"a"})):
        labels = figure.axes[0].get_yticklabels()
        assert {label.get_text() for label in labels if label.get_fontstyle() == "italic"} == expected
    assert not any("floors" in text for text in texts(heatmap(result, floors=[])))


@pytest.mark.parametrize("score", [np.nan, -0.5, 0.0, np.inf])
def test_any_score_can_be_drawn(score, tmp_path):
    layers = [LayerInfo(name, 0, "l", width=4) for name in "ab"]
    pairs = [PairScores("cka", x, y, [[score]], n=9) for x, y in (("a", "a"), ("a", "b"), ("b", "b"))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(heatmap(Result.from_pairs(pairs, layers)), tmp_path / "map.png")


def test_hostile_names_are_drawn_as_they_are(make, hostile, tmp_path):
    figure = heatmap(make(hostile))
    for kind in ("png", "svg", "pdf"):
        save_figure(figure, tmp_path / f"map.{kind}")
    assert "<script>" not in (tmp_path / "map.svg").read_text()


def test_no_global_state_of_matplotlib_is_touched(make):
    import matplotlib

    before = dict(matplotlib.rcParams)
    heatmap(make(["a", "b"]))
    assert dict(matplotlib.rcParams) == before


def test_saving_twice_makes_the_same_file(make, tmp_path):
    for kind in ("png", "pdf"):
        first = save_figure(heatmap(make(["a", "b"])), tmp_path / f"1.{kind}").read_bytes()
        assert save_figure(heatmap(make(["a", "b"])), tmp_path / f"2.{kind}").read_bytes() == first


def test_a_format_that_does_not_exist_and_a_place_that_cannot_be_written_are_errors(make, tmp_path):
    figure = heatmap(make(["a", "b"]))
    with pytest.raises(StudyError, match=r"end the name in one of: .*png"):
        save_figure(figure, tmp_path / "map.xyz")
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StoreError, match="cannot be saved"):
        save_figure(figure, tmp_path / "taken" / "map.png")


def test_text_is_white_on_dark_and_dark_on_light():
    assert readable_on("black") == "white"
    assert readable_on("white") == "black"
