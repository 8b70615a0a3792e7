"""Tables of plain text: columns that line up whatever script the names are written in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_GAP = "  "
# Bidirectional overrides and isolates can make a name rewrite its neighbors on the screen.
_DANGEROUS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
_LEFT_TO_RIGHT = "\u200e"


def safe(name: str) -> str:
    """Return a name that can be printed in a line of a table.

    Control characters become `�`. A name with right-to-left letters is closed by an (invisible)
    left-to-right mark: without it, the digits that follow would be drawn on its other side.

    >>> safe("a\\tb")
    'a�b'
    """
    shown = "".join(
        "\ufffd" if letter in _DANGEROUS or unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in name
    )
    right_to_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in shown)
    return shown + _LEFT_TO_RIGHT if right_to_left else shown


def shorten(name: str, most: int) -> str:
    """Return a name of at most `most` characters, its middle left out where it is longer.

    >>> shorten("openai/clip-vit-large-patch14", 15)
    'openai/…patch14'
    """
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[len(name) - tail :]}"


def grid(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    *,
    width: int,
    leave_out_blank: bool = False,
) -> str:
    """Lay out a table of text in at most `width` terminal columns where that can be done at all.

    Columns that do not fit follow in further blocks below, each with its row names. Long column
    names are broken over several lines. `leave_out_blank` drops, in each block, rows without text.
    """
    from rich.cells import cell_len

    widest = max(24, width // 3)
    names = [shorten(safe(row), widest) for row in rows]
    name_width = max([cell_len(name) for name in names], default=0)
    body = [max([cell_len(row[at]) for row in cells], default=0) for at in range(len(columns))]
    # Names in the head are broken no more than it takes to show all columns side by side.
    for line_width in (24, 18, 14, 10):
        headers = [
            _broken(safe(column), max(line_width, least)) for column, least in zip(columns, body, strict=True)
        ]
        widths = [
            max([least, *(cell_len(line) for line in header)])
            for least, header in zip(body, headers, strict=True)
        ]
        if name_width + sum(len(_GAP) + each for each in widths) <= width:
            break

    blocks = []
    for start, stop in _blocks(widths, width - name_width):
        depth = max([len(header) for header in headers[start:stop]], default=0)
        lines = []
        for line in range(depth):
            parts = []
            for at in range(start, stop):
                above = line - (depth - len(headers[at]))
                parts.append(_right(headers[at][above] if above >= 0 else "", widths[at]))
            lines.append(_GAP.join([" " * name_width, *parts]).rstrip())
        lines.append("─" * (name_width + sum(len(_GAP) + widths[at] for at in range(start, stop))))
        for name, row in zip(names, cells, strict=True):
            if leave_out_blank and not any(row[start:stop]):
                continue
            parts = [_right(row[at], widths[at]) for at in range(start, stop)]
            lines.append(_GAP.join([name + " " * (name_width - cell_len(name)), *parts]).rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _blocks(widths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Split columns into runs that fit into `room`, at least one column each."""
    blocks = []
    start, used = 0, 0
    for at, width in enumerate(widths):
        used += len(_GAP) + width
        if at > start and used > room:
            blocks.append((start, at))
            start, used = at, len(_GAP) + width
    return [*blocks, (start, len(widths))]


def _broken(name: str, width: int) -> list[str]:
    """Break a name after its separators, and inside a word only where a word is wider than a line."""
    from rich.cells import cell_len, chop_cells

    lines = [""]
    for part in re.findall(r"[^\s/_.:,-]*(?:[\s/_.:,-]|$)", name):
        if cell_len(lines[-1] + part) <= width:
            lines[-1] += part
        else:
            lines.extend(chop_cells(part, width))
    kept = [line.strip() for line in lines if line.strip()]
    return kept if len(kept) <= 4 else [*kept[:3], "…" + kept[-1][-(width - 1) :]]


def _right(text: str, width: int) -> str:
    from rich.cells import cell_len

    return " " * (width - cell_len(text)) + text
