"""Kind "transformers-vision": vision transformers and convolutional networks, every hidden state, pooled.

From a folder or a hub's snapshot, by transformers' `AutoModel` and the image processor saved with it
(its Pillow version always, so that pixels do not depend on whether torchvision is installed; DINOv3 has none,
and gets ViT's with its settings). Of a
model with a text and an image side (CLIP, SigLIP) the image tower alone is loaded. Of a masked
autoencoder (MAE) the encoder sees every patch.

Layers are "embedding" (what enters the first block) and the residual stream after each block, before
any final norm: "block i". Networks whose states are maps (ConvNeXt, ResNet, Swin) have "stage i".
Pooling "mean" is over patches, without class and register tokens, or over a map's positions; "max"
likewise; "first" is the class token; "pooler" is one layer, the output of the model's own head.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from platonic_ray.datasets.images import decode_image
from platonic_ray.errors import DataError, StudyError
from platonic_ray.models.base import Description, Features, ModelSpec, configuration, described
from platonic_ray.models.lanes import run_batches, runs_side_by_side
from platonic_ray.models.layers import POOLER
from platonic_ray.models.pretrained import explained, load_network, random_network, states_of
from platonic_ray.models.transfers import to_device
from platonic_ray.models.weights import locate

_NO_PILLOW = ("DINOv3ViT",)
"""Image processors without a Pillow version, that scale and normalize as ViT's does; it stands in for them."""
_MOST_PREFIX_TOKENS = 16
"""Class, distillation and register tokens that a model may put before its patches."""


