"""Runs that nobody has made yet: the workloads of the two largest rows of the design's table. Pure."""

from __future__ import annotations

from dataclasses import replace

from platonic_ray.kernels import Kernel
from platonic_ray.plan.workload import ModelShape, Workload

MODELS, LAYERS, WIDTH = 10, 10, 1024
PARAMETERS, TOKENS = 1_000_000_000, 64

ASSUMPTIONS = (
    f"{MODELS * LAYERS} representations: {MODELS} models of {PARAMETERS / 1e9:g}·10⁹ parameters, of which {LAYERS} "
    f"layers of width {WIDTH:,} are kept, float32",
    f"{TOKENS} tokens a sample; two floating-point operations for each parameter and token",
    "mutual kNN, k = 10, and linear CKA by D × D sums in one pass",
)


def corpus() -> Workload:
    """N = 10⁷: every sample a query, tiles of 2¹⁹ rows of one layer."""
    models = tuple(
        ModelShape(f"model {at}", (WIDTH,) * LAYERS, PARAMETERS, 2 * PARAMETERS, TOKENS)
        for at in range(MODELS)
    )
    return Workload(
        n=10_000_000,
        shard_rows=8192,
        block_rows=2**19,
        models=models,
        k=10,
        neighbor_metrics=1,
        kernels=(Kernel("linear"),),
        covariances=True,
        by_layer=True,
    )


def internet() -> Workload:
    """N = 10⁹: 8,192 sampled queries, the gallery streamed."""
    return replace(corpus(), n=1_000_000_000, queries=8192, shard_rows=16_384)
