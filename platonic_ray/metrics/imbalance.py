"""Information imbalance: where one representation's nearest neighbor stands in another (Glielmo et al. 2022).

    Δ(X → Y) = (2 / n) · mean_i of the rank, in Y, of i's nearest neighbor in X

2 / n where the nearest neighbors are the same; 1 on average where X says nothing of Y. Both neighbors and
ranks follow the order of all neighbors here, canonical values and the tie rule, so they are functions of
the prepared rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels import exact_neighbors, neighbor_ranks, tie_keys
from platonic_ray.metrics.base import refuse_others
from platonic_ray.metrics.rows import constants, rows_metric
from platonic_ray.metrics.states import State

_SIMILARITIES = ("inner", "euclidean")


def _unary(rows: Tensor, digest: str, options: Mapping[str, Any]) -> State:
    """Keep the rows `[n, D] float32`, their tie keys `[n]`, and the `nearest` other of each, `[n] int64`."""
    return {
        "rows": rows,
        "keys": tie_keys(digest, torch.arange(rows.shape[0])),
        "nearest": exact_neighbors(rows, 1, digest, options["similarity"]).ids[:, 0],
    }


def _permute(state: State, order: Tensor) -> State:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.shape[0])
    return {
        "rows": state["rows"][order],
        "keys": state["keys"][order],
        "nearest": inverse[state["nearest"][order]],
    }


def _pair(x: State, y: State, options: Mapping[str, Any]) -> tuple[float, str | None]:
    reason = constants(*(bool((side["rows"] == side["rows"][0]).all()) for side in (x, y)))
    if reason:
        return nan, reason
    ranks = neighbor_ranks(y["rows"], y["keys"], x["nearest"], options["similarity"])
    n = ranks.shape[0]
    return 2 * int(ranks.sum()) / n / n, None


def _refuse(options: Mapping[str, Any], n: int | None) -> str | None:
    return refuse_others(options, {"similarity": _SIMILARITIES})


def _chance(n: int, options: Mapping[str, Any]) -> float:
    # Under broken pairing the rank is uniform on 1 … n − 1, whatever the representations.
    return 1.0


def _flops(n: int, dx: int, dy: int) -> float:
    return 2.0 * n * n * dy + 20.0 * n * n


INFORMATION_IMBALANCE = rows_metric(
    name="information_imbalance",
    bounds=(0.0, 2.0),
    min_samples=3,
    description="2/n times the mean rank, in y, of each sample's nearest neighbor in x",
    cost="neighbors once a layer, n² D; then n² Dy a layer pair: about 0.2 s at n = D = 1,024",
    direction="distance",
    symmetric=False,
    unary=_unary,
    pair=_pair,
    permute=_permute,
    options={"similarity": "inner"},
    refuse=_refuse,
    null_mean=_chance,
    pair_flops=_flops,
)
"""Δ(x → y) = (2/n) mean_i rank_y(i, nn_x(i)). Neighbors by inner product of prepared rows, as in the
neighbor metrics (the order of Euclidean distances under the recipe "l2"), or by `similarity =
"euclidean"`, as in the paper."""

METRICS = (INFORMATION_IMBALANCE,)
