"""Plain oracles, written apart from the library: dense, slow and obvious."""

from __future__ import annotations

import numpy as np

MASK = 2**64 - 1


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """The canonical order in pure Python: 64 lanes, then halves."""
    lanes = [0.0] * 64
    for position in range(len(a)):
        lanes[position % 64] += float(a[position]) * float(b[position])
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [lanes[lane] + lanes[lane + half] for lane in range(half)]
    return lanes[0]


def squared_distance(a: np.ndarray, b: np.ndarray) -> float:
    lanes = [0.0] * 64
    for position in range(len(a)):
        difference = float(a[position]) - float(b[position])
        lanes[position % 64] += difference * difference
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [lanes[lane] + lanes[lane + half] for lane in range(half)]
    return lanes[0]


def dense(rows: np.ndarray, similarity: str = "inner") -> np.ndarray:
    """All canonical values `[n, n] float64`, in numpy: the order over 64 lanes, vectorized over pairs."""
    n, width = rows.shape
    padded = np.zeros((n, -(-width // 64) * 64))
    padded[:, :width] = rows
    lanes = np.zeros((n, n, 64))
    for start in range(0, padded.shape[1], 64):
        part = padded[:, start : start + 64]
        if similarity == "inner":
            lanes = lanes + part[:, None] * part[None]
        else:
            difference = part[:, None] - part[None]
            lanes = lanes + difference * difference
    while lanes.shape[2] > 1:
        half = lanes.shape[2] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def tie_key(digest: str, sample: int) -> int:
    """Output number id + 1 of splitmix64 seeded by the digest, as a signed integer."""
    z = (int(digest[:16], 16) + (sample + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


def neighbors(
    rows: np.ndarray, k: int, digest: str, similarity: str = "inner", ties: str = "hash"
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and values `[n, k]` by sorting each whole row by (value, key, id)."""
    values = dense(rows, similarity)
    sign = -1 if similarity == "inner" else 1
    n = len(rows)
    keys = [tie_key(digest, sample) if ties == "hash" else sample for sample in range(n)]
    ids = np.array(
        [
            sorted((j for j in range(n) if j != i), key=lambda j: (sign * values[i, j], keys[j], j))[:k]
            for i in range(n)
        ]
    )
    return ids, np.take_along_axis(values, ids, 1)


def overlap(ids_x: np.ndarray, ids_y: np.ndarray) -> np.ndarray:
    """Shared ids of every layer pair, by Python sets."""
    return np.array(
        [
            [sum(len(set(a) & set(b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)) for y in ids_y]
            for x in ids_x
        ]
    )
