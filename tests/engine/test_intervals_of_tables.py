"""Intervals as columns of a result."""

import math

import numpy as np
import pytest
import scipy.special

import platonic_ray as pr
from platonic_ray.errors import StudyError


def models(n=60):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 4))

    def model(layers, width):
        maps = rng.normal(size=(layers, 4, width))
        return np.stack([shared @ each + rng.normal(size=(n, width)) for each in maps], axis=1).astype("f4")

    return {"a": model(2, 8), "b": model(3, 6), "c": model(1, 5)}


@pytest.mark.parametrize("target", ["queries", "population"])
def test_a_table_has_the_interval_of_every_best_pair_of_layers(target):
    given = models()
    table = pr.table(given, metric=["mutual_knn", "cka"], k=5, permutations=0, intervals=target, level=0.9)
    for row in table.models.iter_rows(named=True):
        if row["model_x"] == row["model_y"] or (target, row["metric"]) == ("queries", "cka"):
            assert row["low"] is row["high"] is row["interval_target"] is row["interval_method"] is None
            continue
        x, y = (given[row[f"model_{side}"]][:, row[f"layer_{side}"]] for side in "xy")
        alone = pr.interval(x, y, row["metric"], k=5, target=target, level=0.9)
        assert (row["low"], row["high"]) == pytest.approx((alone.low, alone.high), rel=1e-5)
        assert row["interval_target"] == target
        assert row["low"] < row["score"] < row["high"]
        assert row["interval_method"] == f"{alone.method}; conditional on the layers chosen"
    assert table.provenance["intervals"] == {"target": target, "level": 0.9, "splits": 40, "seed": 0}


def test_without_being_asked_for_there_are_none():
    table = pr.table(models(), permutations=0, k=5)
    assert table.models["low"].null_count() == table.models.height
    assert table.provenance["intervals"] is None


def test_an_undefined_score_has_an_undefined_interval():
    given = {"a": models()["a"], "flat": np.ones((60, 4), "f4")}
    table = pr.table(given, metric="cka", permutations=0, intervals="population")
    (row,) = table.models.filter(table.models["model_x"] != table.models["model_y"]).to_dicts()
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    assert row["interval_target"] == "population"


def test_a_table_survives_being_saved(tmp_path):
    table = pr.table(models(), k=5, permutations=0, intervals="queries")
    assert pr.load(table.save(tmp_path / "result")).equals(table)


def test_differences_of_two_tables_are_paired_over_the_samples_that_they_share():
    """Their intervals are those of the differences of what both score on the same halves."""
    both = models()
    names = list(both)
    tables = [
        pr.table({"x": both[names[0]], "y": both[name]}, k=5, permutations=0, intervals="population")
        for name in names[1:]
    ]
    first, second = (table.models.filter(model_x="x", model_y="y").row(0, named=True) for table in tables)
    (row,) = tables[0].compare(tables[1], same_samples=True).to_dicts()
    halves = np.array(first["interval_halves"]) - np.array(second["interval_halves"])
    apart = halves[::2] - halves[1::2]
    error = np.sqrt(np.mean(apart**2) / 4)
    reach = scipy.special.stdtrit(len(apart), 0.975) * error
    assert (row["low"], row["high"]) == pytest.approx((row["difference"] - reach, row["difference"] + reach))
    assert row["paired"]
    assert "paired over samples" in row["method"]
    # Arrays carry no fingerprint: unless they are said to be of the same samples, nobody knows.
    (apart_row,) = tables[0].compare(tables[1]).to_dicts()
    assert not apart_row["paired"]
    assert "square and add" in apart_row["method"]
    (itself,) = tables[0].compare(tables[0], same_samples=True).to_dicts()
    assert itself["low"] == itself["high"] == 0
    # Intervals that were made otherwise are not those of the same cuts.
    other = pr.table(
        {"x": both[names[0]], "y": both[names[1]]}, k=5, permutations=0, intervals="population", level=0.9
    )
    assert not tables[0].compare(other, same_samples=True)["paired"].item()


def test_two_pairs_of_one_table_differ_by_what_two_tables_would_say():
    both = models()
    x, y, z = list(both)[:3]
    table = pr.table(both, k=5, permutations=0, intervals="population")
    (row,) = table.difference((x, y), (z, x)).to_dicts()
    assert row["paired"]
    assert (row["other_x"], row["other_y"]) == (z, x)
    assert row["difference"] == table.matrix().at(x, y) - table.matrix().at(x, z)
    assert row["low"] < row["difference"] < row["high"]
    with pytest.raises(StudyError, match="nobody"):
        table.difference((x, y), (x, "nobody"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"metric": ["cka"], "intervals": "queries"}, "no intervals for queries"),
        ({"intervals": "population", "k": 30}, "halves of the 60 samples"),
        ({"intervals": "rows"}, "target"),
        ({"intervals": "queries", "level": 2.0}, "level"),
    ],
)
def test_intervals_that_cannot_be_are_refused(asked, said):
    with pytest.raises(StudyError, match=said):
        pr.table(models(), permutations=0, **asked)


def test_the_interval_stands_beside_the_best_pair():
    table = pr.table(models(), k=5, permutations=0, intervals="population")
    pairs = table.models.filter(table.models["model_x"] != table.models["model_y"])
    best = pairs.row(pairs["score"].arg_max(), named=True)
    shown = f"{best['score']:.4f} [{best['low']:.4f}, {best['high']:.4f}] (population)"
    assert f"highest: {shown}" in table.summary()
    line = next(line for line in pr.results.render_table(table).splitlines() if line.startswith("highest"))
    assert f"[{best['low']:.4f}, {best['high']:.4f}] (population)" in line
    assert best["interval_method"] in line
    plain = pr.table(models(), k=5, permutations=0)
    assert "highest" not in pr.results.render_table(plain)
    assert "[" not in plain.summary()


@pytest.mark.parametrize("choose", ["all", "held-out"])
def test_intervals_of_a_table_can_be_of_groups(choose):
    rng = np.random.default_rng(4)
    x, y = (np.repeat(rng.normal(size=(40, 6)), 4, axis=0) for _ in range(2))
    labels = np.repeat(np.arange(40), 4)
    asked = {"k": 6, "permutations": 0, "intervals": "population", "choose_layers": choose}
    alone, grouped = (
        pr.table({"a": x}, {"b": y}, **asked, interval_groups=given) for given in (None, labels)
    )
    assert grouped.models["score"].equals(alone.models["score"])
    widths = [(table.models["high"] - table.models["low"])[0] for table in (alone, grouped)]
    assert widths[1] > widths[0]
    assert " groups" in grouped.models["interval_method"][0]
    if choose == "all":
        made = pr.interval(x, y, k=6, groups=labels)
        assert (grouped.models["low"][0], grouped.models["high"][0]) == (made.low, made.high)
    with pytest.raises(StudyError, match="interval_groups are for intervals"):
        pr.table({"a": x}, {"b": y}, interval_groups=labels)
