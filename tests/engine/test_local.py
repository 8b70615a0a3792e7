"""A run in this process: what it computes, what it reuses, what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from support import changed, dense_features, events_of, score_bytes

import platonic_ray as pr
from platonic_ray.digest import digest
from platonic_ray.errors import DataError, StudyError
from platonic_ray.metrics import get_metric, score_tables
from platonic_ray.store import Store


def test_scores_equal_those_of_features_in_memory(small_study):
    result = pr.align(small_study, quiet=True)
    features = dense_features(small_study)
    for pair in score_tables(features, metrics=["cka", "unbiased_cka"]):
        table = result.layers_matrix(pair.x, pair.y, pair.metric.name).values
        np.testing.assert_array_equal(table, pair.scores)
    # Ties are broken by other digests in a study than for arrays; without ties nothing differs.
    untied = {name: features[name] for name in ("bert-en", "bert-de")}
    assert result.layers.filter(model="pixels")["tied_share"][0] < 0.1
    for pair in score_tables(untied, metrics=[pr.metrics.get_metric("mutual_knn", k=7)]):
        table = result.layers_matrix(pair.x, pair.y, "mutual_knn").values
        assert np.abs(table - pair.scores).max() < 0.05


KNN = ["mutual_knn", "cycle_knn", "lcs_knn", "edit_distance_knn", "jaccard_knn", "rank_knn"]


@pytest.mark.parametrize("block_rows", [256, 512])
def test_neighbor_metrics_are_those_of_the_same_neighbors_in_memory(small_study, block_rows):
    from platonic_ray.engine.prepare import prepare

    metrics = [get_metric(name, k=7) for name in KNN] + [get_metric("lcs_knn", k=3, normalized=False)]
    study = changed(small_study, block_rows=block_rows)
    study = study.replace(metrics=[metric.key for metric in metrics])
    result = pr.align(study, quiet=True)
    plan = prepare(study, Store.open(study.run.store)).context.plan
    features = dense_features(study)
    digests = {
        model.name: [digest([model.tie_digest, layer]) for layer in range(len(features[model.name]))]
        for model in plan.models
    }
    tables = score_tables(features, metrics=metrics, digests=digests)
    assert sum(table.metric.name == "cycle_knn" for table in tables) == len(features) * (len(features) - 1)
    for table in tables:
        name = table.metric.label if table.metric.name == "lcs_knn" else table.metric.name
        np.testing.assert_array_equal(result.layers_matrix(table.x, table.y, name).values, table.scores)
    forth, back = (
        result.layers_matrix(*pair, "cycle_knn").values
        for pair in (("bert-en", "bert-de"), ("bert-de", "bert-en"))
    )
    assert not np.array_equal(forth, back.T)


@pytest.mark.parametrize("block_rows", [512, 1024])
def test_the_size_of_blocks_changes_no_byte(small_study, tmp_path, block_rows):
    one = pr.align(small_study, quiet=True)
    other = pr.align(changed(small_study, store=str(tmp_path / "other"), block_rows=block_rows), quiet=True)
    assert score_bytes(one) == score_bytes(other)


def test_a_finished_study_computes_nothing_when_it_is_run_again(small_study, capsys):
    first = pr.align(small_study, quiet=True)
    again = pr.align(small_study)
    assert "nothing was computed" in capsys.readouterr().err
    assert score_bytes(first) == score_bytes(again)
    assert len(Store(small_study.run.store).runs()) == 1


def test_an_added_model_computes_itself_and_its_pairs_alone(small_study):
    three = small_study.replace(models=[model.model_dump() for model in small_study.models[:3]])
    pr.align(three, quiet=True)
    result = pr.align(small_study, quiet=True)
    events = events_of(small_study)
    embedded = {event["task"].split("[")[1].split(",")[0] for event in events if event["event"] == "shard"}
    tiled = {
        event["task"].split("[")[1].split(",")[0] for event in events if event["event"] == "NeighborTile"
    }
    assert embedded == tiled == {"pixels"}
    alone = pr.align(changed(small_study, store=small_study.run.store + "-alone"), quiet=True)
    assert score_bytes(result) == score_bytes(alone)


def test_renaming_a_model_embeds_nothing(small_study):
    pr.align(small_study, quiet=True)
    models = [model.model_dump() for model in small_study.models]
    models[0]["name"] = "renamed / <b>, עברית"
    result = pr.align(small_study.replace(models=models), quiet=True)
    assert not [
        event for event in events_of(small_study) if event["event"] in ("shard", "NeighborTile", "KernelTile")
    ]
    assert "renamed / <b>, עברית" in result.matrix("cka").rows


def test_a_damaged_shard_is_made_again(small_study):
    whole = pr.align(small_study, quiet=True)
    store = Path(small_study.run.store)
    for folder in ("results", "neighbors", "kernels"):
        for manifest in (store / folder).rglob("manifest.json"):
            manifest.unlink()
    shard = sorted((store / "features").rglob("layer.0001-*.arrow"))[3]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    again = pr.align(small_study, quiet=True)
    made = [event for event in events_of(small_study) if event["event"] == "shard"]
    assert len(made) == 1
    assert score_bytes(whole) == score_bytes(again)


def test_a_damaged_neighbor_block_and_damaged_sums_are_made_again(small_study):
    whole = pr.align(small_study, quiet=True)
    store = Path(small_study.run.store)
    for manifest in (store / "results").rglob("manifest.json"):
        manifest.unlink()
    for kind in ("neighbors", "kernels"):
        part = sorted((store / kind).rglob("*.arrow"))[1]
        part.write_bytes(part.read_bytes()[:-200])
    again = pr.align(small_study, quiet=True)
    assert score_bytes(whole) == score_bytes(again)
    events = [event["event"] for event in events_of(small_study)]
    assert "shard" not in events
    assert events.count("KernelTile") == 1


def test_the_first_layer_is_the_embedding_and_all_layers_are_there(small_study):
    result = pr.align(small_study, quiet=True)
    bert = result.layers.filter(model="bert-en")
    assert bert["layer_name"][0] == "embedding"
    assert bert.height == 4
    features = dense_features(small_study)["bert-en"]
    assert [layer.shape for layer in features] == [(600, 32)] * 4


def test_features_in_the_store_are_the_models_own(small_study):
    from platonic_ray.datasets import open_dataset
    from platonic_ray.models import load, resolve

    pr.align(small_study, quiet=True)
    entry = small_study.models[0]
    model = load(resolve(entry))
    dataset = open_dataset(small_study.dataset, small_study.seed)
    expected = model.embed(dataset.read("en", 0, 64)).layers
    stored = dense_features(small_study)["bert-en"]
    for layer, rows in enumerate(expected):
        np.testing.assert_allclose(stored[layer][:64], rows, atol=1e-6)


class TestBadInput:
    def test_k_of_all_samples_is_refused_before_any_work(self, small_study):
        study = small_study.replace(metrics=[{"name": "mutual_knn", "k": 600}])
        with pytest.raises(StudyError, match="k = 600"):
            pr.align(study, quiet=True)
        assert not (Path(study.run.store) / "features").exists()

    def test_a_view_that_does_not_exist_is_named(self, small_study):
        with pytest.raises(StudyError, match="'fr'"):
            pr.align(with_model(small_study, view="fr"), quiet=True)

    def test_a_text_model_on_images_is_refused(self, small_study):
        with pytest.raises(StudyError, match="reads text"):
            pr.align(with_model(small_study, view="image"), quiet=True)

    def test_an_unknown_metric_is_named_with_the_nearest(self, small_study):
        with pytest.raises(StudyError, match="mutual_knn"):
            pr.align(small_study.replace(metrics=[{"name": "mutual_kn"}]), quiet=True)

    def test_a_metric_given_twice_is_refused(self, small_study):
        with pytest.raises(StudyError, match="twice"):
            pr.align(small_study.replace(metrics=["cka", "cka"]), quiet=True)

    def test_block_rows_off_the_grid_are_refused(self, small_study):
        with pytest.raises(StudyError, match="power of two"):
            pr.align(changed(small_study, block_rows=300), quiet=True)

    def test_a_model_that_gives_nan_is_named_with_layer_and_sample(self, small_study, tmp_path):
        from conftest import write_broken_bert

        study = with_model(small_study, weights=str(write_broken_bert(tmp_path / "broken")))
        with pytest.raises(DataError, match=r"'bert-en'.*layer.*'s\d+'"):
            pr.align(study, quiet=True)


def with_model(study, **changes):
    first, *others = [model.model_dump() for model in study.models]
    return study.replace(models=[first | changes, *others])
