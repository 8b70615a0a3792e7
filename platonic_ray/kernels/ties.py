"""Who comes first among equals: a seeded hash of the representation and the sample's id.

Lowest id first would break ties alike in every representation, and unrelated representations with
many equal similarities would then agree by construction (design.md, numerics contract).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from platonic_ray.errors import StudyError

Ties = Literal["hash", "lowest"]
Digest = str | Callable[[], str]
"""A digest, or a function that returns it: of most representations it is never asked, for few have ties."""


def _signed(word: int) -> int:
    """Read a 64-bit word as int64, the only 64-bit integer torch multiplies on every device."""
    return word - 2**64 if word >= 2**63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def tie_keys(digest_hex: str, ids: Tensor) -> Tensor:
    """Return the tie key of every id: among equal similarities the lower key comes first.

    The (id + 1)-th output of splitmix64 (Steele, Lea & Flood 2014) seeded with the first 64 bits of
    the digest, read as int64. For one digest it is a bijection, so no two ids share a key.

    :param digest_hex: digest of the representation, at least 16 hex digits.
    :param ids: int64, any shape.
    :returns: int64, the shape of `ids`; the same on every device.
    :raises ValueError: if the digest is shorter or not hexadecimal.
    """
    if len(digest_hex) < 16:
        raise ValueError(f"a digest of at least 16 hex digits is needed, not {digest_hex!r}")
    word = _signed(int(digest_hex[:16], 16))
    word_and_id = (ids + 1) * _GOLDEN + word
    word_and_id = (word_and_id ^ _logical_shift(word_and_id, 30)) * _MIX_1
    word_and_id = (word_and_id ^ _logical_shift(word_and_id, 27)) * _MIX_2
    return word_and_id ^ _logical_shift(word_and_id, 31)


@dataclass(frozen=True)
class TieRule:
    """How one representation orders equal similarities: by key, then by id.

    `ties="hash"` takes `tie_keys` of the representation's digest; `ties="lowest"` takes the id
    itself (for neighbors alone: scores of pairs need the hash).

    :raises StudyError: if `ties` is neither.
    """

    digest: Digest
    ties: Ties = "hash"

    def __post_init__(self) -> None:
        if self.ties not in ("hash", "lowest"):
            raise StudyError(f'ties must be "hash" or "lowest" (given: {self.ties!r}).')

    def keys(self, ids: Tensor) -> Tensor:
        """Return the int64 key of every id."""
        if self.ties == "lowest":
            return ids
        return tie_keys(self.digest if isinstance(self.digest, str) else self.digest(), ids)

    def order(self, ids: Tensor) -> Tensor:
        """Return the permutation `[n] int64` that puts `ids` `[n]` in tie order."""
        by_id = torch.argsort(ids, stable=True)
        return by_id[torch.argsort(self.keys(ids[by_id]), stable=True)]


def _logical_shift(word: Tensor, by: int) -> Tensor:
    return (word >> by) & ((1 << (64 - by)) - 1)
