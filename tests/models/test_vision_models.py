"""Vision models: every state is the residual stream after its block, pooled as is said, image by image.

Each family is made from a tiny random configuration and saved as a hub's snapshot is. The oracle is
transformers' own class with hooks on its blocks, called with one image at a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from model_samples import entry, image, side_by_side
from PIL import Image

import platonic_ray as pr
from platonic_ray.datasets.images import decode_image
from platonic_ray.errors import DataError, StudyError, WeightsError
from platonic_ray.models import describe, load, resolve

WIDE = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "image_size": 32}
DEEP = {**WIDE, "intermediate_size": 48, "patch_size": 8}
WORDS = {
    **{"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1},
    "intermediate_size": 48,
}
STAGED = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SWIN = {
    **{"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]},
    "window_size": 4,
}
SQUARE = {"size": {"height": 32, "width": 32}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.3] * 3}
CROPPED = {
    **{"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
    **{"resample": 3, "image_mean": [0.4] * 3, "image_std": [0.2] * 3, "do_convert_rgb": True},
}
# Family: what is saved, its configuration, its image processor, the class and blocks of the oracle,
# how many tokens stand before the patches (None: maps).
FAMILIES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], str, str, int | None]] = {
    "vit": ("ViTForImageClassification", DEEP, "ViT", SQUARE, "ViTModel", "layers", 1),
    "deit": ("DeiTModel", DEEP, "DeiT", CROPPED, "DeiTModel", "layers", 2),
    "dinov2": ("Dinov2Model", {**WIDE, "patch_size": 8}, "Bit", CROPPED, "Dinov2Model", "encoder.layer", 1),
    "registers": (
        *("Dinov2WithRegistersModel", {**WIDE, "patch_size": 8, "num_register_tokens": 3}, "Bit", CROPPED),
        *("Dinov2WithRegistersModel", "encoder.layer", 4),
    ),
    "dinov3": (
        *("DINOv3ViTModel", {**DEEP, "num_register_tokens": 3}, "DINOv3ViT", {**SQUARE, "resample": 2}),
        *("DINOv3ViTModel", "model.layer", 4),
    ),
    "beit": ("BeitModel", DEEP, "Beit", SQUARE, "BeitModel", "layers", 1),
    "clip": (
        *("CLIPModel", {"text_config": WORDS, "vision_config": DEEP, "projection_dim": 16}, "CLIP", CROPPED),
        *("CLIPVisionModel", "encoder.layers", 1),
    ),
    "siglip": (
        *("SiglipModel", {"text_config": WORDS, "vision_config": DEEP}, "Siglip", SQUARE),
        *("SiglipVisionModel", "encoder.layers", 0),
    ),
    "convnext": (
        *("ConvNextForImageClassification", STAGED, "ConvNext", {**SQUARE, "size": {"shortest_edge": 384}}),
        *("ConvNextModel", "encoder.stages", None),
    ),
    "resnet": (
        *("ResNetModel", {**STAGED, "embedding_size": 8, "layer_type": "basic"}, "ConvNext"),
        *({**SQUARE, "size": {"shortest_edge": 32}, "crop_pct": 0.9}, "ResNetModel", "encoder.stages", None),
    ),
}
IMAGES = [image(1, (40, 40)), image(2, (64, 48)), image(3, (33, 90))]


def _save_processor(folder: Path, name: str, given: dict[str, Any]) -> None:
    more = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    described = {"image_processor_type": f"{name}ImageProcessor", **more, **given}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))


def _save(folder: Path, saved: str, settings: dict[str, Any], processor: str, given: dict[str, Any]) -> Path:
    network = getattr(transformers, saved)
    torch.manual_seed(5)
    network(network.config_class(**settings)).save_pretrained(folder)
    _save_processor(folder, processor, given)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that saves a family's tiny model once."""
    folders: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family not in folders:
            folders[family] = _save(tmp_path_factory.mktemp(family), *FAMILIES[family][:4])
        return folders[family]

    return save


def _load(folder: Path, **given: Any) -> Any:
    return load(resolve(entry(kind="transformers-vision", weights=str(folder), **given)))


def _pixels(folder: Path) -> list[torch.Tensor]:
    ours = "DINOv3" in (folder / "preprocessor_config.json").read_text()  # it has no Pillow version
    auto = transformers.ViTImageProcessorPil if ours else transformers.AutoImageProcessor
    processor = auto.from_pretrained(folder, **({} if ours else {"backend": "pil"}))
    return [
        processor(images=decode_image(item).convert("RGB"), return_tensors="pt")["pixel_values"]
        for item in IMAGES
    ]


