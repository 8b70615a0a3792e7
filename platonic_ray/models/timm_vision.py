"""Kind "timm": vision transformers by timm, the residual stream after every block (extra `[timm]`).

From a folder or a hub's snapshot in timm's format (`config.json` and safetensors), with the transform that
timm derives from it for evaluation, as the code of Huh et al. (2024) has it. Layers are "embedding" (what
enters the first block) and "block i", before any final norm: the outputs of `blocks.i`, which that code
calls `blocks.{i}.add_1`. Pooling "first" is the class token, that code's; "mean" and "max" are over patches.

timm needs torchvision, whose builds belong to those of torch: install both together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from platonic_ray.datasets.images import decode_image
from platonic_ray.errors import StudyError, WeightsError
from platonic_ray.models.base import Description, Features, ModelSpec, configuration, described
from platonic_ray.models.lanes import run_batches
from platonic_ray.models.pretrained import explained
from platonic_ray.models.transfers import to_device
from platonic_ray.models.weights import locate


class TimmModel:
    """A network with blocks of transformers, and timm's transform of its input."""

    def __init__(self, spec: ModelSpec, network: Any, device: str) -> None:
        self._network = network.eval().to(device)
        self._device = device
        self.budget: int = spec.setting("batch_images")
        blocks = getattr(network, "blocks", None)
        if blocks is None or not hasattr(network, "num_prefix_tokens"):
            raise StudyError(
                f"Model {spec.name!r}: {type(network).__name__} has no blocks of a vision transformer; "
                "other networks are read by kind 'transformers-vision' or 'module'."
            )
        self._seen = threading.local()  # the states of the batch that a thread runs
        blocks[0].register_forward_pre_hook(lambda _, given: self._seen.states.append(given[0]))
        for block in blocks:
            block.register_forward_hook(lambda _, __, out: self._seen.states.append(out))
        self._prefix = int(network.num_prefix_tokens)
        if "first" in spec.poolings and self._prefix == 0:
            raise StudyError(f"Model {spec.name!r}: it has no class token; choose another pooling.")
        names = ["embedding", *(f"block {index}" for index in range(1, len(blocks) + 1))]
        self._readout = spec.keep([(name, int(network.embed_dim)) for name in names])
        self.layers = self._readout.layers
        patches = int(getattr(getattr(network, "patch_embed", None), "num_patches", 0))
        self._held_bytes = 4 * (self._prefix + patches) * int(network.embed_dim) * len(names)
        self._transform: Any = None

    def embed(self, items: Sequence[bytes]) -> Features:
        """Return the pooled states of n encoded images: one float32 `[n, D]` array a representation.

        :raises DataError: if an image cannot be decoded.
        """
        self._transform = self._transform or _transform(self._network)
        kept = self._readout.rows(len(items))
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        batches = [slice(start, start + self.budget) for start in range(0, len(items), self.budget)]
        with exact:
            run_batches(
                lambda rows: torch.stack([self._transform(decode_image(item)) for item in items[rows]]),
                lambda rows, pixels: kept.put(rows, self._pooled(to_device(pixels, self._device))),
                batches,
                self._device,
                self.budget * self._held_bytes,
            )
        return Features(kept.features())

    def _pooled(self, pixels: torch.Tensor) -> Callable[[int, str | None], torch.Tensor]:
        """Run a batch; return what gives one of its states pooled one way."""
        states = self._seen.states = []
        with torch.inference_mode():
            self._network.forward_features(pixels)

        def pooled(place: int, pooling: str | None) -> torch.Tensor:
            state = states[place].float()
            if pooling == "first":
                return state[:, 0]
            patches = state[:, self._prefix :]
            return patches.amax(1) if pooling == "max" else patches.mean(1)

        return pooled


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> TimmModel:
    """Load a network, trained or with seeded random weights.

    :raises WeightsError: if timm is not installed, or the files are not those of one of its models.
    """
    assert spec.weights is not None
    folder = locate(spec.weights)
    with explained(spec, folder, "timm"):
        return TimmModel(spec, _network(spec, folder, trained=spec.init == "pretrained"), device)


def describe(spec: ModelSpec) -> Description:
    """Describe a network from its configuration.

    :raises WeightsError: as `load`.
    """
    folder = locate(configuration(spec))
    with explained(spec, folder, "timm"):
        with torch.device("meta"):
            network = _network(spec, folder, trained=False)
        return described(network, TimmModel(spec, network, "meta").layers)


def _network(spec: ModelSpec, folder: Path, *, trained: bool) -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise WeightsError(
            f"Model {spec.name!r}: kind 'timm' needs timm and the torchvision that belongs to the torch "
            f"here ({str(error).splitlines()[0]}). Install both: pip install 'platonic-ray[timm]'."
        ) from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return timm.create_model(f"local-dir:{folder}", pretrained=trained)


def _transform(network: Any) -> Any:
    from timm.data import create_transform, resolve_data_config

    return create_transform(**resolve_data_config(network.pretrained_cfg, model=network))
