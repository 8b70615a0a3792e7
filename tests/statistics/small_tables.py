"""Independent representations of every awkward kind, at a size that allows hundreds of tables."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from platonic_ray.digest import digest
from platonic_ray.kernels import exact_neighbors, prepare
from platonic_ray.kernels.ties import Ties

Kind = Callable[[int, torch.Generator], list[Tensor]]


def neighbor_ids(layers: list[Tensor], k: int, g: torch.Generator, ties: Ties = "hash") -> Tensor:
    """The neighbor tables of a model, `[L, n, k]`; as in a study, every model breaks ties its own way.

    (By the content of the rows alone, two layers that are constant would break them alike.)
    """
    model = int(torch.randint(2**62, (1,), generator=g))
    return torch.stack(
        [
            exact_neighbors(prepare(rows, "l2"), k, digest([model, layer]), ties=ties).ids[:, :k]
            for layer, rows in enumerate(layers)
        ]
    )


def gaussian(n: int, g: torch.Generator) -> list[Tensor]:
    """Three layers of different widths that have nothing in common."""
    return [torch.randn(n, width, generator=g) for width in (1, 3, 40)]


def anisotropic(n: int, g: torch.Generator) -> list[Tensor]:
    """A common offset, two outlier dimensions, and layers that drift."""
    x = torch.randn(n, 16, generator=g) * torch.tensor([30.0, 10.0] + [0.5] * 14) + 5
    return [x, x + 0.3 * torch.randn(n, 16, generator=g), x + 3 * torch.randn(n, 16, generator=g)]


def clustered(n: int, g: torch.Generator) -> list[Tensor]:
    """Four clusters whose members are drawn anew for every model."""
    centers = 5 * torch.randn(4, 8, generator=g)
    x = centers[torch.randint(0, 4, (n,), generator=g)] + 0.2 * torch.randn(n, 8, generator=g)
    return [x, x[:, :3].contiguous()]


def one_hot(n: int, g: torch.Generator) -> list[Tensor]:
    """Nearly all similarities are equal: 0, or 1 within a category."""
    return [torch.eye(n)[torch.randint(0, n, (n,), generator=g)] for _ in range(2)]


def duplicated(n: int, g: torch.Generator) -> list[Tensor]:
    """Every row is there twice or more."""
    x = torch.randn(n, 6, generator=g)[torch.randint(0, n // 2, (n,), generator=g)]
    return [x, x.round()]


def collapsed(n: int, g: torch.Generator) -> list[Tensor]:
    """A layer of one point, a layer of zeros, and one that works."""
    return [torch.ones(n, 4), torch.zeros(n, 4), torch.randn(n, 4, generator=g)]


def sparse(n: int, g: torch.Generator) -> list[Tensor]:
    """One or two of eight features are on: many rows are equal, most others orthogonal."""
    on = torch.rand(n, 8, generator=g).topk(2).indices
    x = torch.zeros(n, 8).scatter_(1, on[:, :1], 1.0)
    return [x, x.scatter(1, on, 1.0)]


def stack(n: int, g: torch.Generator) -> list[Tensor]:
    """One to forty layers of several widths that drift from the first."""
    count = int(40 ** float(torch.rand((), generator=g)))
    x = torch.randn(n, 6, generator=g)
    return [
        (x + layer / 20 * torch.randn(n, 6, generator=g))[:, : 1 + layer % 6].contiguous()
        for layer in range(count)
    ]


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (gaussian, anisotropic, clustered, one_hot, sparse, duplicated, collapsed, stack)
}
