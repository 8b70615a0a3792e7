"""Features of the size and kind of the published table's, from a seed, layer by layer.

12 language models and 17 vision models. A layer is a mixture of factors that all models share and of
its model's own, plus noise, an offset common to all samples, and a few dimensions of great magnitude
and nearly constant, as language models have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LANGUAGE = (
    (25, 1024), (25, 1536), (25, 2048), (31, 2560), (31, 4096), (27, 3200),
    (33, 4096), (41, 5120), (33, 4096), (41, 5120), (61, 6656), (81, 8192),
)  # fmt: skip
VISION = (
    (12, 192), (12, 384), (12, 768), (24, 1024), (12, 768), (24, 1024), (32, 1280), (12, 384), (12, 768),
    (24, 1024), (40, 1536), (12, 768), (24, 1024), (32, 1280), (12, 768), (24, 1024), (32, 1280),
)  # fmt: skip
_SHARED, _OWN, _OUTLIERS = 48, 48, 6


@dataclass(frozen=True)
class Model:
    """A model that was never trained: its name, the seed of its features, how many layers, how wide."""

    name: str
    seed: int
    layers: int
    width: int
    samples: int

    @property
    def bytes(self) -> int:
        """The size of its float32 features."""
        return 4 * self.samples * self.layers * self.width

    def layer(self, index: int) -> Tensor:
        """Return the features of a layer, `[N, D] float32`."""
        shared = _drawn(0, self.samples, _SHARED) * torch.linspace(2, 0.3, _SHARED)
        own = _drawn(self.seed, self.samples, _OWN) * torch.linspace(2, 0.3, _OWN)
        generator = torch.Generator().manual_seed(self.seed * 1000 + index + 1)
        depth = (index + 1) / self.layers
        factors = torch.cat([shared * (0.5 + 2 * depth * (1 - depth)), own], dim=1)
        mixing = torch.randn(_SHARED + _OWN, self.width, generator=generator) / (_SHARED + _OWN) ** 0.5
        features = torch.randn(self.samples, self.width, generator=generator).mul_(0.5)
        features.addmm_(factors, mixing).add_(torch.randn(self.width, generator=generator))
        outliers = torch.randint(0, self.width, (_OUTLIERS,), generator=generator)
        features[:, outliers] += 40 * torch.randn(_OUTLIERS, generator=generator)
        return features

    def all_layers(self) -> list[Tensor]:
        """Return the features of all layers."""
        return [self.layer(index) for index in range(self.layers)]


def paper_models(scale: float, samples: int) -> tuple[list[Model], list[Model]]:
    """Return language and vision models, with `scale` times their layers, one at least."""

    def sized(sizes: Sequence[tuple[int, int]], name: str, first: int) -> list[Model]:
        return [
            Model(f"{name}-{at}", first + at, max(1, round(scale * layers)), width, samples)
            for at, (layers, width) in enumerate(sizes)
        ]

    return sized(LANGUAGE, "language", 1), sized(VISION, "vision", 101)


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
