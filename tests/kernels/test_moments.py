"""D × D sums of linear kernels against cells in float64, and what they are worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import platonic_ray.kernels.moments as moments
import platonic_ray.metrics.kernel_tables as kernel_tables
from platonic_ray.kernels import Kernel, anchors, l2_normalize
from platonic_ray.kernels.moments import (
    RangeSums,
    column_sums,
    linear_sums,
    range_sums,
    whole_sums,
    worthwhile,
)
from platonic_ray.metrics import score_tables

N = 2100  # more than are scored from held cells


def layers(seed: int, widths: tuple[int, ...], offset: float = 0.0) -> list[torch.Tensor]:
    drawn = np.random.default_rng(seed)
    shared = np.random.default_rng(99).normal(size=(N, 4))
    return [
        torch.from_numpy(
            (shared @ drawn.normal(size=(4, width)) + drawn.normal(size=(N, width)) + offset).astype("f4")
        )
        for width in widths
    ]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_BLOCK", 100)
    monkeypatch.setattr(moments, "LEAF", 300)
    monkeypatch.setattr(moments, "_LEAST_ROWS", 1000)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_sums_are_those_of_the_cells(precision: str) -> None:
    rows = {"x": layers(0, (5, 12)), "y": layers(1, (9,), offset=20.0)}
    kernel = Kernel("linear", precision=precision)  # type: ignore[arg-type]
    about = {model: anchors(stack, kernel) for model, stack in rows.items()}
    sums = linear_sums(rows, [("x", "y")], N, kernel, about)
    close = {"rel": 1e-4 if precision == "float32" else 1e-10}
    cells = {}
    for model, stack in rows.items():
        for layer, of in enumerate(stack):
            moved = of.double() - about[model][layer].origin
            kernel_of = moved @ moved.T
            diagonal = kernel_of.diagonal().clone()
            cells[model, layer] = kernel_of.fill_diagonal_(0)
            assert sums.diagonal[model][layer].tolist() == pytest.approx(diagonal.tolist(), **close)
            scale = float(kernel_of.abs().sum(1).max())
            off = (sums.rows[model][layer] - kernel_of.sum(1)).abs().max()
            assert float(off) < close["rel"] * scale * 1e-2
            assert float(sums.squares[model][layer]) == pytest.approx(float((kernel_of**2).sum()), **close)
    for i in range(2):
        expected = float((cells["x", i] * cells["y", 0]).sum())
        assert float(sums.inner["x", "y"][i, 0]) == pytest.approx(expected, **close)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_scores_differ_from_those_of_cells_in_float64_by_rounding_alone(
    offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    xs = {"a": layers(0, (5, 12), offset), "b": layers(1, (9,), offset), "c": layers(2, (30,))}
    metrics = ["cka", "unbiased_cka"]
    found = score_tables(xs, metrics=metrics)
    monkeypatch.setattr(kernel_tables, "worthwhile", lambda *shapes: False)
    from platonic_ray.metrics import get_metric

    exact = score_tables(xs, metrics=[get_metric(name, precision="float64") for name in metrics])
    for a, b in zip(found, exact, strict=True):
        assert a.status == b.status
        assert np.abs(a.scores - b.scores).max() < 1e-6
        assert not np.array_equal(a.scores, b.scores)  # two ways, not one


@pytest.mark.usefixtures("small_blocks")
def test_the_number_of_threads_changes_no_byte() -> None:
    rows = {"x": [l2_normalize(of) for of in layers(0, (17,))], "y": layers(1, (9,))}
    kernel = Kernel("linear")
    about = {model: anchors(stack, kernel) for model, stack in rows.items()}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            sums = linear_sums(rows, [("x", "y")], N, kernel, about)
            found.append([sums.inner["x", "y"], sums.rows["x"], sums.squares["y"], sums.diagonal["y"]])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.usefixtures("small_blocks")
def test_ranges_of_rows_bring_what_all_rows_together_do() -> None:
    rows = {"x": layers(0, (17, 3)), "y": layers(1, (9,))}
    kernel, pairs = Kernel("linear"), [("x", "x"), ("x", "y"), ("y", "y")]
    about = {model: anchors(stack, kernel) for model, stack in rows.items()}
    whole = linear_sums(rows, [("x", "y")], N, kernel, about)

    def read(model: str, start: int, stop: int) -> list[torch.Tensor]:
        return [layer[start:stop] for layer in rows[model]]

    sums = {model: column_sums(read, model, N, kernel, about[model]) for model in rows}
    cut = [range(start, min(start + 600, N)) for start in range(0, N, 600)]
    found = whole_sums([range_sums(read, pairs, part, kernel, about, sums) for part in cut], pairs)
    for model in rows:
        assert torch.equal(found.rows[model], whole.rows[model])
        assert torch.equal(found.squares[model], whole.squares[model])
        assert torch.equal(found.diagonal[model], whole.diagonal[model])
    assert torch.equal(found.inner["x", "y"], whole.inner["x", "y"])


@pytest.mark.usefixtures("small_blocks")
def test_where_products_lie_in_memory_changes_no_byte_nor_do_threads() -> None:
    rows = {"x": layers(0, (131,)), "y": layers(1, (67,)), "z": layers(2, (93,))}
    kernel = Kernel("linear")
    about = {model: anchors(stack, kernel) for model, stack in rows.items()}
    pairs = [("x", "x"), ("x", "y"), ("y", "y"), ("x", "z"), ("y", "z"), ("z", "z")]

    def read(model: str, start: int, stop: int) -> list[torch.Tensor]:
        return [layer[start:stop] for layer in rows[model]]

    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sums = {model: column_sums(read, model, N, kernel, about[model]) for model in rows}
            part = range_sums(read, pairs, range(N), kernel, about, sums)
            kept = RangeSums({c: p.clone() for c, p in part.products.items()}, part.rows, part.diagonal)
            found += [whole_sums([part], pairs).inner, whole_sums([kept], pairs).inner]
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(found[0][pair], other[pair]) for pair in pairs)


def test_they_are_taken_where_they_are_less_work_and_lose_no_digits() -> None:
    def asked(n: int, widths: tuple[int, ...], form: str = "linear") -> bool:
        return worthwhile({"x": widths, "y": widths}, [("x", "y")], n, Kernel(form))  # type: ignore[arg-type]

    assert asked(100_000, (768,))
    assert not asked(100_000, (768,), "euclidean")
    assert not asked(1024, (768,))
    assert not asked(20_000, (16_384,))  # more columns than a quarter of the rows
    assert not asked(20_000, (4096,) * 4)  # a matrix a layer pair would not fit
