"""Kind "efficientnet-lite": convolutional networks trained on ImageNet's labels, stage by stage.

Layers are the stem, the seven stages and the head, each averaged over its positions. The
square in an image's middle is scaled (bicubic) to the network's size, 224, 240 or 260 pixels; the
input is (rgb − 127) / 128, as the networks were trained.

On one CPU core batches of 4 with channels last keep the feature maps in its cache: lite0's
forward pass was about three times as fast as with batches of 32 in the default layout (52 against 12
to 18 images a second). On a GPU a study may ask for more.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image

from platonic_ray.datasets.images import decode_image
from platonic_ray.errors import WeightsError
from platonic_ray.models.base import Description, Features, ModelSpec, described
from platonic_ray.models.kinds import IMAGE_SIZES
from platonic_ray.models.lanes import run_batches
from platonic_ray.models.transfers import to_device
from platonic_ray.models.weights import locate


class EfficientNetModel:
    """An EfficientNet-lite cut into stages."""

    def __init__(self, spec: ModelSpec, network: Any, device: str) -> None:
        self._network = network.eval().to(device, memory_format=torch.channels_last)
        for module in network.modules():
            if isinstance(module, torch.nn.ReLU6):
                module.inplace = True  # each is of what a normalization made for it alone
        self._device = device
        self._size = IMAGE_SIZES[str(spec.architecture)]
        self._mean, self._std = spec.setting("mean"), spec.setting("std")
        self.budget: int = spec.setting("batch_images")
        blank = torch.zeros((1, 3, self._size, self._size), device=device)
        with torch.inference_mode():
            shapes = [state.shape[1:] for state in self._states(blank)]
        widths = [shape[0] for shape in shapes]
        self._held_bytes = 4 * sum(shape.numel() for shape in shapes)
        names = ["stem", *(f"stage {index}" for index in range(1, len(widths) - 1)), "head"]
        self._readout = spec.keep(list(zip(names, widths, strict=True)))
        self.layers = self._readout.layers

    def embed(self, items: Sequence[bytes]) -> Features:
        """Return the averaged feature maps of n encoded images: one float32 `[n, D]` array a layer.

        :raises DataError: if an image cannot be decoded.
        """
        kept = self._readout.rows(len(items))
        wanted = {place for place, _ in self._readout.parts}
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )

        def run(rows: slice, rgb: NDArray[np.uint8]) -> None:
            means = {
                place: state.mean(dim=(2, 3))
                for place, state in enumerate(self._states(self._pixels(rgb)))
                if place in wanted
            }
            kept.put(rows, lambda place, _: means[place])

        batches = [slice(start, start + self.budget) for start in range(0, len(items), self.budget)]
        with exact:
            run_batches(
                lambda rows: self._decode(items[rows]),
                run,
                batches,
                self._device,
                self.budget * self._held_bytes,
            )
        return Features(kept.features())

    def _decode(self, images: Sequence[bytes]) -> NDArray[np.uint8]:
        """Return the pixels of encoded images, cut and scaled: uint8 `[n, size, size, 3]`."""
        return np.stack([np.asarray(square(decode_image(image), self._size)) for image in images])

    def _pixels(self, rgb: NDArray[np.uint8]) -> torch.Tensor:
        """Return the network's input, float32 `[n, 3, size, size]`."""
        pixels = to_device(torch.from_numpy(rgb), self._device).permute(0, 3, 1, 2).float()  # channels last
        return (pixels - self._mean) / self._std

    def _states(self, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        """Give the feature maps `[n, D, h, w]` of the stem, of each stage's last block, and of the head.

        A stage begins where the number of channels changes, as it does between all of them. None is written
        to later: activations are in place, and each follows a convolution and a normalization.
        """
        network = self._network
        state = network._swish(network._bn0(network._conv_stem(pixels)))
        yield state
        for block, following in itertools.zip_longest(network._blocks, network._blocks[1:]):
            state = block(state)
            if (
                following is None
                or following._block_args.input_filters != following._block_args.output_filters
            ):
                yield state
        yield network._swish(network._bn1(network._conv_head(state)))


def square(image: Image.Image, size: int) -> Image.Image:
    """Cut the square in an image's middle, as wide as its shorter side, and scale it to `size`."""
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    cut = image.crop((left, top, left + shorter, top + shorter))
    return cut.resize((size, size), Image.Resampling.BICUBIC)


def describe(spec: ModelSpec) -> Description:
    """Describe a network, built without numbers."""
    with torch.device("meta"):
        network = EfficientNet.from_name(spec.architecture)
    return described(network, EfficientNetModel(spec, network, "meta").layers)


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> EfficientNetModel:
    """Load a network, trained or with seeded random weights.

    :raises WeightsError: if the file is not a state dict of exactly this architecture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        network = EfficientNet.from_name(spec.architecture)
    if spec.init == "pretrained":
        assert spec.weights is not None
        folder = locate(spec.weights)
        files = [spec.file] if spec.file else [name for name, _ in spec.weights.files] or ["*.pth"]
        file = next(iter(sorted(folder.glob(files[0]))))
        try:
            network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), strict=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise WeightsError(
                f"Model {spec.name!r}: {file} does not hold the weights of {spec.architecture}: {reason}"
            ) from None
    return EfficientNetModel(spec, network, device)
