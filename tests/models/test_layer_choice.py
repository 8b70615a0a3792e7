"""A study may keep some layers of a model; which there are is known before any weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_samples import entry, image
from text_families import DEEP, FAMILIES, save_tokenizer

from platonic_ray.errors import StudyError
from platonic_ray.models import describe, load, resolve
from platonic_ray.study import Study


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-NeoX of five blocks."""
    folder = tmp_path_factory.mktemp("gpt")
    torch.manual_seed(7)
    config = transformers.GPTNeoXConfig(**{**DEEP, "num_hidden_layers": 5})
    transformers.GPTNeoXModel(config).save_pretrained(folder)
    save_tokenizer(folder, pad=False)
    return folder


def _spec(folder: Path, **given: Any) -> Any:
    return resolve(entry(kind="transformers-text", weights=str(folder), **given))


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ([-1, 2], [2, 5]),
        ("every 2", [0, 2, 4]),
        ("every 9", [0]),
        (["embedding", "block 5 + norm", -1, 5], [0, 5]),
    ],
)
def test_the_layers_that_are_kept_are_those_of_the_whole_model_under_their_names(gpt, wanted, places) -> None:
    texts = ["ab", "a red dog", "x y z"]
    whole, some = load(_spec(gpt)), load(_spec(gpt, layers=wanted))
    assert [(layer.name, layer.width) for layer in some.layers] == [
        (whole.layers[place].name, whole.layers[place].width) for place in places
    ]
    assert [layer.index for layer in some.layers] == list(range(len(places)))
    every, kept = whole.embed(texts).layers, some.embed(texts).layers
    assert [rows.tobytes() for rows in kept] == [every[place].tobytes() for place in places]


def test_stages_can_be_chosen_too() -> None:
    given = {"use": "efficientnet-lite0", "init": "random"}
    images = [image(1), image(2)]
    whole, some = load(resolve(entry(**given))), load(resolve(entry(**given, layers=["stem", "head"])))
    every, kept = whole.embed(images).layers, some.embed(images).layers
    assert [rows.tobytes() for rows in kept] == [every[0].tobytes(), every[-1].tobytes()]


def test_the_choice_is_part_of_the_key_and_all_is_the_key_it_always_was(gpt) -> None:
    plain = _spec(gpt)
    assert "layers" not in plain.identity()
    assert _spec(gpt, layers="all").key == plain.key
    keys = {_spec(gpt, layers=wanted).key for wanted in ("every 2", [0, 2, 4], [-1], ["embedding"])}
    assert len(keys | {plain.key}) == 5


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([6], r"has no layer 6\. It has 6, by number 0 to 5"),
        ([-7], "has no layer -7"),
        (["block 5"], r"has no layer 'block 5'\. Did you mean 'block 5 \+ norm'"),
    ],
)
def test_a_layer_that_does_not_exist_is_refused_before_weights_are_read(
    gpt, wanted, message, monkeypatch
) -> None:
    monkeypatch.setattr("platonic_ray.models.pretrained.load_network", None)
    with pytest.raises(StudyError, match=message):
        _spec(gpt, layers=wanted)


@pytest.mark.parametrize("wanted", ["some", "every 0", "every x", [], [1.5], [True], 3, [[1]]])
def test_layers_of_another_form_are_refused_in_one_line(wanted) -> None:
    model = {"name": "m", "view": "v", "use": "minilm-l6", "layers": wanted}
    with pytest.raises(
        StudyError, match=r'models\[0\].layers: expected "all", "blocks", "every 4", or a list'
    ):
        Study.from_dict({"models": [model]})


def test_layers_mean_nothing_for_a_model_that_has_one() -> None:
    with pytest.raises(StudyError, match="layers would do nothing"):
        resolve(entry(use="pixels", layers=[-1]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_description_is_what_the_loaded_model_has(family, tmp_path) -> None:
    name, settings, _ = FAMILIES[family]
    network = getattr(transformers, name)
    network(network.config_class(**settings)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad=False)
    spec = _spec(tmp_path)
    described, model = describe(spec), load(spec)
    assert described.layers == model.layers
    assert described.parameters == sum(tensor.numel() for tensor in model._network.parameters())
    assert described.weight_bytes == 4 * described.parameters
    (tmp_path / "model.safetensors").unlink()
    assert describe(_spec(tmp_path, init="random")) == described


def test_a_family_whose_states_cannot_be_traced_is_described_by_its_configuration(tmp_path) -> None:
    config = transformers.MixtralConfig(**DEEP, num_key_value_heads=2, num_local_experts=2)
    transformers.MixtralModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad=False)
    spec = _spec(tmp_path)
    assert describe(spec).layers == load(spec).layers


def test_descriptions_of_floors_and_stages() -> None:
    assert describe(resolve(entry(use="char-tfidf"))).layers[0].width == 4096
    spec = resolve(entry(use="efficientnet-lite1", init="random"))
    assert describe(spec).layers == load(spec).layers
    assert describe(spec).parameters > 4_000_000
