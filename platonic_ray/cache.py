"""The user's cache: what can be fetched or made again. Nothing in it is ever part of a key."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return a folder of the cache: below `$PLATONIC_RAY_CACHE`, by default below `~/.cache/platonic-ray`."""
    given = os.environ.get("PLATONIC_RAY_CACHE")
    return (Path(given).expanduser() if given else Path.home() / ".cache" / "platonic-ray") / name
