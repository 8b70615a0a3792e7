"""Write docs/api.md, the reference of the public names, from their docstrings.

    python jobs/build_api.py

A test holds the file equal to what this makes.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import platonic_ray as pr

FILE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
_HEAD = """# Reference

The public names of `platonic_ray`, from their docstrings (`python jobs/build_api.py` writes this file). Shapes stand
in brackets: `[N, D]` is a matrix of N samples and D features.
"""
# In the order in which one meets them.
_NAMES = (
    *("score", "neighbors", "table", "interval", "growth", "align", "load", "Result", "Study"),
    *("extract", "Scorer", "AlignmentCallback", "PlatonicRayError"),
)


def reference() -> str:
    """Return the text of the reference."""
    rest = [name for name in pr.__all__ if name not in _NAMES]
    return "\n".join([_HEAD, *(_entry(name, getattr(pr, name)) for name in (*_NAMES, *rest))])


def _entry(name: str, found: Any) -> str:
    if not inspect.isclass(found):
        return f"## `pr.{name}`\n\n{_signature(f'pr.{name}', found)}\n\n{_text(found)}\n"
    parts = [f"## `pr.{name}`\n\n{_text(found)}\n"]
    made = vars(found).get("__init__")
    if made is not None and made.__doc__:
        parts.append(f"{_signature(f'pr.{name}', made)}\n\n{_text(made)}\n")
    for method, value in vars(found).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if method.startswith(("_", "model_")):
            continue
        if isinstance(plain, property) and plain.__doc__:
            parts.append(f"### `.{method}`\n\n{_text(plain)}\n")
        elif inspect.isfunction(plain) and plain.__doc__:
            parts.append(f"### `.{method}()`\n\n{_signature(f'.{method}', plain)}\n\n{_text(plain)}\n")
    return "\n".join(parts)


def _signature(name: str, function: Any) -> str:
    every = inspect.signature(function).parameters.values()
    bare = [given.replace(annotation=given.empty) for given in every if given.name not in ("self", "cls")]
    return f"```python\n{name}{inspect.Signature(bare)}\n```"


def _text(found: Any) -> str:
    """Return a docstring as Markdown: fields as a list, examples as blocks."""
    text = inspect.getdoc(found) or ""
    text = re.sub(r"^:param (\w+): ", r"- `\1`: ", text, flags=re.MULTILINE)
    text = re.sub(r"^:returns?: ", "- returns ", text, flags=re.MULTILINE)
    text = re.sub(r"^:raises (\w+): ", r"- raises `\1` ", text, flags=re.MULTILINE)
    text = re.sub(r"((?:^(?:>>>|\.\.\.).*\n?(?:^(?!>>>|\.\.\.|$).*\n?)*)+)", _block, text, flags=re.MULTILINE)
    # A list begins after an empty line.
    return re.sub(r"(?<!\n)\n(?=- )(?<![-:].\n)", "\n", text).strip()


def _block(match: re.Match[str]) -> str:
    return f"```python\n{match[1].rstrip()}\n```\n"


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
    print(f"Wrote {FILE}")
