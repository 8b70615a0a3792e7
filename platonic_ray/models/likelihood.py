"""How well a causal language model predicts texts: bits per byte, on the pass that gives its features.

Imports torch where it computes, not where results are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Likelihood:
    """What some texts took to predict; sums, so that shards add up.

    `bits` of negative log-likelihood over `text_bytes` bytes of UTF-8; `ratios` is the sum over the
    `texts` texts of each one's own bits over bytes. The first token of a text has no likelihood, unless
    a token that begins every text (BOS) stands before it; `without_context` counts the texts that have
    none.

    >>> (Likelihood(6, 4, 2.5, 2) + Likelihood(2, 4, 0.5, 1)).bits_per_byte
    1.0
    """

    bits: float = 0.0
    text_bytes: int = 0
    ratios: float = 0.0
    texts: int = 0
    without_context: int = 0

    def __add__(self, other: Likelihood) -> Likelihood:
        mine, theirs = asdict(self), asdict(other)
        return Likelihood(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def bits_per_byte(self) -> float:
        """All bits over all bytes: every token weighs the same."""
        return self.bits / self.text_bytes if self.text_bytes else math.nan

    @property
    def bits_per_byte_per_text(self) -> float:
        """The mean over texts of each one's bits over bytes, as the code of Huh et al. (2024) has it."""
        return self.ratios / self.texts if self.texts else math.nan

    @classmethod
    def of(cls, bits: Iterable[float], text_bytes: Iterable[int], without_context: int) -> Likelihood:
        """Add up texts, given the bits and bytes of each."""
        pairs = list(zip(bits, text_bytes, strict=True))
        return cls(
            bits=math.fsum(bit for bit, _ in pairs),
            text_bytes=sum(size for _, size in pairs),
            ratios=math.fsum(bit / size for bit, size in pairs),
            texts=len(pairs),
            without_context=without_context,
        )

    @classmethod
    def sum(cls, noted: Iterable[Mapping[str, Any]]) -> Likelihood:
        """Add up what the manifests of shards say, in their order."""
        total = cls()
        for one in noted:
            total += cls(**one)
        return total


def bits_of_texts(logits: Tensor, ids: Tensor, counts: Tensor) -> list[float]:
    """Return the bits that predicting each text took.

    :param logits: `[batch, tokens, V]`, those at a token being for the next.
    :param ids: `[batch, tokens]`; `counts`, the same shape, says which of them are to be predicted. The
        first never is.
    """
    bits = []
    for row in range(len(ids)):
        asked = counts[row, 1:]
        chances = logits[row, :-1][asked].float().log_softmax(-1)
        nats = -chances.gather(1, ids[row, 1:][asked].unsqueeze(1)).double().sum()
        bits.append(float(nats) / math.log(2))
    return bits
