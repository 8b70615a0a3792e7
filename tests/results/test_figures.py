"""Every kind of picture: what it shows is what the result holds, and what it cannot show it says."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from matplotlib.text import Text
from scipy.stats import spearmanr
from test_report import NAMES, studied

from platonic_ray.cli import main
from platonic_ray.errors import StudyError
from platonic_ray.results import LayerInfo, PairScores, Result, draw, save_figure
from platonic_ray.results.capability import capability_frame
from platonic_ray.results.figures import KINDS
from platonic_ray.results.figures.scatter import rank_correlation, scaled
from platonic_ray.results.figures.style import canvas, direct_labels
from platonic_ray.results.order import cluster_order, order_of


@pytest.fixture(scope="module")
def result() -> Result:
    known = [
        {"model": name, "capability": capability, "value": value}
        for capability, values in (
            ("bits_per_byte", (1.1, 1.0, 0.9, 0.8)),
            ("parameters", (1e6, 1e7, 1e8, 1e9)),
        )
        for name, value in zip(NAMES[2:], values, strict=True)
    ]
    return replace(studied(), capability=capability_frame(known))


def sweep() -> Result:
    layers = [LayerInfo(name, 0, "last", width=4) for name in "abc"]
    return Result.from_pairs(
        [
            PairScores(f"mutual_knn(k={k})", x, y, [[0.01 * k]], n=100, k=k, chance=k / 99)
            for k in (5, 10, 20)
            for x, y in (("a", "b"), ("a", "c"), ("b", "c"))
        ],
        layers,
    )


@pytest.mark.parametrize("kind", [*KINDS])
def test_every_kind_is_drawn_and_saved_with_hostile_names_escaped(result, kind, tmp_path):
    figure = draw(sweep() if kind == "k-sweep" else result, kind)
    text = save_figure(figure, tmp_path / "figure.svg").read_text()
    ElementTree.fromstring(text)
    assert "<script>" not in text
    assert save_figure(figure, tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_a_layer_map_holds_the_scores_of_the_pair(result):
    figure = draw(result, "layers", pair=(NAMES[4], NAMES[2]))
    expected = result.layers_matrix(NAMES[4], NAMES[2]).values
    assert np.array_equal(figure.axes[0].images[0].get_array(), expected)
    (best,) = figure.axes[0].patches
    assert (best.get_y() + 0.5, best.get_x() + 0.5) == np.unravel_index(expected.argmax(), expected.shape)


def test_growth_has_a_log_axis_its_errors_and_chance(result):
    axes = draw(result, "growth").axes[0]
    assert axes.get_xscale() == "log"
    (bars,) = axes.containers
    assert bars.lines[0].get_xdata().tolist() == [125, 250, 500]
    assert bars.lines[2][0].get_segments()[0][:, 1].tolist() == pytest.approx([0.28, 0.32])
    assert "chance" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_alignment_against_capability_says_its_rank_correlation(result):
    axes = draw(result, "capability", against=NAMES[2]).axes[0]
    x, y = np.concatenate([points.get_offsets() for points in axes.collections]).T
    assert x.tolist() == [1.0, 0.9, 0.8]  # not the model that alignment is with
    assert y[1] == pytest.approx(result.matrix().at(NAMES[4], NAMES[2]))
    rho = spearmanr(x, y).statistic
    assert f"ρ = {rho:.2f}".replace("-", "−") in axes.get_title(loc="left")
    assert draw(result, "size").axes[0].get_xscale() == "log"


def test_a_rank_correlation_has_the_interval_of_bonett_and_wright():
    x = np.random.default_rng(0).normal(size=50)
    found = rank_correlation(x, x + np.random.default_rng(1).normal(size=50))
    assert found.rho == pytest.approx(spearmanr(x, x + np.random.default_rng(1).normal(size=50)).statistic)
    reach = 1.959964 * np.sqrt((1 + found.rho**2 / 2) / 47)
    assert np.arctanh([found.low, found.high]) == pytest.approx(
        np.arctanh(found.rho) + np.array([-reach, reach])
    )
    assert np.isnan(rank_correlation([1, 2], [2, 1]).rho)
    assert np.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).rho)


def test_names_beside_points_cover_no_other_and_stay_on_the_picture():
    figure, axes = canvas()
    random = np.random.default_rng(3)
    points = [
        (x, y, f"organization/model {at}") for at, (x, y) in enumerate(random.normal(size=(9, 2)) * 0.02)
    ]
    points.append((1.0, 1.0, "far to the right, where the axes end"))
    axes.scatter([x for x, _, _ in points], [y for _, y, _ in points])
    direct_labels(axes, points)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
    inside = axes.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)


def test_a_title_is_broken_where_the_picture_ends(result):
    named = replace(result, provenance=result.provenance | {"dataset": {"name": "a long name " * 9}})
    figure = draw(named, "layers")
    figure.draw_without_rendering()
    title = figure.axes[0].get_title(loc="left")
    (text,) = [text for text in figure.axes[0].findobj(Text) if text.get_text() == title]
    assert text.get_window_extent().x1 <= figure.bbox.x1


def test_floors_are_hollow_beside_trained_models(result):
    trained, floors = draw(result, "capability").axes[0].collections[:2]
    assert [len(some.get_offsets()) for some in (trained, floors)] == [3, 1]
    assert len(trained.get_facecolors()) == 1
    assert len(floors.get_facecolors()) == 0


def test_a_plane_keeps_distances_that_lie_in_one():
    places = np.random.default_rng(2).normal(size=(7, 2))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    found, kept = scaled(apart)
    assert np.linalg.norm(found[:, None] - found[None], axis=2) == pytest.approx(apart)
    assert kept == pytest.approx(1)


def test_the_map_of_metrics_is_that_of_their_rank_correlations(result):
    image = draw(result, "metrics").axes[0].images[0].get_array()
    pairs = [result.pairs(label).filter(pl.col("model_x") != pl.col("model_y")) for label in result.metrics]
    a, b = (frame.filter(pl.col("score").is_not_nan())["score"].to_numpy() for frame in pairs)
    assert draw(result, "metrics").axes[0].get_title(loc="left").endswith("n = 500")
    assert float(image[0, 1]) == pytest.approx(spearmanr(a, b).statistic)


def test_calibrated_scores_stand_against_raw_ones(result):
    axes = draw(result, "calibrated").axes[0]
    drawn = sum(len(points.get_offsets()) for points in axes.collections)
    assert drawn == 14  # fifteen pairs of different models, one undefined


def test_the_k_sweep_follows_a_pair_over_its_ks():
    axes = draw(sweep(), "k-sweep", pair=("b", "a")).axes[0]
    assert axes.lines[0].get_xdata().tolist() == [5, 10, 20]
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.05, 0.1, 0.2])
    assert axes.lines[1].get_ydata().tolist() == pytest.approx([5 / 99, 10 / 99, 20 / 99])
    assert "k = 5–20" in axes.get_title(loc="left")


def test_models_that_are_alike_stand_beside_each_other_and_families_together(result):
    layers = [LayerInfo(name, 0, "l", width=4) for name in "abcd"]
    alike = {("a", "c"): 0.9, ("b", "d"): 0.8}
    pairs = [
        PairScores("cka", x, y, [[alike.get((x, y), 0.1)]], n=9)
        for at, x in enumerate("abcd")
        for y in "abcd"[at + 1 :]
    ]
    order = "".join(cluster_order(Result.from_pairs(pairs, layers)))
    assert {"ac", "ca"} & {order[:2], order[2:]}
    assert order_of(result, None, "family") == [*NAMES[:3], *NAMES[3:]]
    figure = draw(Result.from_pairs(pairs, layers), "heatmap", order="clustering")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(order)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("growth", r"\[growth\] in a study"),
        ("k-sweep", "two or more k"),
        ("capability", "no capability"),
        ("size", "does not know how large its models are"),
        ("calibrated", "no null was made"),
        ("metrics", "at least two"),
        ("neighbors", "no examples"),
        ("pie", "there are: heatmap, layers"),
    ],
)
def test_what_a_result_does_not_hold_is_said_with_what_would_give_it(make, kind, message):
    with pytest.raises(StudyError, match=message):
        draw(make(["a", "b", "c"]), kind)


def test_names_that_are_not_in_the_result_are_named(result):
    with pytest.raises(StudyError, match="no model 'nobody' in this result; it has: "):
        draw(result, "capability", against="nobody")
    with pytest.raises(StudyError, match="no score of mutual_knn for a and nobody"):
        draw(sweep(), "k-sweep", pair=("a", "nobody"))


def test_the_command_saves_a_picture_and_refuses_a_metric_that_was_not_run(result, tmp_path, capsys):
    folder = result.save(tmp_path / "result")
    out = tmp_path / "map.png"
    assert (
        main(["figure", str(folder), "--kind", "layers", "--pair", NAMES[3], NAMES[4], "--out", str(out)])
        == 0
    )
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["figure", str(folder), "--metric", "rsa"]) == 2
    assert "'rsa' is not in this result; it has: mutual_knn, cka" in capsys.readouterr().err
    assert json.loads((folder / "result.json").read_text())["schema"]
