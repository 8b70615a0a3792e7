"""Plain oracles of what is scored from distances between samples, in float64, by differences."""

from __future__ import annotations

import numpy as np

from .dense_hsic import hsic, hsic_unbiased


def distances(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return np.sqrt(((wide[:, None] - wide[None]) ** 2).sum(2))


def dissimilarities(x: np.ndarray, kind: str) -> np.ndarray:
    if kind == "euclidean":
        return distances(x)
    wide = x.astype(np.float64)
    if kind == "correlation":
        wide = wide - wide.mean(1, keepdims=True)
    norms = np.linalg.norm(wide, axis=1)
    return 1 - wide @ wide.T / np.outer(norms, norms)


def rsa(x: np.ndarray, y: np.ndarray, kind: str) -> float:
    above = np.triu_indices(len(x), 1)
    return float(np.corrcoef(dissimilarities(x, kind)[above], dissimilarities(y, kind)[above])[0, 1])


def rbf(x: np.ndarray, sigma: float | None, median: float | None) -> np.ndarray:
    apart = distances(x)
    if sigma is None:
        of_pairs = apart[np.triu_indices(len(x), 1)].astype(np.float32)  # as documented
        sigma = (median or 1.0) * np.median(of_pairs.astype(np.float64))
    return np.exp(-(apart**2) / (2 * sigma**2))


def rbf_cka(
    x: np.ndarray, y: np.ndarray, unbiased: bool, sigma: float | None = None, median: float | None = None
) -> float:
    of = hsic_unbiased if unbiased else hsic
    K, L = rbf(x, sigma, median), rbf(y, sigma, median)
    return float(of(K, L) / np.sqrt(of(K, K) * of(L, L)))


def u_centered(A: np.ndarray) -> np.ndarray:
    """Székely & Rizzo (2014), eq. 2.4, as it is written; 0 on the diagonal."""
    n = len(A)
    rows, columns = A.sum(1, keepdims=True), A.sum(0, keepdims=True)
    centered = A - rows / (n - 2) - columns / (n - 2) + A.sum() / ((n - 1) * (n - 2))
    return centered * (1 - np.eye(n))


def distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """The bias-corrected squared distance correlation."""
    A, B = u_centered(distances(x)), u_centered(distances(y))
    return float((A * B).sum() / np.sqrt((A * A).sum() * (B * B).sum()))
