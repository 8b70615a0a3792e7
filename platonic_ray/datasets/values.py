"""From a value of a column to the item that a model reads: a text, the bytes of a file, or a list of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from platonic_ray.datasets.columns import Kind

_FILES = {"image": "an image file", "audio": "an audio file", "video": "a video file"}


def item_of(value: Any, kind: Kind, folder: Path | None) -> tuple[Any, str]:
    """Return a column's value as an item, or a list of items, and ""; or None and why there is none.

    :param folder: what paths of files are relative to.

    >>> item_of("a dog", "text", None), item_of([], "text", None)
    (('a dog', ''), (None, 'an empty list of items'))
    """
    if not isinstance(value, list):
        item, reason = (value, "") if kind == "text" else _encoded_file(value, kind, folder)
        return item, reason or ("missing (null)" if item is None else "")
    items = []
    for number, one in enumerate(value, 1):
        item, reason = item_of(one, kind, folder)
        if item is None:
            return None, f"item {number} of {len(value)}: {reason}"
        items.append(item)
    return (items, "") if items else (None, "an empty list of items")


def _encoded_file(value: Any, kind: Kind, folder: Path | None) -> tuple[bytes | None, str]:
    """Return the value of a column of files as encoded bytes, or None and why there are none."""
    if isinstance(value, dict):
        value = value["bytes"] if value["bytes"] is not None else value["path"]
    if value is None or isinstance(value, bytes):
        return value, ""
    path = (folder or Path()) / Path(value).expanduser()
    if not value.strip():
        return None, f"empty path of {_FILES[kind]}"
    try:
        return path.read_bytes(), ""
    except FileNotFoundError:
        return None, f"{kind} file {path} does not exist"
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return None, f"{kind} file {path} cannot be read ({why})"
