"""Image models: the library's own features, stage by stage; batches and order change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_samples import entry, image, side_by_side

from platonic_ray.errors import WeightsError
from platonic_ray.models import load, resolve
from platonic_ray.models.weights import locate

IMAGES = [image(seed) for seed in range(5)]


def test_pixels_are_colors_between_zero_and_one() -> None:
    model = load(resolve(entry(use="pixels")))
    (rows,) = model.embed(IMAGES).layers
    assert rows.shape == (5, 3072) == (5, model.layers[0].width)
    assert rows.dtype == np.float32
    assert 0 <= rows.min() < rows.max() <= 1
    assert model.embed(IMAGES[::-1]).layers[0][::-1].tobytes() == rows.tobytes()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_random_networks_have_nine_layers_and_do_not_depend_on_the_batch(number) -> None:
    spec = resolve(entry(use=f"efficientnet-lite{number}", init="random", batch_images=2))
    model = load(spec)
    assert [layer.name for layer in model.layers] == ["stem", *(f"stage {i}" for i in range(1, 8)), "head"]
    assert model.layers[-1].width == 1280
    together = model.embed(IMAGES[:3]).layers
    single = model.embed(IMAGES[2:3]).layers
    for layer, a, b in zip(model.layers, together, single, strict=True):
        assert a.shape == (3, layer.width)
        np.testing.assert_allclose(a[2:], b, atol=1e-5 * max(1, np.abs(b).max()))
    assert load(spec).embed(IMAGES[:3]).layers[-1].tobytes() == together[-1].tobytes()


def test_batches_side_by_side_give_the_bytes_of_one_after_the_other() -> None:
    model = load(resolve(entry(use="efficientnet-lite0", init="random")))
    alone, together = side_by_side(model, IMAGES)
    assert together == alone


@pytest.mark.parametrize("images", [1, 2, 4])
def test_activations_in_place_change_no_bit_and_no_state_that_was_given_before(images) -> None:
    model = load(resolve(entry(use="efficientnet-lite0", init="random")))
    pixels = model._pixels(model._decode(IMAGES[:images]))
    with torch.inference_mode():
        kept, copied = zip(*((state, state.clone()) for state in model._states(pixels)), strict=True)
        activations = [module for module in model._network.modules() if isinstance(module, torch.nn.ReLU6)]
        assert all(module.inplace for module in activations)
        for module in activations:
            module.inplace = False
        apart = list(model._states(pixels))
    assert len(kept) == len(model.layers) == 9
    for state, copy, other in zip(kept, copied, apart, strict=True):
        assert torch.equal(state, copy)
        assert torch.equal(state, other)


def test_an_oblong_image_is_cut_to_the_square_in_its_middle() -> None:
    from PIL import Image

    from platonic_ray.models.efficientnet import square

    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    assert square(wide, 64).getcolors() == [(64 * 64, (0, 0, 255))]


def test_no_images_give_no_rows() -> None:
    for use in ("pixels", "efficientnet-lite0"):
        model = load(resolve(entry(use=use, **({} if use == "pixels" else {"init": "random"}))))
        assert [layer.shape for layer in model.embed([]).layers] == [
            (0, layer.width) for layer in model.layers
        ]


@pytest.mark.weights
def test_stages_are_those_of_the_library_and_the_head_is_its_extract_features(loaded) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    spec = resolve(entry(use="efficientnet-lite0"))
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    checkpoint = torch.load(locate(spec.weights) / str(spec.file), weights_only=True)
    assert all(network.load_state_dict(checkpoint, strict=True) == (a, b) for a, b in [([], [])])
    seen: list[torch.Tensor] = []
    for last in (0, 2, 4, 7, 10, 14, 15):  # the last block of each stage: 1, 2, 2, 3, 3, 4, 1 blocks
        network._blocks[last].register_forward_hook(lambda _, __, output: seen.append(output.mean((2, 3))))
    model = loaded("efficientnet-lite0")
    with torch.inference_mode():
        head = network.extract_features(model._pixels(model._decode(IMAGES))).mean((2, 3))
    got = model.embed(IMAGES).layers
    for a, b in zip(got[1:], [*seen, head], strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-4)
    random = loaded("efficientnet-lite0", "random").embed(IMAGES).layers
    assert all(not np.allclose(a, b, atol=1e-2) for a, b in zip(got, random, strict=True))


@pytest.mark.weights
def test_a_trained_network_is_surer_of_itself_than_a_random_one(loaded) -> None:
    """Without labels: a classifier read through its own last layer is not flat over the classes."""
    sure = {}
    for init in ("pretrained", "random"):
        model = loaded("efficientnet-lite0", init)
        with torch.inference_mode():
            head = torch.from_numpy(model.embed(IMAGES).layers[-1])
            sure[init] = float(model._network._fc(head).softmax(-1).max(-1).values.mean())
    assert sure["pretrained"] > 10 * sure["random"]


@pytest.mark.weights
def test_a_checkpoint_of_another_architecture_is_refused(tmp_path) -> None:
    lite0 = resolve(entry(use="efficientnet-lite0"))
    (tmp_path / "efficientnet-lite1.pth").symlink_to(locate(lite0.weights) / str(lite0.file))
    given = {"kind": "efficientnet-lite", "weights": str(tmp_path / "efficientnet-lite1.pth")}
    with pytest.raises(WeightsError, match="does not hold the weights of efficientnet-lite1"):
        load(resolve(entry(**given)))
    (tmp_path / "efficientnet-lite1.pth").unlink()
    (tmp_path / "efficientnet-lite1.pth").write_bytes(b"cbuiltins\neval\n(S'1/0'\ntR.")
    with pytest.raises(WeightsError, match="does not hold"):
        load(resolve(entry(**given)))
