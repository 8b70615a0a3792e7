"""Kind "transformers-video": encoders of short clips (VideoMAE), every hidden state, pooled.

As "transformers-vision" in everything but what goes in: as many frames as the network takes, spread evenly
over the clip. Its tokens are tubelets, patches of a few frames; the encoder sees all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from platonic_ray.datasets import decode_video, evenly
from platonic_ray.errors import DataError
from platonic_ray.models.base import Description, ModelSpec
from platonic_ray.models.vision import VisionModel, configure, describe_as, load_as


class VideoModel(VisionModel):
    """A network of clips and its preprocessing."""

    _BATCH = "batch_clips"

    def _decode(self, item: bytes) -> list[Image.Image]:
        return evenly(decode_video(item), self._network.config.num_frames)

    def _blank(self) -> list[Image.Image]:
        return [Image.new("RGB", (64, 64))] * int(self._network.config.num_frames)

    def _pixels(self, image: list[Image.Image]) -> torch.Tensor:
        """Return the frames of a clip as the network takes them, float32 `[frames, 3, height, width]`."""
        try:
            pixels = self._processor(image, return_tensors="pt")["pixel_values"][0]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(
                f"Model {self._name!r}: its processor cannot take frames of "
                f"{image[0].width} × {image[0].height} pixels: {str(error).splitlines()[0]}"
            ) from None
        return pixels.float()

    def _patches(self, pixels: torch.Tensor) -> int:
        """Return how many tubelets the network cuts clips of `[n, frames, 3, h, w]` pixels into."""
        config = self._network.config
        depth = int(getattr(config, "tubelet_size", 1))
        return (pixels.shape[1] // depth) * super()._patches(pixels)


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> VisionModel:
    """Load a processor and a network, trained or with seeded random weights.

    :raises WeightsError: if the files are not those of a video model, or lack some of its weights.
    :raises StudyError: if the pooling is one that the network does not have.
    """
    return load_as(VideoModel, spec, "video", _configure, device)


def describe(spec: ModelSpec) -> Description:
    """Describe a video model from its configuration and its processor's.

    :raises WeightsError: if they are not understood.
    """
    return describe_as(VideoModel, spec, "video", _configure)


def _configure(spec: ModelSpec, folder: Path) -> Any:
    config = configure(spec, folder)
    if not hasattr(config, "num_frames"):
        raise ValueError(f"{config.model_type} does not say how many frames it takes")
    return config
