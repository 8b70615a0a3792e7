"""Growing a study: what a changed study takes from the store and what it computes, by its event log."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import changed, committed, events_of, run, score_bytes, write_samples

import platonic_ray as pr
from platonic_ray.engine.pull import pull_study
from platonic_ray.errors import StoreError
from platonic_ray.store import CorruptArtifactError, Store
from platonic_ray.study import Study

COMPUTED = ("shard", "NeighborTile", "KernelTile", "PermutedKernel", "RowState", "Score", "Clamp", "Scale")


def computed(study) -> set[str]:  # type: ignore[no-untyped-def]
    """The names of the tasks of the last run that ran."""
    return {event["task"] for event in events_of(study) if event["event"] in COMPUTED}


def models_of(tasks: set[str], kind: str) -> set[str]:
    return {task.split("[")[1].rstrip("]").split(",")[0] for task in tasks if task.startswith(f"{kind}[")}


def loaded(study, name: str):  # type: ignore[no-untyped-def]
    """The network of a model, as transformers loads it."""
    from transformers import AutoModel

    (entry,) = (model for model in study.models if model.name == name)
    return AutoModel.from_pretrained(entry.weights)


def without(study, *names: str):  # type: ignore[no-untyped-def]
    return study.replace(models=[model.model_dump() for model in study.models if model.name not in names])


@pytest.fixture
def small(small_study):
    """The small study without the nulls of kernels."""
    return small_study.replace(null={"permutations": 19, "metrics": ["mutual_knn", "rank_knn"]})


@pytest.fixture
def finished(finished_study):
    """The same, of which all but its nulls is in the store."""
    return finished_study.replace(null={"permutations": 19, "metrics": ["mutual_knn", "rank_knn"]})


def test_an_added_model_computes_itself_and_its_pairs_alone(small, capsys) -> None:
    pr.align(without(small, "pixels"), quiet=True)
    others = committed(small, "scores")
    result = pr.align(small)
    tasks = computed(small)
    assert models_of(tasks, "embed") == models_of(tasks, "neighbors") == {"pixels"}
    scored = {task for task in tasks if task.startswith("score[")}
    assert scored == {f"score[{name} – pixels]" for name in ("bert-en", "bert-de", "tfidf", "pixels")}
    assert len(others) == 6
    said = " ".join(capsys.readouterr().err.split())
    assert "New: pixels" in said
    assert "6 of 10 pairs of models" in said
    alone = pr.align(changed(small, store=small.run.store + "-alone"), quiet=True)
    assert score_bytes(result) == score_bytes(alone)


@pytest.mark.parametrize("groups", [None, "group"])
def test_an_added_model_permutes_the_kernels_of_its_pairs_alone(small_study, tmp_path, groups) -> None:
    table = pq.read_table(write_samples(tmp_path / "samples.parquet", n=160))
    labels = pa.array([str(row % 4) for row in range(160)])
    pq.write_table(table.append_column("group", labels), tmp_path / "samples.parquet")
    study = without(small_study, "bert-de").replace(
        dataset={"source": str(tmp_path / "samples.parquet")},
        metrics=[{"name": "cka"}],
        null={"permutations": 9, "groups": groups},
    )
    pr.align(without(study, "pixels"), quiet=True)
    others = set(committed(study, "permuted"))
    assert len(others) == 1
    grown = pr.align(study, quiet=True)
    new = set(committed(study, "permuted")) - others
    # Within groups the last bits depend on what is multiplied together, so all three pairs are made anew.
    assert len(new) == (2 if groups is None else 3)
    alone = pr.align(changed(study, store=study.run.store + "-alone"), quiet=True)
    assert score_bytes(grown) == score_bytes(alone)
    # Removing it again computes nothing.
    pr.align(without(study, "pixels"), quiet=True)
    assert set(committed(study, "permuted")) == others | new


def test_removing_and_renaming_models_computes_nothing(finished) -> None:
    pr.align(finished, quiet=True)
    fewer = without(finished, "bert-de")
    models = [model.model_dump() for model in fewer.models]
    models[0]["name"] = "renamed / <b>, עברית"
    result = pr.align(fewer.replace(models=models), quiet=True)
    assert computed(finished) == set()
    assert result.matrix("cka").rows == ("renamed / <b>, עברית", "tfidf", "pixels")


def test_an_added_metric_embeds_nothing_and_keeps_neighbors(finished) -> None:
    pr.align(finished, quiet=True)
    metrics = [{"name": metric.name, **metric.options} for metric in finished.metrics]
    pr.align(
        finished.replace(metrics=[*metrics, {"name": "jaccard_knn", "k": 5}, {"name": "rsa"}]), quiet=True
    )
    tasks = computed(finished)
    assert not models_of(tasks, "embed")
    assert not models_of(tasks, "neighbors")
    assert any(task.startswith("kernels[correlation") for task in tasks)
    assert not any(task.startswith("kernels[linear") for task in tasks)


@pytest.mark.parametrize(
    ("recipe", "why"), [("l2", "nearer than an old neighbor"), ("huh2024", "one quantile")]
)
def test_more_samples_reuse_features_and_say_what_they_could_not(
    small, tmp_path, capsys, recipe, why
) -> None:
    study = without(small, "tfidf", "bert-de").replace(recipe=recipe, metrics=["mutual_knn", "cka"])
    file = tmp_path / "growing.parquet"
    whole = pq.read_table(write_samples(tmp_path / "whole.parquet", n=600))
    grown = {}
    for rows in (512, 600):
        pq.write_table(whole.slice(0, rows), file)
        grown = study.replace(dataset={"source": str(file)}, null={"permutations": 0})
        pr.align(grown)
    tasks = computed(grown)
    shards = {task.split(", ")[1].rstrip("]") for task in tasks if task.startswith("embed[")}
    assert shards == {"8", "9"}  # of 64 rows, from row 512 on
    kernels = {task for task in tasks if task.startswith("kernels[")}
    assert len(kernels) == (3 if recipe == "l2" else 6)
    assert why in " ".join(capsys.readouterr().err.split())
    assert {event["event"]: event for event in events_of(grown)}["reuse"]["grown"] == ["bert-en", "pixels"]


def test_the_size_of_every_network_and_the_cost_of_the_run_are_recorded(small) -> None:
    run = {**small.run.model_dump(), "price_per_hour": 36.0}
    study = without(small, "bert-de").replace(run=run, metrics=["mutual_knn"], null={"permutations": 0})
    result = pr.align(study, quiet=True)
    sizes = dict(result.capability.filter(capability="parameters").select("model", "value").rows())
    assert list(sizes) == ["bert-en"]  # spelling and pixels are no networks
    assert sizes["bert-en"] == sum(spec.numel() for spec in loaded(study, "bert-en").parameters())
    cost, took = result.provenance["cost"], result.provenance["finished"] - result.provenance["started"]
    assert cost["cost"] == pytest.approx(36 * cost["node_hours"])
    assert 0 < cost["node_hours"] <= took / 3600  # one node, while the run was at work
    assert events_of(study)[-1]["summary"]["cost"] == cost["cost"]
    assert pr.align(small.replace(null={"permutations": 0}), quiet=True).provenance["cost"] is None


def test_scores_that_were_damaged_are_made_again(finished_study) -> None:
    whole = pr.align(finished_study, quiet=True)
    store = Store(finished_study.run.store)
    for key in committed(finished_study, "results"):
        store.discard("results", key)
    damaged = sorted(Path(finished_study.run.store, "scores").rglob("*.arrow"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert score_bytes(pr.align(finished_study, quiet=True)) == score_bytes(whole)
    assert len([task for task in computed(finished_study) if task.startswith("score[")]) == 1


def test_a_study_goes_on_from_what_another_store_has_of_it(small, tmp_path, capsys) -> None:
    pr.align(without(small, "pixels"), quiet=True)
    here = changed(small, store=str(tmp_path / "here"))
    file = tmp_path / "study.json"
    monkey = pytest.MonkeyPatch()
    monkey.setattr(Study, "from_toml", classmethod(lambda cls, path: here))
    assert run("pull", file, "--from", small.run.store, "--json") == 0
    monkey.undo()
    pulled = json.loads(capsys.readouterr().out)
    assert pulled["copied"]["features"] == 30
    assert pulled["copied"]["scores"] == 6
    assert pulled["here"] == 0
    result = pr.align(here, quiet=True)
    assert models_of(computed(here), "embed") == {"pixels"}
    assert score_bytes(result) == score_bytes(pr.align(small, quiet=True))
    with pytest.raises(StoreError, match="no platonic_ray store"):
        pull_study(here, str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_file_of_another_store_is_not_taken(small, tmp_path) -> None:
    pr.align(without(small, "pixels"), quiet=True)
    part = sorted(Path(small.run.store, "features").rglob("*.arrow"))[0]
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(CorruptArtifactError, match="damaged"):
        pull_study(changed(small, store=str(tmp_path / "here")), small.run.store)
