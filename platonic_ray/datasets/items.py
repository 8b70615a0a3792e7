"""What an item is, whatever view it is of: its content's digest, and why no model could use it."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from platonic_ray.datasets.audio import decode_audio
from platonic_ray.datasets.columns import Kind
from platonic_ray.datasets.images import decode_image
from platonic_ray.datasets.video import decode_video
from platonic_ray.digest import digest, digest_items
from platonic_ray.errors import DataError

_DECODERS: Mapping[str, Callable[[bytes], object]] = {
    "image": decode_image,
    "audio": decode_audio,
    "video": decode_video,
}
_LIBRARIES: Mapping[str, str] = {"image": "pillow", "audio": "soundfile", "video": "pillow"}


def items_digest(items: Sequence[Any]) -> str:
    """Return the sha256 of the content of samples in their order: texts, encoded files, row numbers, or lists."""
    return digest_items(encoded(item) for item in items)


@dataclass(frozen=True)
class Shard:
    """Items of consecutive rows. With `counts`, so many rows in a row share each item."""

    items: tuple[Any, ...]
    counts: tuple[int, ...] | None = None

    def digest(self) -> str:
        """Return the sha256 of the content alone, of what is shared and by how many too."""
        content = items_digest(self.items)
        return content if self.counts is None else digest({"items": content, "counts": list(self.counts)})


UNREAD = ("does not exist", "cannot be read (")
"""What is said of files that are not there, or fail: they may be read another time."""


@dataclass(frozen=True)
class Problem:
    """A sample that no model can use in a view, and why."""

    row: int
    id: str
    view: str
    reason: str

    @property
    def lasting(self) -> bool:
        """Whether it is of the sample's content, and not of a file that could not be read this time."""
        return not any(why in self.reason for why in UNREAD)

    def __str__(self) -> str:
        return f"row {self.row} (id {self.id}), {self.view}: {self.reason}"


def fault_of(item: Any, kind: Kind) -> str:
    """Return why an item that is there cannot be used, or ""."""
    if isinstance(item, list):
        faults = (
            f"item {at} of {len(item)}: {why}"
            for at, one in enumerate(item, 1)
            if (why := fault_of(one, kind))
        )
        return next(faults, "")
    if isinstance(item, bytes):
        try:
            _DECODERS[kind](item)
        except DataError as error:
            return str(error)
        return ""
    if not item:
        return "empty text"
    return "" if item.strip() else "blank text (only white space)"


def decoders_of(kinds: Collection[Kind]) -> dict[str, str]:
    """Return the versions of the libraries that decide whether items of these kinds can be used."""
    versions = {}
    for library in sorted({_LIBRARIES[kind] for kind in kinds if kind in _LIBRARIES}):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions


def encoded(item: Any) -> bytes:
    if isinstance(item, list):  # a list of one is another content than that one
        return b"[" + digest_items(map(encoded, item)).encode()
    return item if isinstance(item, bytes) else str(item).encode()
