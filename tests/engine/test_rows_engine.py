"""The rows family in a run of a study: equal to features in memory, its states made once and again if lost."""

from pathlib import Path

import numpy as np
import pytest
from support import changed, dense_features, events_of, score_bytes, tie_digests

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.metrics import NOT_ASKED, get_metric, metrics, score_tables
from platonic_ray.store import Store

NAMES = [metric.name for metric in metrics() if metric.family == "rows"]


@pytest.fixture
def three_models(finished_study):
    """The small study of two networks and one of the floors, whose features are there."""
    return finished_study.replace(models=[finished_study.models[at].model_dump() for at in (0, 1, 3)])


def in_memory(study, chosen):
    features, digests = dense_features(study), tie_digests(study)
    return score_tables(features, metrics=chosen, digests=digests, recipe=study.recipe)


@pytest.mark.parametrize(
    ("layers", "recipe"), [("last", "huh2024"), ([0, -1], "l2"), ("best:mutual_knn", "huh2024")]
)
def test_scores_are_those_of_the_same_features_in_memory(three_models, layers, recipe):
    chosen = [get_metric("mutual_knn", k=7), *(get_metric(name, layers=layers) for name in NAMES)]
    chosen.append(get_metric("rsa", correlation="spearman", layers=layers, pairs=9000))
    study = three_models.replace(metrics=[metric.key for metric in chosen], recipe=recipe)
    result = pr.align(study, quiet=True)
    for table in in_memory(study, chosen):
        found = result.layers_matrix(table.x, table.y, table.metric.name).values
        np.testing.assert_array_equal(found, table.scores)
    kinds = [event["event"] for event in events_of(study)]
    assert kinds.count("RowState") == (0 if layers == "best:mutual_knn" else len(study.models))
    said = result.scores.filter(metric="procrustes", model_x="bert-en", model_y="bert-de")["status"]
    assert sum((text or "").startswith(NOT_ASKED) for text in said) == (12 if layers == [0, -1] else 15)


def test_two_metrics_of_one_state_share_it_and_all_layers_can_be_asked_for(three_models):
    chosen = [get_metric("procrustes", layers="all"), get_metric("angular_procrustes", layers="last")]
    study = three_models.replace(metrics=[metric.key for metric in chosen])
    result = pr.align(study, quiet=True)
    for table in in_memory(study, chosen):
        found = result.layers_matrix(table.x, table.y, table.metric.name).values
        np.testing.assert_array_equal(found, table.scores)
    assert result.layers_matrix("bert-en", "bert-de", "procrustes").values.shape == (4, 4)
    assert "angular_procrustes" in " ".join(result.provenance["notes"])
    of_cost = [note for note in result.provenance["notes"] if "full table" in note]
    assert "procrustes(layers=all)" not in " ".join(of_cost)


def test_a_shard_that_is_damaged_under_a_state_is_made_again(three_models):
    study = three_models.replace(metrics=["procrustes"])
    whole = pr.align(study, quiet=True)
    store = Store(study.run.store)
    for kind in ("results", "scores"):
        for path in (Path(study.run.store) / kind).rglob("manifest.json"):
            path.unlink()
    part = sorted((Path(store.uri) / "features").rglob("layer.0003-*.arrow"))[2]
    part.write_bytes(part.read_bytes()[:-100])
    again = pr.align(study, quiet=True)
    kinds = [event["event"] for event in events_of(study)]
    assert kinds.count("shard") == 1
    assert kinds.count("missing") == 1
    assert score_bytes(whole) == score_bytes(again)


def test_the_size_of_blocks_changes_no_byte_of_the_rows_family(three_models, tmp_path):
    study = three_models.replace(metrics=NAMES)
    one = pr.align(study, quiet=True)
    other = pr.align(changed(study, store=str(tmp_path / "other"), block_rows=1024), quiet=True)
    assert score_bytes(one) == score_bytes(other)


def test_best_layers_of_a_metric_that_the_study_lacks_are_refused_before_any_work(three_models):
    study = three_models.replace(metrics=["cka", {"name": "procrustes", "layers": "best:mutual_knn"}])
    with pytest.raises(StudyError, match="best:mutual_knn"):
        pr.align(study, quiet=True)
