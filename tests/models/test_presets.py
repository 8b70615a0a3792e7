"""Presets: the published sets of models, as entries that a study could have had by itself."""

from __future__ import annotations

import tomllib

import pytest

from platonic_ray import presets
from platonic_ray.errors import StudyError
from platonic_ray.models import resolve
from platonic_ray.models.kinds import KINDS
from platonic_ray.study import Study

COMMIT = "@" + "0123456789" * 4


def test_the_published_set_is_twelve_models_of_language_and_seventeen_of_vision() -> None:
    study = Study.from_dict({"models": "prh-val"})
    text = [model for model in study.models if model.kind == "transformers-text"]
    image = [model for model in study.models if model.kind == "timm"]
    assert (len(text), len(image), len(study.models)) == (12, 17, 29)
    assert {(model.view, model.pooling, model.bits_per_byte) for model in text} == {("text", "mean", True)}
    assert {(model.view, model.pooling, model.layers) for model in image} == {("image", "first", "blocks")}
    assert text[0].weights == "hub:bigscience/bloomz-560m"
    assert image[-1].weights == "hub:timm/vit_huge_patch14_clip_224.laion2b_ft_in12k"


@pytest.mark.parametrize("name", presets.names())
def test_every_model_of_a_preset_can_be_pinned_without_a_hub(name) -> None:
    """With a commit no network is needed; every field must be one that its kind has."""
    for model in Study.from_dict({"models": name}).models:
        pinned = model.model_copy(
            update={"weights": model.weights + COMMIT, "layers": None, "bits_per_byte": None, "pooling": None}
        )
        assert resolve(pinned).weights.address.endswith(COMMIT)
        given = model.model_dump(exclude_none=True).keys() & {"layers", "pooling", "bits_per_byte"}
        assert given <= KINDS[model.kind].settings.keys()
        assert model.pooling in KINDS[model.kind].poolings


def test_views_and_fields_of_a_side_are_changed_and_own_models_stand_beside_it() -> None:
    study = Study.from_dict(
        tomllib.loads(
            """
            [[models]]
            preset = "prh-val"
            text = { view = "caption", max_tokens = 64 }
            image = "photo"
            only = ["bloomz-560m", "vit_base_patch16_224.mae"]
            [[models]]
            name = "floor"
            use = "pixels"
            view = "photo"
            """
        )
    )
    text, image, floor = study.models
    assert (text.name, text.view, text.max_tokens) == ("bloomz-560m", "caption", 64)
    assert (image.name, image.view, image.max_tokens) == ("vit_base_patch16_224.mae", "photo", None)
    assert floor.use == "pixels"
    assert Study.from_dict(study.model_dump()) == study


def test_a_side_can_be_left_out() -> None:
    study = Study.from_dict({"models": [{"preset": "prh-test", "image": False}]})
    assert {model.kind for model in study.models} == {"transformers-text"}
    assert len(study.models) == 8


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("prh-vla", "Did you mean 'prh-val'"),
        ([{"preset": "prh-val", "images": "photo"}], "no key of a preset 'images'. Did you mean 'image'"),
        ([{"preset": "prh-val", "only": ["llama-7c"]}], "Did you mean 'llama-7b'"),
        ([{"preset": "prh-val", "text": {"vieww": "x"}}], "unknown key"),
        (["prh-val", "prh-val"], "model names must differ"),
    ],
)
def test_what_a_preset_does_not_have_is_refused_with_a_hint(models, message) -> None:
    with pytest.raises(StudyError, match=message):
        Study.from_dict({"models": models})


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_says_what_it_is_and_where_it_is_from(name) -> None:
    told = presets.describe(name)
    assert "Huh et al. (2024)" in told["description"]
    assert "platonic-rep" in told["source"]
