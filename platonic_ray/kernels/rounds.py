"""Which parts of two blocks of rows meet when, so that threads never share a query.

What a tile offers changes the state of the queries on both sides of it. Work goes by rounds: in a round no two
pairs of parts have a row in common, and all pairs of a round are done before the next begins.
"""

from __future__ import annotations

Pair = tuple[range, range]

GRAIN = 32
"""Parts begin at multiples of so many rows of their block: of panels of matrix units, see `matrix_units`."""


def rounds(rows: range, columns: range, threads: int, both: bool = True) -> list[list[Pair]]:
    """Return rounds of pairs of parts, at most `threads` a round, that together are `rows` × `columns`.

    The same range twice is a block with itself: every two rows of it meet in one pair; a part meets itself.

    :param both: whether the columns are queries too; if not, they need not be kept apart.
    """
    if rows == columns:
        return _tournament(_parts(rows, 2 * threads if threads > 1 else 1), threads)
    ours = _parts(rows, threads)
    if not both:
        return [[(part, columns) for part in ours]]
    theirs = _parts(columns, threads)
    if len(ours) > len(theirs):
        return [[(b, a) for a, b in pairs] for pairs in _squares(theirs, ours)]
    return _squares(ours, theirs)


def _squares(few: list[range], many: list[range]) -> list[list[Pair]]:
    """A Latin square: in every round each of the few meets another of the many."""
    return [
        [(part, many[(at + shift) % len(many)]) for at, part in enumerate(few)] for shift in range(len(many))
    ]


def _tournament(parts: list[range], threads: int) -> list[list[Pair]]:
    """Everyone meets itself, then everyone else once, as in a tournament (the circle method)."""
    alone = [(part, part) for part in parts]
    found = [alone[start : start + threads] for start in range(0, len(alone), threads)]
    seats: list[range | None] = [*parts, None] if len(parts) % 2 else [*parts]
    for _ in range(len(seats) - 1):
        facing = zip(seats[: len(seats) // 2], reversed(seats[len(seats) // 2 :]), strict=True)
        pairs = [(min(a, b, key=_start), max(a, b, key=_start)) for a, b in facing if a and b]
        found += [pairs[start : start + threads] for start in range(0, len(pairs), threads)]
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found


def _start(part: range) -> int:
    return part.start


def _parts(rows: range, count: int) -> list[range]:
    """Cut rows into `count` parts or fewer, all but the last of the same whole number of grains."""
    step = max(GRAIN, -(-len(rows) // (count * GRAIN)) * GRAIN)
    return [range(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]
