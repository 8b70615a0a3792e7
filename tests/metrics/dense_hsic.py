"""Plain oracles of the kernel metrics: dense HSIC with the centering matrix written out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def hsic(K: np.ndarray, L: np.ndarray) -> float:
    """Biased HSIC times n², with the centering matrix written out."""
    n = len(K)
    H = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(K @ H @ L @ H))


def hsic_unbiased(K: np.ndarray, L: np.ndarray) -> float:
    """Unbiased HSIC times n (n − 3) (Song et al. 2012), diagonals removed."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    one = np.ones(n)
    return float(
        np.trace(K @ L)
        + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one @ K @ L @ one)
    )


def cka(x: np.ndarray, y: np.ndarray, unbiased: bool = False) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    K, L = x @ x.T, y @ y.T
    of = hsic_unbiased if unbiased else hsic
    return of(K, L) / np.sqrt(of(K, K) * of(L, L))


def exact_cka(x: np.ndarray, y: np.ndarray, unbiased: bool = False) -> float:
    """The same in rational arithmetic, for few samples: no rounding before the last square roots."""
    n = len(x)
    stacks = [[[Fraction(float(v)) for v in row] for row in m] for m in (x, y)]
    kernels = [
        [[sum((a * b for a, b in zip(r, s, strict=True)), Fraction(0)) for s in rows] for r in rows]
        for rows in stacks
    ]
    if unbiased:
        for kernel in kernels:
            for i in range(n):
                kernel[i][i] = Fraction(0)

    def of(K: list[list[Fraction]], L: list[list[Fraction]]) -> Fraction:
        trace = sum(K[i][j] * L[j][i] for i in range(n) for j in range(n))
        r, s = [sum(row) for row in K], [sum(row) for row in L]
        rows = sum(a * b for a, b in zip(r, s, strict=True))
        if unbiased:
            return trace + sum(r) * sum(s) / Fraction((n - 1) * (n - 2)) - 2 * rows / Fraction(n - 2)
        return trace - 2 * rows / Fraction(n) + sum(r) * sum(s) / Fraction(n * n)

    K, L = kernels
    return float(of(K, L)) / float(of(K, K)) ** 0.5 / float(of(L, L)) ** 0.5