class VisionModel:
    """A network of images and its preprocessing."""

    _BATCH = "batch_images"

    def __init__(self, spec: ModelSpec, network: Any, processor: Any, device: str) -> None:
        self._name = spec.name
        self._network = network.eval().to(device)
        self._processor = processor
        self._device = device
        self._poolings = spec.poolings
        self.budget: int = spec.setting(self._BATCH)
        self._side_by_side = runs_side_by_side(network)
        self._takes_noise = "noise" in inspect.signature(network.forward).parameters
        blank = self._pixels(self._blank()).unsqueeze(0)
        states = self._states(blank)
        self.held = sum(state.numel() for state in states)
        prefix = [self._prefix(state, blank) for state in states if state.ndim > 2]
        if "first" in self._poolings and not all(prefix):
            raise StudyError(
                f"Model {self._name!r}: {type(network).__name__} has no class token; "
                'choose another pooling ("mean", "max" or "pooler").'
            )
        maps = any(state.ndim == 4 for state in states)
        names = ["embedding", *(f"{'stage' if maps else 'block'} {i}" for i in range(1, len(states)))]
        if spec.takes_pooler:
            names[-1] = POOLER
        widths = [int(state.shape[1 if state.ndim == 4 else -1]) for state in states]
        self._readout = spec.keep(list(zip(names, widths, strict=True)))
        self.layers = self._readout.layers

    def embed(self, items: Sequence[bytes]) -> Features:
        """Return the pooled hidden states of n encoded images: one float32 `[n, D]` array a layer.

        :raises DataError: if an image cannot be decoded, or the processor cannot take it.
        """
        kept = self._readout.rows(len(items))
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )

        def prepare(start: int) -> list[torch.Tensor]:
            return [self._pixels(self._decode(item)) for item in items[start : start + self.budget]]

        def run(start: int, pixels: list[torch.Tensor]) -> None:
            for rows, batch in _same_shapes(pixels, start):
                kept.put(rows, self._pooled(batch))

        held = self.budget * self.held * self._network.dtype.itemsize if self._side_by_side else None
        with exact:
            run_batches(prepare, run, range(0, len(items), self.budget), self._device, held)
        return Features(kept.features())

    def _pooled(self, pixels: torch.Tensor) -> Callable[[int, str | None], torch.Tensor]:
        """Run a batch; return what gives one of its states pooled one way."""
        states = self._states(pixels)
        return lambda place, pooling: self._pool(states[place], pixels, pooling)

    def _decode(self, item: bytes) -> Any:
        return decode_image(item)

    def _blank(self) -> Any:
        return Image.new("RGB", (64, 64))

    def _pixels(self, image: Any) -> torch.Tensor:
        """Return one image as the network takes it, float32 `[3, height, width]`."""
        try:
            pixels = self._processor(images=[image], return_tensors="np")["pixel_values"][0]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(
                f"Model {self._name!r}: its image processor cannot take an image of "
                f"{image.width} × {image.height} pixels: {str(error).splitlines()[0]}"
            ) from None
        return torch.from_numpy(np.ascontiguousarray(pixels, np.float32))

    def _states(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the hidden states of `[n, 3, h, w]` pixels: `[n, tokens, D]`, or maps `[n, D, h', w']`.

        With the pooling "pooler" the last is what its head gives, `[n, D]`.
        """
        pixels = to_device(pixels, self._device, self._network.dtype)
        more = {}
        if self._takes_noise:  # a masked autoencoder orders its patches by this; keep them as they are
            order = torch.arange(self._patches(pixels), device=pixels.device, dtype=torch.float32)
            more["noise"] = order.repeat(len(pixels), 1)
        with torch.inference_mode():
            output = self._network(pixel_values=pixels, output_hidden_states=True, **more)
        return states_of(output, self._network, self._poolings, f"Model {self._name!r}")

    def _patches(self, pixels: torch.Tensor) -> int:
        """Return how many patches the network cuts an image of `[n, 3, h, w]` pixels into."""
        patch = getattr(self._network.config, "patch_size", None)
        high, wide = (patch, patch) if isinstance(patch, int) else tuple(patch or (1, 1))[-2:]
        return int((pixels.shape[-2] // high) * (pixels.shape[-1] // wide))

    def _prefix(self, state: torch.Tensor, pixels: torch.Tensor) -> int:
        """Return how many tokens of a state stand before those of the patches; a map has none."""
        if state.ndim != 3:
            return 0
        patches = self._patches(pixels)
        prefix = state.shape[1] - patches
        if not 0 <= prefix <= _MOST_PREFIX_TOKENS:
            raise StudyError(
                f"Model {self._name!r}: of {type(self._network).__name__}'s {state.shape[1]} tokens an image "
                f"{patches} were expected to be patches; it is of a kind that is not known here."
            )
        return int(prefix)

    def _pool(self, state: torch.Tensor, pixels: torch.Tensor, pooling: str | None) -> torch.Tensor:
        """Reduce a hidden state to float32 `[n, D]`."""
        if state.ndim == 2:
            return state.float()
        if pooling == "first":
            return state[:, 0].float()  # of the one token: no copy of the others is kept alive by it
        state = state.float()
        tokens = state.flatten(2).mT if state.ndim == 4 else state[:, self._prefix(state, pixels) :]
        return tokens.amax(1) if pooling == "max" else tokens.mean(1)


def _same_shapes(pixels: Sequence[torch.Tensor], start: int) -> list[tuple[list[int], torch.Tensor]]:
    """Stack images of one shape, each with its rows from `start`; processors that do not crop give several.

    >>> [rows for rows, _ in _same_shapes([torch.zeros(1), torch.zeros(2), torch.zeros(1)], 10)]
    [[10, 12], [11]]
    """
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(pixels):
        rows.setdefault(tuple(image.shape), []).append(row)
    return [
        ([start + row for row in same], torch.stack([pixels[row] for row in same])) for same in rows.values()
    ]


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> VisionModel:
    """Load an image processor and a network, trained or with seeded random weights.

    :raises WeightsError: if the files are not those of a vision model, or lack some of its weights.
    :raises StudyError: if the pooling is one that the network does not have.
    """
    return load_as(VisionModel, spec, "vision", configure, device)


def describe(spec: ModelSpec) -> Description:
    """Describe a vision model from its configuration and its image processor's.

    :raises WeightsError: if they are not understood.
    """
    return describe_as(VisionModel, spec, "vision", configure)


def load_as(
    model: type[VisionModel],
    spec: ModelSpec,
    what: str,
    configured: Callable[[ModelSpec, Path], Any],
    device: str,
) -> VisionModel:
    """Load a kind of vision model; `what` it is called in errors, as `load`."""
    assert spec.weights is not None
    folder = locate(spec.weights)
    with explained(spec, folder, what):
        network = load_network(spec, folder, configured(spec, folder))
        return model(spec, network, processor_of(spec, folder), device)


def describe_as(
    model: type[VisionModel], spec: ModelSpec, what: str, configured: Callable[[ModelSpec, Path], Any]
) -> Description:
    """Describe a kind of vision model on the meta device, as `describe`."""
    folder = locate(configuration(spec))
    with explained(spec, folder, what):
        with torch.device("meta"):
            network = random_network(spec, configured(spec, folder))
        made = model(spec, network, processor_of(spec, folder), "meta")
        return described(network, made.layers, made.held)


def processor_of(spec: ModelSpec, folder: Path) -> Any:
    """Return the image processor saved in a folder, in its Pillow version."""
    file = folder / "preprocessor_config.json"
    described = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if str(described.get("image_processor_type")).startswith(_NO_PILLOW):
        described["image_processor_type"] = "ViTImageProcessor"
        return transformers.ViTImageProcessorPil.from_dict(described)
    return transformers.AutoImageProcessor.from_pretrained(
        folder, backend="pil", local_files_only=True, trust_remote_code=spec.setting("trust_remote_code")
    )


def configure(spec: ModelSpec, folder: Path) -> Any:
    """Return the configuration of a folder's vision network, set to give what this module promises."""
    trusted = spec.setting("trust_remote_code")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trusted)
    config = getattr(config, "vision_config", None) or config
    config.tie_last_hidden_states = False  # the last state is the last block's, not its norm's
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
    return config
