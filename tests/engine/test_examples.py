"""Examples: the neighbors that a result carries are those that its features have."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from support import changed, dense_features, make_small_study

import platonic_ray as pr
from platonic_ray.engine.examples import best_layers, choose_samples
from platonic_ray.errors import StudyError


@pytest.fixture(scope="module")
def study(samples, tiny_bert, tmp_path_factory):
    store = str(tmp_path_factory.mktemp("examples") / "store")
    small = make_small_study(samples, tiny_bert, engine="local", store=store)
    return small.replace(metrics=[{"name": "mutual_knn", "k": 7}, {"name": "cka"}], null={"permutations": 0})


@pytest.fixture(scope="module")
def result(study):
    return pr.align(study, quiet=True)


def test_neighbors_are_those_of_the_features_in_the_layers_that_came_out_best(study, result):
    features = dense_features(study)
    assert set(result.examples.select("model", "layer").rows()) == {
        (model, layer) for model, layers in best_layers(result).items() for layer in layers
    }
    for row in result.examples.iter_rows(named=True):
        x = torch.from_numpy(np.array(features[row["model"]][row["layer"]], dtype=np.float64))
        unit = x / x.norm(dim=1, keepdim=True)
        near = unit @ unit[row["sample"]]
        assert near[row["neighbors"]].tolist() == pytest.approx(row["similarities"], abs=1e-6)
        near[row["sample"]] = -torch.inf
        # Where similarities tie, which of them are taken is the tie rule's; their values are not.
        assert row["similarities"] == pytest.approx(near.topk(7).values.tolist(), abs=1e-6)


def test_samples_come_with_their_text_and_a_small_picture(result):
    shown = result.samples
    named = {*result.examples["sample"], *(near for row in result.examples["neighbors"] for near in row)}
    assert set(shown["sample"]) == named
    one = shown.filter(shown["sample"] == shown["sample"][0]).to_dicts()
    assert {row["view"]: row["kind"] for row in one} == {"de": "text", "en": "text", "image": "image"}
    assert len(one[1]["text"].split()) == 4
    picture = next(row["thumbnail"] for row in one if row["view"] == "image")
    assert max(Image.open(io.BytesIO(picture)).size) <= 64


def test_one_sample_is_asked_for_by_row_or_id(result):
    sample = result.examples["sample"][0]
    rows = result.neighbors(sample)
    assert rows.equals(result.neighbors(f"s{sample}"))
    assert rows["ids"][0].to_list() == [f"s{near}" for near in rows["neighbors"][0]]
    with pytest.raises(StudyError, match="are not in this result; those of:"):
        result.neighbors("nobody")


def test_they_are_saved_read_again_and_the_same_from_a_store_that_has_them(study, result, tmp_path):
    assert pr.load(result.save(tmp_path / "r")).equals(result)
    again = pr.align(changed(study, threads=1), quiet=True)
    assert again.examples.equals(result.examples)
    assert again.samples.equals(result.samples)


def test_without_neighbors_there_are_no_examples(study):
    only = pr.align(study.replace(metrics=[{"name": "cka"}]), quiet=True)
    assert only.examples.is_empty()
    assert only.samples.is_empty()


def test_the_draw_lies_in_few_blocks_and_depends_on_the_seed():
    drawn = choose_samples(100_000, 12, 1024, seed=0)
    assert len(drawn) == len(set(drawn)) == 12
    assert len({row // 1024 for row in drawn}) <= 2
    assert drawn != choose_samples(100_000, 12, 1024, seed=1)
