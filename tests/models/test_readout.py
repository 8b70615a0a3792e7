"""Several poolings in one pass are those of one pass each; layers side by side are each of unit length."""

from __future__ import annotations

import numpy as np
import pytest
from model_samples import entry
from pydantic import ValidationError
from text_families import TEXTS

from platonic_ray.errors import StudyError
from platonic_ray.models import describe, load, resolve


def _embed(folder, **given):
    spec = resolve(entry(kind="transformers-text", weights=str(folder), **given))
    model = load(spec)
    assert describe(spec).layers == model.layers
    return [layer.name for layer in model.layers], model.embed(TEXTS).layers


def test_several_poolings_in_one_pass_are_those_of_one_pass_each(saved_text) -> None:
    names, layers = _embed(saved_text("llama"), pooling=["mean", "last"], layers=[0, 2])
    assert names == ["embedding (mean)", "block 2 + norm (mean)", "embedding (last)", "block 2 + norm (last)"]
    single = [
        rows
        for pooling in ("mean", "last")
        for rows in _embed(saved_text("llama"), pooling=pooling, layers=[0, 2])[1]
    ]
    assert [rows.tobytes() for rows in layers] == [rows.tobytes() for rows in single]


def test_the_head_of_a_model_is_one_representation_beside_its_layers(tiny_bert) -> None:
    names, layers = _embed(tiny_bert, pooling=["first", "pooler"], layers=["block 1"])
    assert names == ["block 1 (first)", "pooler"]
    assert layers[1].tobytes() == _embed(tiny_bert, pooling="pooler")[1][0].tobytes()


def test_layers_side_by_side_weigh_the_same(saved_text) -> None:
    names, layers = _embed(saved_text("llama"), concatenate=True)
    assert names == ["embedding", "block 1", "block 2 + norm", "all layers"]
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in layers[:-1]]
    np.testing.assert_allclose(layers[-1], np.concatenate(units, axis=1), atol=1e-6)
    cosines = sum(unit @ unit.T for unit in units)
    np.testing.assert_allclose(layers[-1] @ layers[-1].T, cosines, atol=1e-5)


def test_layers_side_by_side_are_made_of_each_pooling_and_of_features_that_exist(
    saved_text, tmp_path
) -> None:
    names, layers = _embed(saved_text("llama"), pooling=["mean", "max"], layers=[1, 2], concatenate=True)
    assert names[-2:] == ["all layers (mean)", "all layers (max)"]
    assert layers[-1].shape == (len(TEXTS), 64)
    np.save(tmp_path / "x.npy", np.array([[[3.0, 4.0], [0.0, 0.0]]]))
    stored = load(resolve(entry(kind="features", weights=str(tmp_path / "x.npy"), concatenate=True)))
    np.testing.assert_allclose(stored.embed([0]).layers[-1], [[0.6, 0.8, 0, 0]], rtol=1e-6)


def test_one_pooling_in_a_list_is_the_pooling_itself_and_order_is_part_of_the_key(tiny_bert) -> None:
    def key(pooling):
        return resolve(entry(kind="transformers-text", weights=str(tiny_bert), pooling=pooling)).key

    assert key(["mean"]) == key("mean")
    assert len({key("mean"), key(["mean", "last"]), key(["last", "mean"])}) == 3


@pytest.mark.parametrize(
    ("pooling", "message"), [(["mean", "mean"], "given twice"), (["mean", "last"], "has no pooling 'last'")]
)
def test_a_list_of_poolings_is_checked_one_by_one(pooling, message) -> None:
    with pytest.raises(StudyError, match=message):
        resolve(entry(kind="transformers-vision", weights="hub:a/b@" + "0" * 40, pooling=pooling))
    with pytest.raises(ValidationError):
        entry(kind="transformers-vision", weights="x", pooling=[])
