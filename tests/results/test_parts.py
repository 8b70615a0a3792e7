"""What is made of a result without computing: a part of it, two of them compared, other forms."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import polars as pl
import pytest

from platonic_ray.cli import main
from platonic_ray.errors import StudyError
from platonic_ray.results import LayerInfo, PairScores, Result
from platonic_ray.statistics import Interval


def pair(
    score: float, half: float | None = None, target: str = "population", fingerprint: str = "f"
) -> Result:
    interval = None if half is None else Interval(score - half, score + half, target, "halves")
    layers = [LayerInfo(name, 0, "last", width=4) for name in "ab"]
    pairs = [
        PairScores("cka", "a", "a", [[1.0]], n=9),
        PairScores("cka", "a", "b", [[score]], n=9, interval=interval),
    ]
    return Result.from_pairs(pairs, layers, {"dataset": {"fingerprint": fingerprint}})


def test_a_selection_keeps_models_and_metrics_and_leaves_q_alone(make):
    whole = make(["a", "b", "c", "d"])
    part = whole.select(models=["d", "a"])
    assert part.matrix().rows == ("a", "d")
    assert part.matrix().at("a", "d") == whole.matrix().at("a", "d")
    assert set(part.scores["model_x"]) | set(part.scores["model_y"]) == {"a", "d"}
    assert part.layers["model"].unique().sort().to_list() == ["a", "d"]
    assert "2 of 4 models; q is over all pairs" in part.summary()
    assert whole.select().equals(whole)
    assert whole.select(without=["a"]).matrix().rows == ("b", "c", "d")


def test_an_unknown_name_and_an_empty_selection_are_refused(make):
    whole = make(["alpha", "beta"])
    with pytest.raises(StudyError, match="Did you mean 'alpha'"):
        whole.select(models=["alfa"])
    with pytest.raises(StudyError, match="no metric 'cka' in this result"):
        whole.select(metrics=["cka"])
    with pytest.raises(StudyError, match="selection is empty"):
        whole.select(models=[])


def test_a_difference_has_the_interval_of_square_and_add():
    (row,) = pair(0.5, 0.03).compare(pair(0.3, 0.04, fingerprint="g")).to_dicts()
    assert row["difference"] == pytest.approx(0.2)
    assert (row["low"], row["high"]) == (pytest.approx(0.15), pytest.approx(0.25))  # 3, 4, 5
    assert not row["paired"]


def test_the_same_samples_are_said_and_what_is_missing_too():
    (row,) = pair(0.5, 0.03).compare(pair(0.3)).to_dicts()
    assert not row["paired"]
    assert row["low"] is None
    assert "the second result has no interval" in row["method"]
    (row,) = pair(0.5, 0.03).compare(pair(0.3, 0.1, target="queries")).to_dicts()
    assert row["method"] == "intervals for the population and for the queries"
    (row,) = pair(0.5, 0.03).compare(pair(0.3, 0.1)).to_dicts()
    assert "rather too wide" in row["method"]


def test_a_symmetric_pair_is_found_in_either_order(make):
    first, second = make(["a", "b", "c"]), make(["c", "b", "a"])
    rows = first.compare(second)
    assert rows.height == 3
    for row in rows.iter_rows(named=True):
        theirs = second.matrix().at(row["model_x"], row["model_y"])
        assert row["other"] == theirs or (math.isnan(row["other"]) and math.isnan(theirs))


def test_results_with_nothing_in_common_are_refused(make):
    with pytest.raises(StudyError, match="no metric and pair of models in common"):
        make(["a", "b"]).compare(make(["c", "d"]))


def test_the_command_prints_the_largest_difference_first(make, tmp_path, capsys):
    first, second = (
        make(["a", "b", "c"], seed=1).save(tmp_path / "1"),
        make(["a", "b", "c"], seed=2).save(tmp_path / "2"),
    )
    assert main(["compare", str(first), str(second), "--json"]) == 0
    sizes = [
        abs(row["difference"]) for row in json.loads(capsys.readouterr().out) if row["difference"] is not None
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 2  # the third is undefined
    assert main(["compare", str(first), str(second)]) == 0
    assert "has no interval" in capsys.readouterr().out


def test_pandas_gets_the_same_rows(make):
    result = make(["a", "b", "c"])
    frame = result.to_pandas()
    assert list(frame.columns) == result.models.columns
    assert frame["score"].tolist()[:2] == result.models["score"].to_list()[:2]


def test_a_notebook_shows_a_table_with_every_name_escaped(make, hostile):
    shown = make(hostile)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown.count("<tr>") == len(hostile) + 1
    many = make([f"m{at}" for at in range(20)])._repr_html_()
    assert "4 more models are not shown" in many
    assert "<td></td>" in shown  # undefined
    assert Result.from_pairs([], [])._repr_html_().startswith("<p>")


def test_the_provenance_of_a_selection_does_not_change_the_whole(make):
    whole = make(["a", "b", "c"])
    before = replace(whole)
    whole.select(models=["a", "b"])
    assert whole.equals(before)
    assert whole.models.filter(pl.col("score").is_nan()).height == 1
