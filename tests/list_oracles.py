"""What two lists of neighbors have in common, in plain Python, one pair of lists at a time."""

from __future__ import annotations


def overlap(x: list[int], y: list[int]) -> int:
    return len(set(x) & set(y))


def jaccard(x: list[int], y: list[int]) -> float:
    return len(set(x) & set(y)) / len(set(x) | set(y))


def lcs(x: list[int], y: list[int]) -> int:
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def levenshtein(x: list[int], y: list[int]) -> int:
    table = [[i + j for j in range(len(y) + 1)] for i in range(len(x) + 1)]
    for i, a in enumerate(x, 1):
        for j, b in enumerate(y, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a != b))
    return table[-1][-1]


def rank_agreement(x: list[int], y: list[int]) -> float:
    shared = set(x) & set(y)
    if not shared:
        return 0.0
    total = 0.0
    for j in sorted(shared):
        r, s = x.index(j) + 1, y.index(j) + 1
        total += 2 / ((1 + abs(r - s)) * (r + s))
    return total / sum(1 / m for m in range(1, len(shared) + 1))


def cycles(x: list[list[int]], y: list[list[int]]) -> int:
    """How many i are in the union of x's lists of what y lists for i."""
    return sum(i in {back for j in line for back in x[j]} for i, line in enumerate(y))
