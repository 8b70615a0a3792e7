"""Layers chosen on one half of the samples and scored on the other."""

import numpy as np
import pytest

import platonic_ray as pr
from platonic_ray.errors import DataError, StudyError
from platonic_ray.metrics import get_metric
from platonic_ray.statistics.halves import cuts


def models(seed=0, n=61, layers=(3, 4), shared=1.0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 3))

    def model(count, width):
        maps = rng.normal(size=(count, 3, width)) * shared
        return np.stack([common @ each + rng.normal(size=(n, width)) for each in maps], 1).astype("f4")

    return {"a": model(layers[0], 8), "b": model(layers[1], 6)}


def halves(given, n=61):
    first = cuts(n, 1, seed=0)[0].numpy()
    return tuple({name: rows[half] for name, rows in given.items()} for half in (first, ~first))


def between(table):
    (row,) = table.models.filter(table.models["model_x"] != table.models["model_y"]).to_dicts()
    return row


@pytest.mark.parametrize("recipe", ["l2", "huh2024"])
@pytest.mark.parametrize("metric", ["mutual_knn", "rank_knn", "cka", "procrustes"])
def test_the_score_is_that_of_the_other_half_for_the_layers_the_first_half_chose(metric, recipe):
    given = models()
    first, second = halves(given)
    row = between(pr.table(given, metric=metric, k=5, recipe=recipe, choose_layers="held-out"))
    chose = between(pr.table(first, metric=metric, k=5, recipe=recipe))
    assert (row["layer_x"], row["layer_y"]) == (chose["layer_x"], chose["layer_y"])
    assert row["selection_score"] == pytest.approx(chose["score"], rel=1e-12)
    reported = pr.table(second, metric=metric, k=5, recipe=recipe).layers_matrix("a", "b", metric)
    assert row["score"] == pytest.approx(reported.values[row["layer_x"], row["layer_y"]], rel=1e-12)
    assert row["n"] == 31


def test_p_and_interval_are_those_of_two_single_layers_on_the_other_half():
    given = models()
    _, second = halves(given)
    how = {"k": 5, "intervals": "population", "permutations": 99}
    row = between(pr.table(given, choose_layers="held-out", **how))
    single = {name: second[name][:, row[f"layer_{side}"]] for name, side in (("a", "x"), ("b", "y"))}
    alone = between(pr.table(single, **how))
    assert row["p"] < 0.05
    for column in ("p", "null_threshold", "calibrated", "low", "high"):
        assert row[column] == pytest.approx(alone[column], rel=1e-12)
    assert row["interval_method"] == alone["interval_method"] + "; layers chosen on other samples"


def test_a_metric_of_whole_representations_reports_where_another_is_best_in_the_first_half():
    given, both = models(), ["mutual_knn", get_metric("procrustes", layers="best:mutual_knn")]
    first, second = halves(given)
    how = {"k": 5, "permutations": 0, "choose_layers": "held-out", "intervals": "population"}
    table = pr.table(given, metric=both, **how)
    chose = pr.table(first, metric=both, k=5, permutations=0)
    rows = {row["metric"]: row for row in table.models.to_dicts() if row["model_x"] != row["model_y"]}
    assert rows["procrustes"]["selection_score"] == pytest.approx(
        chose.matrix("procrustes").at("a", "b"), rel=1e-9
    )
    x, y = (second[name][:, rows["mutual_knn"][f"layer_{side}"]] for name, side in (("a", "x"), ("b", "y")))
    assert rows["procrustes"]["score"] == pytest.approx(pr.score(x, y, "procrustes"), rel=1e-9)


def test_a_table_over_all_layers_says_so_by_having_no_selection_score():
    table = pr.table(models(), k=5, permutations=0)
    assert table.models["selection_score"].null_count() == table.models.height
    assert table.provenance["layers"] == {"choose": "all"}


def test_the_result_says_how_its_layers_were_chosen(tmp_path):
    table = pr.table(models(), k=5, permutations=0, choose_layers="held-out")
    assert table.provenance["layers"] == {
        "choose": "held-out",
        "chosen_on": 30,
        "reported_on": 31,
        "seed": 0,
    }
    assert "layers were chosen on 30 of the samples" in table.summary()
    assert pr.load(table.save(tmp_path / "result")).equals(table)


def test_chance_is_not_exceeded_where_there_is_nothing_to_choose():
    best, held_out = [], []
    for seed in range(25):
        given = models(seed, layers=(5, 5), shared=0.0)
        best.append(between(pr.table(given, k=5, permutations=0))["score"] - 5 / 60)
        row = between(pr.table(given, k=5, permutations=0, choose_layers="held-out"))
        held_out.append(row["score"] - row["chance"])
    error = np.std(held_out, ddof=1) / 5
    assert abs(np.mean(held_out)) < 3.5 * error
    assert np.mean(best) > 5 * np.std(best, ddof=1) / 5


def test_where_no_layer_can_be_chosen_the_score_is_undefined():
    given = models()
    given["b"] = np.ones_like(given["b"])
    row = between(pr.table(given, metric="cka", choose_layers="held-out", intervals="population"))
    assert np.isnan([row["score"], row["selection_score"], row["low"]]).all()
    assert row["layer_x"] is None
    assert "constant" in row["status"]


def test_groups_go_with_their_samples():
    given, labels = models(), np.arange(61) % 7
    _, second = halves({**given, "labels": labels})
    row = between(pr.table(given, k=5, groups=labels, choose_layers="held-out", permutations=50))
    single = {name: second[name][:, row[f"layer_{side}"]] for name, side in (("a", "x"), ("b", "y"))}
    alone = between(pr.table(single, k=5, groups=second["labels"], permutations=50))
    assert (row["p"], row["null_threshold"]) == (alone["p"], alone["null_threshold"])


def test_what_cannot_be_is_refused():
    with pytest.raises(StudyError, match="halves of the 61 samples"):
        pr.table(models(), k=30, choose_layers="held-out")
    with pytest.raises(StudyError, match='"all" or "held-out"'):
        pr.table(models(), k=5, choose_layers="half")
    uneven = models()
    uneven["b"] = uneven["b"][:50]
    with pytest.raises(DataError, match="same samples"):
        pr.table(uneven, k=5, choose_layers="held-out")
