"""Kernel sums made model by model from held cells are those of the rows of all models, byte for byte."""

import pytest
import torch

from platonic_ray.kernels import Cells, Kernel
from platonic_ray.metrics import Metric, get_metric, kernel_tables, score_tables, table

N = 600
METRICS: list[Metric] = [
    get_metric("cka"),
    get_metric("unbiased_cka", precision="float64"),
    get_metric("cka", kernel="rbf"),
    get_metric("rsa", dissimilarity="euclidean"),
]


def models(names: str, seed: int) -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: [torch.randn(N, width, generator=generator) for width in (5, 70, 4100)[: 1 + at]]
        for at, name in enumerate(names)
    }


@pytest.mark.parametrize("ys", [None, models("uv", 1)], ids=["square", "cross"])
def test_held_cells_and_held_rows_give_equal_bytes(ys, monkeypatch):
    xs = models("abc", 0)
    by_cells = score_tables(xs, ys, METRICS)
    monkeypatch.setattr(table, "cells_fit", lambda *_: False)
    by_rows = score_tables(xs, ys, METRICS)
    assert len(by_cells) == len(METRICS) * (6 if ys else 3)
    for one, other in zip(by_cells, by_rows, strict=True):
        assert one.scores.tobytes() == other.scores.tobytes(), one.metric.label
        assert one.status == other.status


def test_features_are_asked_for_once_and_cells_go_when_no_model_needs_them(monkeypatch):
    held: list[int] = []
    add = kernel_tables.KernelTables.add_cells

    def watched(self, side, cells):
        add(self, side, cells)
        held.append(len(self._held[METRICS[0].kernel]))

    monkeypatch.setattr(kernel_tables.KernelTables, "add_cells", watched)
    calls: list[str] = []

    def maker(name, layers):
        def make():
            calls.append(name)
            return layers

        return make

    xs, ys = models("ab", 0), models("uvw", 1)
    late = [{name: maker(name, layers) for name, layers in side.items()} for side in (xs, ys)]
    made = score_tables(*late, METRICS[:1])
    assert calls == ["a", "b", "u", "v", "w"]
    assert held == [1, 2, 2, 2, 0]
    for one, other in zip(made, score_tables(xs, ys, METRICS[:1]), strict=True):
        assert one.scores.tobytes() == other.scores.tobytes()


def test_cells_are_held_where_they_take_little_or_less_than_rows():
    narrow, wide = ([torch.empty(1, width).expand(5000, width)] * 20 for width in (8, 20_000))
    kernels = [Kernel()]
    assert Cells.bytes_of_layer(5000, Kernel()) == pytest.approx(4 * 5000**2 / 2, rel=0.06)
    assert kernel_tables.cells_fit(5000, kernels, [narrow[:10]])
    assert not kernel_tables.cells_fit(5000, kernels, [narrow, narrow])
    assert kernel_tables.cells_fit(5000, kernels, [wide, wide])
    assert kernel_tables.cells_fit(1024, kernels, None)
    assert not kernel_tables.cells_fit(5000, kernels, None)
