"""Study files: TOML read and written, and the paths in it, which are relative to the file."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from platonic_ray.errors import StudyError


def read_toml(path: Path) -> dict[str, Any]:
    """Return what stands in a study file, not yet validated.

    :raises StudyError: if the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(
            f"There is no study file at {path}. "
            f"`platonic-ray demo --write {path.name}` writes one to start from."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"The study file {path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path} is not valid TOML: {error}.") from None


def as_toml(value: Any) -> str:
    """Return a value of a study as it stands in TOML, tables inline."""
    if isinstance(value, dict):
        inside = (
            f"{json.dumps(k, ensure_ascii=False)} = {as_toml(v)}" for k, v in value.items() if v is not None
        )
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def sample_path(source: str, folder: Path) -> str:
    """Resolve a source of samples that is a path: neither an embedded one's name, nor a URI, nor on a hub."""
    if source.startswith("hub:") or "://" in source or not re.search(r"[./\\]", source):
        return source
    return absolute(source, folder)


def absolute(path: str, folder: Path) -> str:
    """Return a path of a study file in full."""
    expanded = Path(path).expanduser()
    return str(expanded if expanded.is_absolute() else (folder / expanded).resolve())
