"""Content addresses: one canonical way to turn values into a sha256.

Keys of everything in a store are made here and only here, so that equal content has equal keys on
every machine and in every version of Python.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def digest(value: Any) -> str:
    """Return the sha256 (64 hex digits) of a JSON-able value in canonical form.

    Canonical: keys sorted, no spaces, non-ASCII kept as UTF-8, no NaN.

    >>> digest({"b": 1, "a": [True, None]}) == digest({"a": [True, None], "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_items(items: Iterable[bytes]) -> str:
    """Return the sha256 of a sequence of byte strings; each is preceded by its length."""
    return digest_streams((len(item), (item,)) for item in items)


def digest_streams(items: Iterable[tuple[int, Iterable[bytes]]]) -> str:
    """Return what `digest_items` does of byte strings that come in parts, each with its whole length.

    >>> digest_streams([(3, [b"a", b"bc"])]) == digest_items([b"abc"])
    True
    """
    state = hashlib.sha256()
    for length, parts in items:
        state.update(length.to_bytes(8, "little"))
        for part in parts:
            state.update(part)
    return state.hexdigest()
