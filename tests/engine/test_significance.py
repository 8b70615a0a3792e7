"""The null in a run: where it is computed, what it changes, and that it is the one of permuted features."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support import dense_features, events_of, score_bytes

import platonic_ray as pr
from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.significance import null_of
from platonic_ray.errors import DataError, StudyError
from platonic_ray.kernels import MOST_PERMUTED
from platonic_ray.metrics import get_metric, score_tables
from platonic_ray.statistics import benjamini_hochberg, rotations
from platonic_ray.store import Store
from platonic_ray.study import NullEntry

COLUMNS = ["null_threshold", "calibrated", "p", "q"]


def test_the_null_of_a_table_is_that_of_permuted_features():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 2, 5, generator=generator), torch.randn(60, 3, 7, generator=generator)
    y[:, 1, :2] += 0.6 * x[:, 0, :2]
    result = pr.table({"x": x}, {"y": y}, k=4, permutations=39, alpha=0.1)
    row = result.models.row(0, named=True)
    nulls = []
    for perm in rotations(60, 39, seed=0).permutations():
        (pair,) = score_tables({"x": x}, {"y": y[perm]}, [pr.metrics.get_metric("mutual_knn", k=4)])
        nulls.append(pair.scores.max())
    assert row["p"] == row["q"] == (1 + sum(null >= row["score"] for null in nulls)) / 40
    threshold = sorted([row["score"], *nulls])[36 - 1]
    assert row["null_threshold"] == threshold
    assert row["calibrated"] == pytest.approx(max((row["score"] - threshold) / (1 - threshold), 0))
    assert result.provenance["null"] == {
        "counts": {"mutual_knn(k=4)": 39},
        "alpha": 0.1,
        "seed": 0,
        "groups": None,
    }


def test_models_that_share_what_they_see_are_significant_and_others_not():
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(size=(100, 4)), rng.normal(size=(100, 4))
    result = pr.table({"a": seen, "b": seen @ rng.normal(size=(4, 30)), "c": unseen}, k=5)
    q = dict(
        zip(
            zip(result.models["model_x"], result.models["model_y"], strict=True),
            result.models["q"],
            strict=True,
        )
    )
    assert q["a", "b"] == 3 / 201
    assert min(q["a", "c"], q["b", "c"]) > 0.05
    assert q["a", "a"] is None
    assert "·" in pr.results.render_table(result)


@pytest.mark.parametrize("metric", ["cka", "unbiased_cka", "distance_correlation", "rsa"])
def test_the_null_of_kernels_is_that_of_permuted_features(metric):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 2, 5, generator=generator), torch.randn(60, 3, 7, generator=generator)
    y[:, 1, :2] += 0.5 * x[:, 0, :2]
    row = pr.table({"x": x}, {"y": y}, metric=metric, permutations=39, alpha=0.1).models.row(0, named=True)
    nulls = []
    for perm in rotations(60, 39, seed=0).permutations():
        (pair,) = score_tables({"x": x}, {"y": y[perm]}, [get_metric(metric)])
        nulls.append(pair.scores.max())
    assert row["p"] == (1 + sum(null >= row["score"] for null in nulls)) / 40
    assert row["null_threshold"] == pytest.approx(sorted([row["score"], *nulls])[36 - 1], abs=1e-6)


def test_a_kernel_null_of_too_many_samples_is_not_made_and_said_so():
    chosen = [get_metric("cka"), get_metric("mutual_knn")]
    drawn, (note,) = null_of(NullEntry(), chosen, 3, MOST_PERMUTED + 1, 0)
    assert list(drawn.counts) == ["mutual_knn(k=10)"]
    assert note.startswith(f"{chosen[0].label}: no null; permuted kernels are held for up to 8192 samples")
    with pytest.raises(StudyError, match="cka has no null by permutation for more than 8192 samples"):
        null_of(NullEntry(metrics=("cka",)), chosen, 3, MOST_PERMUTED + 1, 0)


def test_too_few_permutations_are_noted_and_none_are_none():
    rng = np.random.default_rng(0)
    models = {name: rng.normal(size=(30, 3)) for name in "abcd"}
    few = pr.table(models, k=3, permutations=10)
    assert "10 permutations are few for 6 pairs" in few.provenance["notes"][0]
    none = pr.table(models, k=3, permutations=0)
    assert none.provenance["notes"] == []
    assert all(none.models[name].is_null().all() for name in COLUMNS)
    assert few.scores.equals(none.scores)
    with pytest.raises(StudyError, match="permutations"):
        pr.table(models, k=3, permutations=-1)


def test_a_study_sets_its_scores_against_their_null(finished_study):
    result = pr.align(finished_study, quiet=True)
    assert result.pairs("cycle_knn").height == 4 + 2 * 6  # both orders, each with its own null
    for metric in ("cycle_knn", "rank_knn", "cka", "unbiased_cka"):
        rows = result.pairs(metric)
        assert (rows["p"].is_null() == (rows["model_x"] == rows["model_y"])).all()
    models = result.pairs("mutual_knn")
    itself = models.filter(model_x=models["model_y"])
    assert itself.height == 4
    assert all(itself[name].is_null().all() for name in COLUMNS)
    pairs = models.remove(model_x=models["model_y"])
    assert pairs.height == 6
    np.testing.assert_array_equal(pairs["q"], benjamini_hochberg(pairs["p"]))
    assert ((pairs["p"] <= 0.05) == (pairs["score"] > pairs["null_threshold"])).all()
    # Both read the same words, each with its own random embedding of them.
    assert pairs.filter(model_x="bert-en", model_y="tfidf")["p"].item() == 1 / 20
    assert set(result.provenance["null"]["counts"].values()) == {19}
    assert len(result.provenance["null"]["counts"]) == 5

    # What is in memory has the same null of kernels, to the last bit.
    features = {
        name: [torch.from_numpy(layer) for layer in stack]
        for name, stack in dense_features(finished_study).items()
    }
    table = pr.table(features, metric=["cka", "unbiased_cka"], permutations=19)
    for metric in ("cka", "unbiased_cka"):
        for name in ("score", *COLUMNS):
            assert table.pairs(metric)[name].equals(result.pairs(metric)[name], null_equal=True)


def test_permuted_kernels_that_are_lost_are_made_again(finished_study):
    study = finished_study.replace(metrics=[{"name": "unbiased_cka"}], null={"permutations": 30})
    first = pr.align(study, quiet=True)
    plan = prepare(study, Store(study.run.store)).context.plan
    (part,) = plan.permuted
    store = Store(study.run.store)
    key = plan.permuted_key(part, 0, 2)
    assert store.manifest("permuted", key) is not None
    store.discard("permuted", key)
    store.discard("results", prepare(study, store).key)
    for key in store.keys("scores"):
        store.discard("scores", key)
    assert score_bytes(pr.align(study, quiet=True)) == score_bytes(first)
    assert [event["event"] for event in events_of(study)].count("PermutedKernel") == 1


def test_another_null_is_another_result_of_the_same_scores(finished_study):
    finished_study = finished_study.replace(metrics=[{"name": "mutual_knn", "k": 7}])
    first = pr.align(finished_study.replace(null={"permutations": 0}), quiet=True)
    assert first.provenance["null"] is None
    other = pr.align(finished_study.replace(null={"permutations": 30, "alpha": 0.2}), quiet=True)
    assert other.provenance["null"]["counts"]["mutual_knn(k=7)"] == 30
    assert first.scores.equals(other.scores)
    assert score_bytes(first) != score_bytes(other)


def test_a_null_is_made_for_the_metrics_that_are_named():
    rng = np.random.default_rng(0)
    models = {name: rng.normal(size=(30, 3)) for name in "ab"}
    chosen = [get_metric("mutual_knn", k=3), get_metric("rank_knn", k=3)]
    drawn, notes = null_of(NullEntry(metrics=("rank_knn",)), chosen, 1, 30, 0)
    assert drawn.counts == {"rank_knn(k=3)": 200}
    assert notes == ()
    with pytest.raises(StudyError, match=r"'cka' is none of the metrics asked for \(mutual_knn, rank_knn\)"):
        null_of(NullEntry(metrics=("cka",)), chosen, 1, 30, 0)
    both = pr.table(models, metric=["mutual_knn", "rank_knn"], k=3, permutations="auto")
    assert both.models["p"].is_null().to_list() == 2 * [True, False, True]


def test_metrics_with_dear_nulls_say_when_theirs_cannot_reach_significance():
    chosen = [get_metric("mutual_knn"), get_metric("rank_knn"), get_metric("lcs_knn")]
    drawn, (note,) = null_of(NullEntry(), chosen, 66, 30, 0)
    assert list(drawn.counts.values()) == [1320, 200, 200]
    assert note.startswith("rank_knn(k=10), lcs_knn(k=10, normalized=True): 200 permutations are few")


def test_groups_are_a_column_of_the_dataset_and_part_of_what_was_asked(small_study, tmp_path):
    table = pq.read_table(small_study.dataset.source)
    groups = [len(word.split()[0]) for word in table["en"].to_pylist()]
    path = tmp_path / "grouped.parquet"
    pq.write_table(table.append_column("group", pa.array(groups, pa.int8())), path)
    study = small_study.replace(
        dataset={"source": str(path)}, metrics=[{"name": "mutual_knn", "k": 7}], null={"permutations": 19}
    )
    free = prepare(study, Store(study.run.store))
    grouped = prepare(study.replace(null={"permutations": 19, "groups": "group"}), Store(study.run.store))
    assert grouped.key != free.key
    assert grouped.context.plan.models == free.context.plan.models
    assert grouped.context.null.groups.labels.unique().numel() == len(set(groups))
    assert "group" in grouped.context.null.summary()["groups"]["name"]
    with pytest.raises(StudyError, match=r"no column of labels 'grup'.*Did you mean 'group'"):
        prepare(study.replace(null={"groups": "grup"}), Store(study.run.store))
    few = study.replace(dataset={"source": str(path), "samples": 8}, null={"groups": "en"})
    with pytest.raises(StudyError, match="alone in its group"):
        prepare(few, Store(study.run.store))


def test_what_groups_explain_is_not_significant_within_them():
    rng = np.random.default_rng(0)
    groups = np.repeat(["u", "v", "w", "x"], 15)
    models = {
        name: (8 * rng.normal(size=(4, 6)))[np.unique(groups, return_inverse=True)[1]]
        + rng.normal(size=(60, 6))
        for name in "abcd"
    }
    free = pr.table(models, k=5)
    within = pr.table(models, k=5, groups=groups)
    assert free.scores.equals(within.scores)
    assert free.models["q"].drop_nulls().max() <= 0.05
    assert within.models["p"].drop_nulls().min() > 0.01
    with pytest.raises(DataError, match="one label for each of 60 samples"):
        pr.table(models, k=5, groups=groups[1:])
