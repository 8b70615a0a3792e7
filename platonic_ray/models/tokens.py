"""Texts to token ids: the prompt, the first token, the cut at the model's longest input.

What is told of every text beside its ids is which of them are the text's own (special tokens are not),
and how many of its bytes they cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from platonic_ray.errors import DataError, StudyError
from platonic_ray.models.base import ModelSpec


@dataclass(frozen=True)
class Tokens:
    """n texts as ids, one list a text. `cut` are those of which only the beginning is there."""

    ids: list[list[int]]
    cut: frozenset[int] = frozenset()


class Tokenizer:
    """A tokenizer as a study has it: with its prompt, its first token, its longest text.

    :raises StudyError: if a first token is asked for that the tokenizer does not have.
    """

    def __init__(self, spec: ModelSpec, tokenizer: Any, *, vocabulary: int, positions: int) -> None:
        self._name = spec.name
        self.tokenizer = tokenizer
        self._prompt: str = spec.setting("prompt")
        self._vocabulary = vocabulary
        self._most = min(spec.setting("max_tokens"), tokenizer.model_max_length, positions)
        self._begins: bool | None = spec.setting("bos")
        self.bos: int | None = tokenizer.bos_token_id
        if self._begins is not None and self.bos is None:
            raise StudyError(f"Model {spec.name!r}: its tokenizer has no BOS token; leave 'bos' out.")
        self.pad = self._pad()

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Return the token ids of each text.

        :raises DataError: if a text has no token, or one that the network does not know.
        """
        if not texts:
            return Tokens([])
        prompted = [self._prompt.replace("{text}", text) for text in texts]
        whole = [self._begun(ids) for ids in self.tokenizer(prompted, verbose=False)["input_ids"]]
        long = [row for row, ids in enumerate(whole) if len(ids) > self._most]
        for row in long:  # cut by the tokenizer, which keeps the special tokens at the end
            whole[row] = self._cut(prompted[row])
        for text, ids in zip(texts, whole, strict=True):
            if not ids:
                raise DataError(
                    f"Model {self._name!r} finds no token in the text {text[:80]!r}; leave it out."
                )
            if max(ids) >= self._vocabulary:
                raise DataError(
                    f"Model {self._name!r} has {self._vocabulary} tokens, and its tokenizer gives the text "
                    f"{text[:80]!r} the token {max(ids)}: tokenizer and weights do not belong together."
                )
        return Tokens(whole, frozenset(long))

    def own(self, ids: Sequence[int]) -> list[bool]:
        """Return which ids are a text's own and no special token that stands around it."""
        named = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
        special = {getattr(self.tokenizer, name) for name in named}
        first = next((at for at, one in enumerate(ids) if one not in special), len(ids))
        last = next((at for at in reversed(range(len(ids))) if ids[at] not in special), -1)
        return [first <= at <= last for at in range(len(ids))]

    def covered_bytes(self, text: str, ids: Sequence[int]) -> int:
        """Return how many UTF-8 bytes of a text that was cut its ids stand for."""
        own = sum(self.own(ids))
        if not self.tokenizer.is_fast:
            return len(self.tokenizer.decode(ids, skip_special_tokens=True).encode())
        plain = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return len(text[: max((stop for _, stop in plain["offset_mapping"][:own]), default=0)].encode())

    def _begun(self, ids: list[int]) -> list[int]:
        """Return ids with the first token as the study has it: added, left out, or as the tokenizer does."""
        there = bool(ids) and ids[0] == self.bos
        if self._begins is None or self._begins == there or self.bos is None:
            return ids
        return [self.bos, *ids] if self._begins else ids[1:]

    def _cut(self, text: str) -> list[int]:
        more = 0
        while True:  # a first token that is added or left out makes the tokenizer's own limit another
            ids = self.tokenizer(text, truncation=True, max_length=self._most + more)["input_ids"]
            begun = self._begun(ids)
            if len(begun) == self._most:
                return begun
            more += self._most - len(begun)

    def _pad(self) -> int:
        """Return the id that fills up a batch. It is masked, so any id that the network knows will do."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None and 0 <= token < self._vocabulary:
                return int(token)
        return 0
