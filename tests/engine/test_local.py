"""A run in this process: what it computes, what it reuses, what it refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support import (
    changed,
    committed,
    dense_features,
    events_of,
    make_tiny_study,
    score_bytes,
    tie_digests,
    write_broken_bert,
)

import platonic_ray as pr
from platonic_ray.datasets import open_dataset
from platonic_ray.engine.assemble import labels_of
from platonic_ray.engine.checked import checked
from platonic_ray.engine.embedding import ModelRunner
from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.work import perform
from platonic_ray.errors import DataError, StudyError
from platonic_ray.metrics import get_metric, score_tables
from platonic_ray.plan import KernelTile
from platonic_ray.store import Store
from platonic_ray.study import DatasetEntry


def test_scores_equal_those_of_features_in_memory(finished_study):
    result = pr.align(finished_study, quiet=True)
    features = dense_features(finished_study)
    for pair in score_tables(features, metrics=["cka", "unbiased_cka"]):
        table = result.layers_matrix(pair.x, pair.y, pair.metric.name).values
        np.testing.assert_array_equal(table, pair.scores)


def test_kernel_tiles_in_pieces_are_the_same_bytes(tiny_study):
    """What a task does that ran out of memory: a few pairs of models at a time."""
    store = Store.open(tiny_study.run.store)
    plan = prepare(tiny_study, store).context.plan
    pr.align(tiny_study, quiet=True)
    before = {key: store.manifest("kernels", key).parts for key in store.keys("kernels")}
    for key in before:
        store.discard("kernels", key)
    context = dataclasses.replace(prepare(tiny_study, store).context, pieces=1)
    for task in plan.prerequisites:
        if isinstance(task, KernelTile):
            perform(context, task, {})
    assert {key: store.manifest("kernels", key).parts for key in store.keys("kernels")} == before
    assert len(before) == 3  # the pairs of two models: one at a time


def test_metrics_of_every_kernel_are_those_of_features_in_memory_and_a_lost_scale_is_made_again(small_study):
    metrics = [
        get_metric("cka", kernel="rbf"),
        get_metric("unbiased_cka", kernel="rbf", median=0.5),
        get_metric("cka", kernel="rbf", sigma=1.0),
        get_metric("unbiased_cka", precision="float64"),
        get_metric("distance_correlation"),
        get_metric("rsa"),
        get_metric("rsa", dissimilarity="cosine", precision="float64"),
    ]
    study = small_study.replace(
        dataset={**small_study.dataset.model_dump(), "samples": 300},
        models=[model.model_dump() for model in small_study.models[::3]],
        metrics=[metric.key for metric in metrics],
    )
    result = pr.align(study, quiet=True)
    names = labels_of(metrics)
    for pair in score_tables(dense_features(study), metrics=metrics):
        table = result.layers_matrix(pair.x, pair.y, names[metrics.index(pair.metric)]).values
        np.testing.assert_array_equal(table, pair.scores)
    made = [event["event"] for event in events_of(study)]
    assert made.count("Scale") == 2  # one a model, for both multiples of the median
    store = Path(study.run.store)
    for folder in ("results", "scores", "kernels"):
        for manifest in (store / folder).rglob("manifest.json"):
            manifest.unlink()
    part = next((store / "scales").rglob("*.arrow"))
    part.write_bytes(part.read_bytes()[:-100])
    assert score_bytes(pr.align(study, quiet=True)) == score_bytes(result)
    assert [event["event"] for event in events_of(study)].count("Scale") == 1


KNN = ["mutual_knn", "cycle_knn", "lcs_knn", "edit_distance_knn", "jaccard_knn", "rank_knn"]
KNN += ["cknna", "cknna_paper"]


@pytest.mark.parametrize("block_rows", [256, 512])
def test_neighbor_metrics_are_those_of_the_same_neighbors_in_memory(finished_study, block_rows):
    metrics = [get_metric(name, k=7) for name in KNN] + [get_metric("lcs_knn", k=3, normalized=False)]
    study = changed(finished_study, block_rows=block_rows)
    study = study.replace(metrics=[metric.key for metric in metrics], null={"permutations": 0})
    result = pr.align(study, quiet=True)
    features = dense_features(study)
    tables = score_tables(features, metrics=metrics, digests=tie_digests(study))
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
def test_the_size_of_blocks_changes_no_byte(finished_study, tmp_path, block_rows):
    one = pr.align(finished_study, quiet=True)
    other = pr.align(
        changed(finished_study, store=str(tmp_path / "other"), block_rows=block_rows), quiet=True
    )
    assert score_bytes(one) == score_bytes(other)


def test_a_finished_study_computes_nothing_when_it_is_run_again(small_study, capsys):
    first = pr.align(small_study, quiet=True)
    again = pr.align(small_study)
    assert "nothing was computed" in capsys.readouterr().err
    assert score_bytes(first) == score_bytes(again)
    assert len(Store(small_study.run.store).runs()) == 1


def test_a_damaged_shard_is_made_again(finished_study):
    whole = pr.align(finished_study, quiet=True)
    store = Path(finished_study.run.store)
    for folder in ("results", "scores", "neighbors", "kernels"):
        for manifest in (store / folder).rglob("manifest.json"):
            manifest.unlink()
    shard = sorted((store / "features").rglob("layer.0001-*.arrow"))[3]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    again = pr.align(finished_study, quiet=True)
    made = [event for event in events_of(finished_study) if event["event"] == "shard"]
    assert len(made) == 1
    assert score_bytes(whole) == score_bytes(again)


def test_a_damaged_neighbor_block_and_damaged_sums_are_made_again(finished_study):
    whole = pr.align(finished_study, quiet=True)
    store = Path(finished_study.run.store)
    for folder in ("results", "scores"):
        for manifest in (store / folder).rglob("manifest.json"):
            manifest.unlink()
    for kind in ("neighbors", "kernels"):
        part = sorted((store / kind).rglob("*.arrow"))[1]
        part.write_bytes(part.read_bytes()[:-200])
    again = pr.align(finished_study, quiet=True)
    assert score_bytes(whole) == score_bytes(again)
    events = [event["event"] for event in events_of(finished_study)]
    assert "shard" not in events
    assert events.count("KernelTile") == 1


def test_the_first_layer_is_the_embedding_and_all_layers_are_there(finished_study):
    result = pr.align(finished_study, quiet=True)
    bert = result.layers.filter(model="bert-en")
    assert bert["layer_name"][0] == "embedding"
    assert bert.height == 4
    features = dense_features(finished_study)["bert-en"]
    assert [layer.shape for layer in features] == [(600, 32)] * 4


def test_features_in_the_store_are_the_models_own(finished_study):
    from platonic_ray.datasets import open_dataset
    from platonic_ray.models import load, resolve

    pr.align(finished_study, quiet=True)
    entry = finished_study.models[0]
    model = load(resolve(entry))
    dataset = open_dataset(finished_study.dataset, finished_study.seed)
    expected = model.embed(dataset.read("en", 0, 64)).layers
    stored = dense_features(finished_study)["bert-en"]
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
        study = with_model(small_study, weights=str(write_broken_bert(tmp_path / "broken")))
        with pytest.raises(DataError, match=r"'bert-en'.*layer.*'s\d+'"):
            pr.align(study, quiet=True)


def with_model(study, **changes):
    first, *others = [model.model_dump() for model in study.models]
    return study.replace(models=[first | changes, *others])


class TestBadSamples:
    @pytest.fixture
    def spoiled(self, small_study, samples, tmp_path):
        """The study on samples of which three are bad: an empty text, a missing one, a broken image."""
        table = pq.read_table(samples)
        text, image = table["en"].to_pylist(), table["image"].to_pylist()
        text[3], text[70], image[401] = "  ", None, image[401][:40]
        table = table.set_column(1, "en", pa.array(text)).set_column(3, "image", pa.array(image, pa.binary()))
        pq.write_table(table, tmp_path / "spoiled.parquet")
        return small_study.replace(dataset={"source": str(tmp_path / "spoiled.parquet")})

    def test_they_are_refused_before_a_model_runs_all_of_them_listed(self, spoiled):
        with pytest.raises(DataError) as caught:
            pr.align(spoiled, quiet=True)
        assert all(f"s{row}" in str(caught.value) for row in (3, 70, 401))
        assert 'on_bad_sample = "drop"' in str(caught.value)
        assert not (Path(spoiled.run.store) / "features").exists()

    def test_they_are_dropped_in_every_view_where_that_is_asked_for(self, spoiled):
        dropping = spoiled.replace(
            dataset={**spoiled.dataset.model_dump(), "on_bad_sample": "drop"},
            models=[model.model_dump() for model in spoiled.models if model.use is not None],
            metrics=["cka"],
            null={"permutations": 0},
        )
        result = pr.align(dropping, quiet=True)
        assert result.models["n"].unique().to_list() == [597]
        assert result.provenance["dataset"]["dropped"] == [3, 70, 401]

    @pytest.mark.parametrize("on_bad_sample", ["refuse", "drop"])
    def test_what_was_found_is_kept_and_nothing_is_decoded_again(self, spoiled, monkeypatch, on_bad_sample):
        study = spoiled.replace(dataset={**spoiled.dataset.model_dump(), "on_bad_sample": on_bad_sample})
        store = Store.open(study.run.store)

        def found():
            try:
                return prepare(study, store).dropped
            except DataError as error:
                return str(error)

        first = found()
        monkeypatch.setattr("platonic_ray.datasets.base.fault_of", lambda *_: pytest.fail("decoded again"))
        assert found() == first
        assert "s401" in first if on_bad_sample == "refuse" else first == (3, 70, 401)


def write_pictures(folder: Path, count: int) -> Path:
    """Write a folder of images that a table beside them describes."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 8), (20 * number, 40, 90)).save(folder / f"{number}.png")
    described = [{"file_name": f"{number}.png", "caption": f"picture {number}"} for number in range(count)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, described)))
    return folder


