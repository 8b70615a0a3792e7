"""timm's vision transformers, where timm and torchvision are: the outputs of their blocks, image by image."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from model_samples import entry, image, side_by_side

from platonic_ray.datasets.images import decode_image
from platonic_ray.errors import StudyError, WeightsError
from platonic_ray.models import describe, load, resolve

IMAGES = [image(1, (40, 40)), image(2, (64, 48)), image(3, (33, 90))]
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None or importlib.util.find_spec("torchvision") is None,
    reason="timm and torchvision are not installed",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    import timm

    folder = tmp_path_factory.mktemp("timm")
    shape = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32}
    torch.manual_seed(9)
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, patch_size=8, **shape)
    timm.models.save_for_hf(
        network, str(folder), model_args=shape | {"patch_size": 8}, safe_serialization=True
    )
    return folder


def _spec(folder, **given):
    return resolve(entry(kind="timm", weights=str(folder), **given))


@needs_timm
def test_layers_are_the_outputs_of_the_blocks_as_the_published_code_names_them(saved) -> None:
    import timm
    from timm.data import create_transform, resolve_data_config
    from torchvision.models.feature_extraction import create_feature_extractor

    network = timm.create_model(f"local-dir:{saved}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config(network.pretrained_cfg, model=network))
    nodes = [f"blocks.{at}.add_1" for at in range(2)]
    pixels = torch.stack([transform(decode_image(item)) for item in IMAGES])
    with torch.inference_mode():
        wanted = list(create_feature_extractor(network, return_nodes=nodes)(pixels).values())
    spec = _spec(saved, pooling=["first", "mean", "max"], layers="blocks", batch_images=2)
    model = load(spec)
    assert describe(spec).layers == model.layers
    assert [layer.name for layer in model.layers[:2]] == ["block 1 (first)", "block 2 (first)"]
    layers = model.embed(IMAGES).layers
    for place, state in enumerate(wanted):
        pooled = (state[:, 0], state[:, 1:].mean(1), state[:, 1:].amax(1))
        for at, rows in enumerate(pooled):
            np.testing.assert_allclose(layers[2 * at + place], rows.numpy(), atol=2e-5)


@needs_timm
def test_batches_side_by_side_give_the_bytes_of_one_after_the_other(saved) -> None:
    alone, together = side_by_side(load(_spec(saved, pooling="mean")), IMAGES)
    assert together == alone


@needs_timm
def test_random_weights_are_seeded_and_need_no_trained_ones(saved, tmp_path) -> None:
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(saved, folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    one, other = (load(_spec(path, init="random")).embed(IMAGES).layers for path in (folder, saved))
    assert [rows.tobytes() for rows in one] == [rows.tobytes() for rows in other]
    assert not np.allclose(one[-1], load(_spec(saved)).embed(IMAGES).layers[-1], atol=1e-2)


@needs_timm
def test_a_network_without_blocks_is_refused(tmp_path) -> None:
    import timm

    network = timm.create_model("resnet18", pretrained=False)
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=True)
    with pytest.raises(StudyError, match="has no blocks"):
        load(_spec(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_the_error_says_what_to_install(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"pip install 'platonic-ray\[timm\]'"):
        load(_spec(tmp_path))
