"""Sums over pairs of samples under all rotations of one ring of the samples, at once.

Put the n samples on a ring in random order. Rotating one representation by b places against the other
makes Σ_ij A_ij B_ij a correlation along every diagonal of the two matrices, taken in the ring's order:

    S(b) = Σ_d Σ_p A[p, p + d] B[p + b, p + b + d]

whose Fourier transform over b is Σ_d conj(Â_d(f)) B̂_d(f): for every frequency f, one small matrix product
over the diagonals d gives all layer pairs. All n rotations together cost about as much as two dense
products (one where a diagonal and its mirror image are the same), where n permutations cost n.

Rotations are a group, so a test against them is exact (`statistics.permutations` has the argument). More
than n − 1 permutations are made by several rings whose samples were shuffled before (`turns`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels.threads import each

Key = Any
"""What the caller calls a model: anything hashable."""

Slot = tuple[Key, int]
"""A layer: its model, and its place there."""

Squares = Callable[[Key, int], Tensor]
"""Returns the cells of a layer of a model, `[n, n]`, 0 on the diagonal."""

_HELD_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Rotations:
    """Permutations of n samples that are rotations of a ring.

    `ring` `[n]`: the sample at every place of it. `turns` `[M, n]`: permutations that come before, the
    first of which moves nothing. `picks` `[K]`: which of the M n permutations are wanted, number m n + b
    being rotation b of turn m. All int64.
    """

    ring: Tensor
    turns: Tensor
    picks: Tensor

    @property
    def n(self) -> int:
        """The number of samples."""
        return self.ring.shape[0]

    def permutations(self) -> Tensor:
        """Return them one by one, `[K, n] int64`: the sample that is put at every place."""
        place = self.ring.argsort()
        turn, by = self.picks // self.n, self.picks % self.n
        rotated = self.ring[(place + by[:, None]) % self.n]
        return self.turns[turn].gather(1, rotated)

    def some(self, start: int, stop: int) -> Rotations:
        """Return those number `start` to `stop − 1`."""
        return Rotations(self.ring, self.turns, self.picks[start:stop])

    def used(self) -> list[int]:
        """Return the turns of which any rotation is wanted."""
        return sorted(set((self.picks // self.n).tolist()))


@dataclass(frozen=True)
class _Spectrum:
    """A layer's kernel as `permuted` has it, c u_ij + α_i + α_j, in frequencies along the ring.

    `unit` `[F, n / 2] complex64` of u; `length` c; `added` `[F] complex128` of α; `total` Σ α.
    """

    unit: Tensor
    length: float
    added: Tensor
    total: float


def rotated_inner(
    square: Squares,
    layers: Mapping[Key, int],
    pairs: Collection[tuple[Key, Key]],
    rotations: Rotations,
    limit_bytes: int = _HELD_BYTES,
) -> dict[tuple[Key, Key], Tensor]:
    """Return Σ_{i≠j} K_ij L_π(i)π(j) of every layer pair of pairs of models, `[K, Lx, Ly] float64`.

    K is the kernel of the first model of a pair, L that of the second, whose samples are permuted. The
    part of the kernels that is no sum of a row's and a column's number is multiplied in float32, as in
    `permuted_inner`. A layer whose kernel is not finite counts as 0. Bytes depend on the pair alone.

    :param square: makes the cells of a layer, which are symmetric; may be called several times for it.
    :param layers: how many every model has.
    :param limit_bytes: how much memory spectra take, if it can be helped.
    """
    n, count = rotations.n, rotations.picks.shape[0]
    found = {(x, y): torch.zeros(count, layers[x], layers[y], dtype=torch.float64) for x, y in pairs}
    most = max(1, limit_bytes // 2 // (8 * (n // 2 + 1) * max(1, n // 2)))

    def spectra(slots: Sequence[Slot], turn: int) -> dict[Slot, _Spectrum]:
        order = rotations.turns[turn][rotations.ring]
        other = order[(torch.arange(n) + torch.arange(1, n // 2 + 1)[:, None]) % n]
        made = each(lambda slot: _spectrum(square(*slot), order, other), slots)
        return dict(zip(slots, made, strict=True))

    for group in _groups({x for x, _ in pairs}, layers, most):
        of_x = spectra(group, 0)
        for turn in rotations.used():
            here = (rotations.picks // n == turn).nonzero()[:, 0]
            by = rotations.picks[here] % n
            partners = {y for x, y in pairs if x in {model for model, _ in group}}
            for other in _groups(partners, layers, most):
                known = {slot: of_x[slot] for slot in other if turn == 0 and slot in of_x}
                of_y = known | spectra([slot for slot in other if slot not in known], turn)
                blocks = list(_blocks(group, other, pairs))
                sides = [([of_x[x] for x in xs], [of_y[y] for y in ys]) for _, xs, ys in blocks]
                products = each(partial(_product, n=n, by=by), sides)
                for (pair, (first, *_), (second, *_)), product in zip(blocks, products, strict=True):
                    rows = slice(first[1], first[1] + product.shape[1])
                    columns = slice(second[1], second[1] + product.shape[2])
                    found[pair][here, rows, columns] = product
    return found


def _groups(models: Collection[Key], layers: Mapping[Key, int], most: int) -> Iterator[list[Slot]]:
    """Put layers together in groups of at most `most`, in the order of `layers`; a large model is cut."""
    group: list[Slot] = []
    for model in (model for model in layers if model in models):
        slots = [(model, layer) for layer in range(layers[model])]
        if group and len(group) + len(slots) > most:
            yield group
            group = []
        while len(slots) > most:
            yield slots[:most]
            slots = slots[most:]
        group += slots
    if group:
        yield group


def _blocks(
    group: Sequence[Slot], other: Sequence[Slot], pairs: Collection[tuple[Key, Key]]
) -> Iterator[tuple[tuple[Key, Key], list[Slot], list[Slot]]]:
    """Iterate over what two groups hold of every pair of models."""
    for x, y in pairs:
        xs, ys = ([slot for slot in slots if slot[0] == of] for slots, of in ((group, x), (other, y)))
        if xs and ys:
            yield (x, y), xs, ys


def _spectrum(square: Tensor, order: Tensor, other: Tensor) -> _Spectrum:
    """Return a kernel's spectrum, its samples in an order along the ring.

    :param other: `[n / 2, n]`, the sample that is d = 1, 2, … places further.
    """
    n = square.shape[0]
    sums = square.sum(1, dtype=torch.float64)
    alpha = sums / (n - 2) - sums.sum() / (2 * (n - 1) * (n - 2)) if n > 2 else sums / 2
    cells = square.flatten().take(order * n + other).double()
    cells -= alpha[other]
    alpha = alpha[order]
    cells -= alpha
    if n % 2 == 0:
        cells[-1] *= 0.5**0.5  # its cells are met twice on the way round
    length = float(torch.linalg.vector_norm(cells))
    if not 0 < length < float("inf"):
        cells, length = torch.zeros_like(cells), 0.0
        alpha = alpha if bool(torch.isfinite(alpha).all()) else torch.zeros_like(alpha)
    else:
        cells /= length
    return _Spectrum(
        torch.fft.rfft(cells.float()).T.contiguous(), length, torch.fft.rfft(alpha), float(alpha.sum())
    )


def _product(sides: tuple[Sequence[_Spectrum], Sequence[_Spectrum]], *, n: int, by: Tensor) -> Tensor:
    """Return Σ_{i≠j} K_ij L_π(i)π(j) of some layers under rotations `by`, `[B, Lx, Ly] float64`."""
    xs, ys = sides
    of_x = torch.stack([x.unit for x in xs], 1).conj()
    of_y = torch.stack([y.unit for y in ys], 2)
    lengths = torch.outer(*(_column([of.length for of in side]) for side in (xs, ys)))
    products = torch.bmm(of_x, of_y).to(torch.complex128).mul_(lengths)
    added_x, added_y = (torch.stack([of.added for of in side], 1) for side in (xs, ys))
    products += (n - 2) * added_x.conj()[:, :, None] * added_y[:, None]
    totals = torch.outer(*(_column([of.total for of in side]) for side in (xs, ys)))
    turned = torch.fft.irfft(products.permute(1, 2, 0).contiguous(), n)
    return 2 * (turned[:, :, by].permute(2, 0, 1) + totals)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