def _seen(network: Any, blocks: str, pixels: torch.Tensor) -> list[torch.Tensor]:
    """What enters the first block, and what leaves each, of one image."""
    states: list[torch.Tensor] = []

    def keep(_: Any, __: Any, out: Any) -> None:
        states.append((out[0] if isinstance(out, tuple) else out)[0])

    stack = list(network.get_submodule(blocks))
    hooks = [block.register_forward_hook(keep) for block in stack]
    hooks.append(stack[0].register_forward_pre_hook(lambda _, given: states.append(given[0][0])))
    with torch.inference_mode():
        network.eval()(pixel_values=pixels)
    for hook in hooks:
        hook.remove()
    return states


def _pooled(state: torch.Tensor, pooling: str, prefix: int | None) -> np.ndarray:
    if pooling == "first":
        return state[0].numpy()
    tokens = state.flatten(1).T if prefix is None else state[prefix:]
    return (tokens.mean(0) if pooling == "mean" else tokens.max(0).values).numpy()


def _close(rows: np.ndarray, wanted: list[np.ndarray]) -> None:
    assert rows.dtype == np.float32
    stacked = np.stack(wanted)
    np.testing.assert_allclose(rows, stacked, atol=3e-6 * max(1, np.abs(stacked).max()), rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_the_states_around_the_blocks_of_each_image_alone(family, saved) -> None:
    folder = saved(family)
    oracle, blocks, prefix = FAMILIES[family][4:]
    network = getattr(transformers, oracle).from_pretrained(folder)
    alone = [_seen(network, blocks, pixels) for pixels in _pixels(folder)]
    for pooling in ("mean", "max", *(["first"] if prefix else [])):
        model = _load(folder, pooling=pooling)
        kind = "stage" if prefix is None else "block"
        count = len(alone[0])
        assert [layer.name for layer in model.layers] == [
            "embedding",
            *(f"{kind} {i}" for i in range(1, count)),
        ]
        layers = model.embed(IMAGES).layers
        assert [rows.shape[1] for rows in layers] == [layer.width for layer in model.layers]
        for rows, states in zip(layers, zip(*alone, strict=True), strict=True):
            _close(rows, [_pooled(state, pooling, prefix) for state in states])


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_side_by_side_give_the_bytes_of_one_after_the_other(family, saved) -> None:
    model = _load(saved(family), pooling="mean")
    assert model._side_by_side
    alone, together = side_by_side(model, IMAGES)
    assert together == alone


def test_a_masked_autoencoders_encoder_sees_every_patch_and_is_then_a_plain_vit(tmp_path) -> None:
    decoder = {f"decoder_{name}": 16 for name in ("hidden_size", "intermediate_size")}
    settings = {**DEEP, **decoder, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    _save(tmp_path, "ViTMAEForPreTraining", settings, "ViT", SQUARE)
    vit = transformers.ViTModel(transformers.ViTConfig(**DEEP), add_pooling_layer=False)
    mae = transformers.ViTMAEModel.from_pretrained(tmp_path)
    assert vit.load_state_dict(mae.state_dict(), strict=True)
    alone = [_seen(vit, "layers", pixels) for pixels in _pixels(tmp_path)]
    model = _load(tmp_path, pooling="first")
    layers = model.embed(IMAGES).layers
    for rows, states in zip(layers, zip(*alone, strict=True), strict=True):
        _close(rows, [state[0].numpy() for state in states])
    assert [rows.tobytes() for rows in model.embed(IMAGES).layers] == [rows.tobytes() for rows in layers]


def test_windows_of_swin_are_maps_too(tmp_path) -> None:
    model = _load(_save(tmp_path, "SwinModel", SWIN, "ViT", SQUARE))
    assert [(layer.name, layer.width) for layer in model.layers] == [
        ("embedding", 8),
        ("stage 1", 16),
        ("stage 2", 16),
    ]


def test_the_batch_and_the_order_change_nothing_but_rounding_and_a_second_run_no_byte(saved) -> None:
    one, all_at_once = _load(saved("vit"), batch_images=1), _load(saved("vit"))
    for a, b, c, d in zip(
        one.embed(IMAGES).layers,
        all_at_once.embed(IMAGES).layers,
        all_at_once.embed(IMAGES[::-1]).layers,
        all_at_once.embed(IMAGES).layers,
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-6)
        np.testing.assert_allclose(c[::-1], b, atol=2e-6)
        assert b.tobytes() == d.tobytes()
    assert [rows.shape for rows in one.embed([]).layers] == [(0, 32)] * 3


def test_images_that_are_not_cropped_to_one_shape_are_run_by_shape(saved, tmp_path) -> None:
    import shutil

    folder = Path(shutil.copytree(saved("resnet"), tmp_path / "net"))
    _save_processor(folder, "ViT", {**SQUARE, "do_resize": False})
    together, single = _load(folder), _load(folder, batch_images=1)
    for a, b in zip(
        together.embed(IMAGES + IMAGES).layers, single.embed(IMAGES + IMAGES).layers, strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_pooler_is_the_models_own_head(saved) -> None:
    for family in ("clip", "resnet"):
        folder = saved(family)
        network = getattr(transformers, FAMILIES[family][4]).from_pretrained(folder).eval()
        model = _load(folder, pooling="pooler")
        assert [layer.name for layer in model.layers] == ["pooler"]
        with torch.inference_mode():
            wanted = [
                network(pixel_values=pixels).pooler_output.numpy().ravel() for pixels in _pixels(folder)
            ]
        _close(model.embed(IMAGES).layers[0], wanted)


def test_random_weights_are_seeded_and_need_no_trained_ones(saved, tmp_path) -> None:
    import shutil

    folder = Path(shutil.copytree(saved("vit"), tmp_path / "net"))
    (folder / "model.safetensors").unlink()
    one, other = (_load(path, init="random").embed(IMAGES).layers for path in (folder, saved("vit")))
    assert [rows.tobytes() for rows in one] == [rows.tobytes() for rows in other]
    assert not np.allclose(one[-1], _load(saved("vit")).embed(IMAGES).layers[-1], atol=1e-2)


@pytest.mark.parametrize(
    ("family", "given", "error", "message"),
    [
        ("siglip", {"pooling": "first"}, StudyError, "has no class token"),
        ("convnext", {"pooling": "first"}, StudyError, "has no class token"),
        ("vit", {"pooling": "last"}, StudyError, "pooling 'last'"),
        ("vit", {"pooling": "pooler"}, WeightsError, "weights are missing: pooler"),
        ("vit", {"prompt": "a {text}"}, StudyError, "would do nothing"),
    ],
)
def test_what_a_model_does_not_have_is_refused(family, given, error, message, saved) -> None:
    with pytest.raises(error, match=message):
        _load(saved(family), **given)
    if error is StudyError:  # before any weight is read
        with pytest.raises(error, match=message):
            resolve(entry(kind="transformers-vision", weights=str(saved(family)), **given))


def test_a_folder_without_an_image_processor_or_with_pickled_weights_is_refused(saved, tmp_path) -> None:
    import shutil

    folder = Path(shutil.copytree(saved("vit"), tmp_path / "net"))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="cannot be loaded as a vision model"):
        _load(folder)
    _save_processor(folder, "ViT", SQUARE)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be loaded as a vision model"):
        _load(folder)


def test_an_image_that_the_processor_cannot_take_is_named(saved, tmp_path, monkeypatch) -> None:
    model = _load(saved("vit"))
    monkeypatch.setattr(model, "_processor", lambda **_: {})
    with pytest.raises(DataError, match="cannot take an image of 5 × 3 pixels"):
        model._pixels(Image.new("RGB", (5, 3)))


def test_a_study_runs_with_a_vision_model_and_refuses_it_a_view_of_texts(saved, samples, tmp_path) -> None:
    def study(view: str) -> pr.Study:
        models = [
            {"name": "vit", "kind": "transformers-vision", "weights": str(saved("vit")), "view": view},
            {"name": "pixels", "use": "pixels", "view": "image"},
        ]
        return pr.Study.from_dict(
            {
                "dataset": {"source": str(samples), "samples": 40},
                "models": models,
                "null": {"permutations": 0},
                "run": {"engine": "local", "store": str(tmp_path / "store")},
            }
        )

    result = pr.align(study("image"), quiet=True)
    assert result.layers.filter(model="vit")["layer_name"].to_list() == ["embedding", "block 1", "block 2"]
    assert 0 <= result.matrix("mutual_knn").at("vit", "pixels") <= 1
    with pytest.raises(StudyError, match="Model 'vit' reads image; the view 'en' holds text"):
        pr.align(study("en"), quiet=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_description_is_what_the_loaded_model_has(family, saved) -> None:
    spec = resolve(entry(kind="transformers-vision", weights=str(saved(family)), layers=["embedding", -1]))
    described, model = describe(spec), load(spec)
    assert described.layers == model.layers
    assert len(model.layers) == 2
    assert described.parameters == sum(tensor.numel() for tensor in model._network.parameters())
    assert [rows.shape[1] for rows in model.embed(IMAGES).layers] == [layer.width for layer in model.layers]


def test_a_hubs_snapshot_is_loaded_as_a_folder_is(saved, tmp_path, monkeypatch) -> None:
    """From the hub's own cache, as a download leaves it; the revision is pinned to its commit."""
    import shutil

    commit = "0123456789" * 4
    repo = tmp_path / "models--org--tiny"
    shutil.copytree(saved("dinov2"), repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    spec = resolve(entry(kind="transformers-vision", weights="hub:org/tiny", layers=[-1]))
    assert spec.identity()["weights"]["hub"] == f"org/tiny@{commit}"
    whole = _load(saved("dinov2")).embed(IMAGES).layers
    assert load(spec).embed(IMAGES).layers[0].tobytes() == whole[-1].tobytes()