def test_a_file_that_cannot_be_read_once_is_no_bad_sample_for_ever(tmp_path):
    pictures = write_pictures(tmp_path / "pictures", 3)
    store = Store.open(str(tmp_path / "store"))
    views = ["image"]

    opened = open_dataset(DatasetEntry(source=str(pictures)), 0)
    opened.fingerprint(views)  # while all is there
    (pictures / "1.png").rename(tmp_path / "away")
    assert checked(opened, views, "drop", store)[1] == (1,)
    (tmp_path / "away").rename(pictures / "1.png")
    assert checked(open_dataset(DatasetEntry(source=str(pictures)), 0), views, "drop", store)[1] == ()


def test_a_seeded_draw_takes_that_many_samples(small_study):
    drawn = small_study.replace(dataset={**small_study.dataset.model_dump(), "samples": 100})
    one, two = pr.align(drawn, quiet=True), pr.align(drawn.replace(seed=1), quiet=True)
    assert one.models["n"].unique().to_list() == [100]
    assert not one.scores["score"].equals(two.scores["score"])


def test_the_seed_of_ties_enters_the_keys_of_neighbors(finished_study):
    pr.align(finished_study, quiet=True)
    before = committed(finished_study, "neighbors"), committed(finished_study, "features")
    pr.align(finished_study.replace(seed=5), quiet=True)
    assert committed(finished_study, "features") == before[1]
    assert len(committed(finished_study, "neighbors")) == 2 * len(before[0])


