"""Studies under the published recipe: a clamp for each model, and the scores that follow from it."""

from pathlib import Path

import numpy as np
import pytest
from support import changed, committed, dense_features, score_bytes, tie_digests

import platonic_ray as pr
from platonic_ray.engine import features
from platonic_ray.metrics import score_tables
from platonic_ray.store import Store


def bounds_of(layers, recipe):
    """What the recipe clamps the layers to, plainly; layers of one width share it."""
    alike = len({layer.shape[1] for layer in layers}) == 1
    groups = [np.stack(layers, axis=1)] if alike else layers
    if recipe == "huh2024":
        found = [np.sort(np.abs(group).ravel())[int(0.95 * group.size)] for group in groups]
    else:
        rows = [np.abs(group).reshape(len(group), -1).astype(float) for group in groups]
        found = [np.float32(np.quantile(row, 0.95, axis=1).mean()) for row in rows]
    return found * len(layers) if alike else found


@pytest.fixture
def study(small_study):
    """Two of the models on 300 samples, in two blocks, without a null."""
    models = [small_study.models[place].model_dump() for place in (0, 3)]
    dataset = {**small_study.dataset.model_dump(), "samples": 300}
    metrics = [{"name": "mutual_knn", "k": 7}, {"name": "cka"}]
    return small_study.replace(
        models=models, dataset=dataset, metrics=metrics, null={"permutations": 0}, recipe="huh2024"
    )


@pytest.mark.parametrize("recipe", ["huh2024", "huh2024-approx"])
def test_a_study_under_the_published_recipe_scores_as_in_memory(study, recipe):
    study = study.replace(recipe=recipe)
    result = pr.align(study, quiet=True)
    stacks = dense_features(study)
    for name, layers in stacks.items():
        np.testing.assert_allclose(result.provenance["clamp"][name], bounds_of(layers, recipe), rtol=2e-7)
    clamps: dict = {}
    tables = score_tables(
        stacks, metrics=study.metrics, recipe=recipe, digests=tie_digests(study), clamps=clamps
    )
    assert len(tables) == 2
    for table in tables:
        got = result.layers_matrix(table.x, table.y, table.metric.name).values
        np.testing.assert_array_equal(got, table.scores)
    assert {name: list(found) for (_, name), found in clamps.items()} == result.provenance["clamp"]


def made(study, what):
    """How many events of a name all runs of the study have logged."""
    store = Store(study.run.store)
    return sum(event["event"] == what for run in store.runs() for event in store.events(run))


def test_a_clamp_is_kept_damaged_ones_are_made_again_and_blocks_change_no_byte(study, tmp_path):
    pr.align(study.replace(recipe="l2"), quiet=True)
    assert (made(study, "shard"), made(study, "Clamp")) == (10, 0)
    result = pr.align(study, quiet=True)
    assert (made(study, "shard"), made(study, "Clamp")) == (10, 2)
    assert len(committed(study, "recipes")) == 2
    store = Path(study.run.store)
    part = sorted((store / "recipes").rglob("*.arrow"))[0]
    for damaged in (0, 1):
        for kind in ("results", "scores", "neighbors"):
            for manifest in (store / kind).rglob("manifest.json"):
                manifest.unlink()
        if damaged:
            part.write_bytes(part.read_bytes()[:-9])
        assert score_bytes(pr.align(study, quiet=True)) == score_bytes(result)
        assert made(study, "Clamp") == 2 + damaged
    other = changed(study, store=str(tmp_path / "other"), block_rows=512)
    assert score_bytes(pr.align(other, quiet=True)) == score_bytes(result)


def test_features_that_are_clamped_to_zero_are_said_to_be(study, monkeypatch):
    monkeypatch.setattr(features, "clamp_bounds", lambda stacks, *_: (0.0,) * len(next(iter(stacks()))))
    result = pr.align(study, quiet=True)
    assert result.layers["zero_rows"].unique().to_list() == [300]
    assert sum("clamps layer" in note for note in result.provenance["notes"]) == 2