def test_one_model_under_two_names_agrees_with_itself_and_survives_an_interruption(small_study):
    twin = small_study.models[0].model_dump() | {"name": "twin"}
    study = small_study.replace(models=[*(model.model_dump() for model in small_study.models[:1]), twin])
    result = pr.align(study, quiet=True)
    assert result.matrix("mutual_knn").at("bert-en", "twin") == 1.0
    # as if the run had ended between two pairs of a tile
    for manifest in sorted((Path(study.run.store) / "kernels").rglob("manifest.json"))[::2]:
        manifest.unlink()
    for manifest in (Path(study.run.store) / "results").rglob("manifest.json"):
        manifest.unlink()
    assert score_bytes(pr.align(study, quiet=True)) == score_bytes(result)


def test_a_result_from_the_store_says_what_was_asked_this_time(finished_study):
    pr.align(finished_study, quiet=True)
    again = pr.align(finished_study.replace(name="other"), quiet=True)
    assert again.provenance["study"]["name"] == "other"


def test_the_callers_number_of_threads_comes_back(tiny_study):
    before = torch.get_num_threads()
    pr.align(changed(tiny_study, threads=before + 1), quiet=True)
    assert torch.get_num_threads() == before


def test_a_process_reads_no_samples_but_those_of_its_shards(tmp_path):
    """A dataset may be larger than what any one process could read in an hour."""
    pictures = write_pictures(tmp_path / "pictures", 12)
    study = pr.Study.from_dict(
        {
            "shard_rows": 4,
            "dataset": {"source": str(pictures)},
            "models": [{"name": "pixels", "use": "pixels", "view": "image"}],
            "run": {"engine": "local", "store": str(tmp_path / "store")},
        }
    )
    runner = ModelRunner(prepare(study, Store.open(study.run.store)).context, 0)
    for number in (*range(4), *range(8, 12)):
        (pictures / f"{number}.png").unlink()
    runner.load()
    *layers, report = runner.embed(1)
    assert [table.num_rows for table in layers] == [4]
    assert report["rows"] == 4


def test_other_samples_than_those_planned_for_are_found_before_a_model_is_loaded(tmp_path, samples):
    moved = tmp_path / "samples.parquet"
    pq.write_table(pq.read_table(samples), moved)
    study = make_tiny_study(moved, engine="local", store=str(tmp_path / "store"))
    context = prepare(study, Store.open(study.run.store)).context
    pq.write_table(pq.read_table(samples).slice(1), moved)
    with pytest.raises(DataError, match="differs between the driver and a worker"):
        ModelRunner(context, 1).load()


def test_samples_that_change_during_a_run_are_not_stored_under_the_old_key(small_study, samples):
    store = Store.open(small_study.run.store)
    context = prepare(small_study, store).context
    runner = ModelRunner(context, 3)
    runner.load()
    other = runner._dataset.take([*range(1, 600), 0])
    runner._dataset = other
    with pytest.raises(DataError, match="changed while the study ran"):
        list(runner.embed(0))
    assert not committed(small_study, "features")
