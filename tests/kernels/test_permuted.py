"""Inner products of permuted kernels against dense float64 kernels whose rows and columns are permuted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import (
    Anchor,
    Kernel,
    anchors,
    kernel_square,
    permuted,
    permuted_inner,
    rotated_inner,
)
from platonic_ray.kernels.rotations import Squares
from platonic_ray.statistics import rotations as draw_rotations

Stacks = dict[str, list[torch.Tensor]]


def cells_of(stacks: Stacks, kernel: Kernel) -> tuple[Squares, dict[str, int]]:
    """What the functions take: how to make a layer's cells, and how many layers there are."""
    about = {model: anchors(stack, kernel) for model, stack in stacks.items()}

    def square(model: str, layer: int) -> torch.Tensor:
        return kernel_square(stacks[model][layer], kernel, about[model][layer])

    return square, {model: len(stack) for model, stack in stacks.items()}


def dense(rows: torch.Tensor, kernel: Kernel, anchor: Anchor) -> torch.Tensor:
    """The cells of a kernel, plainly, 0 on the diagonal."""
    moved = anchor.scale * (rows.double() - anchor.origin)
    if kernel.form == "linear":
        cells = moved @ moved.T
    else:
        cells = (moved[:, None] - moved).square().sum(2).sqrt() - anchor.offset
    return cells.fill_diagonal_(0)


@given(
    n=st.integers(2, 30),
    form=st.sampled_from(["linear", "euclidean"]),
    precision=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 999),
    count=st.integers(1, 6),
    offset=st.sampled_from([0.0, 1e3]),
    together=st.sampled_from([1, 2, 48]),
    limit=st.sampled_from([1, 4000, 2**30]),
    rotated=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_they_are_those_of_permuted_kernels(
    n, form, precision, seed, count, offset, together, limit, rotated
):
    generator = torch.Generator().manual_seed(seed)
    widths = {"a": (3, 50), "b": (1,), "c": (7, 2, 9)}
    stacks = {
        model: [torch.randn(n, width, generator=generator) + offset for width in of]
        for model, of in widths.items()
    }
    kernel = Kernel(form, precision=precision)
    about = {model: anchors(stack, kernel) for model, stack in stacks.items()}
    drawn = draw_rotations(n, count, seed)
    perms = drawn.permutations()
    pairs = [("a", "b"), ("a", "c"), ("c", "b")]
    if rotated:
        found = rotated_inner(*cells_of(stacks, kernel), pairs, drawn, limit)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(permuted, "_TOGETHER", together)
            patch.setattr(permuted, "_CHUNK", 7 if together == 2 else 1024)
            found = permuted_inner(*cells_of(stacks, kernel), pairs, perms, limit)
    assert list(found) == pairs
    for (x, y), products in found.items():
        assert products.shape == (count, len(widths[x]), len(widths[y]))
        for b, perm in enumerate(perms):
            for i, (rows, anchor) in enumerate(zip(stacks[x], about[x], strict=True)):
                of_x = dense(rows, kernel, anchor)
                for j, (others, other) in enumerate(zip(stacks[y], about[y], strict=True)):
                    of_y = dense(others, kernel, other)[perm][:, perm]
                    size = of_x.norm() * of_y.norm()
                    # float32 rows about an origin far away have few digits left, whoever multiplies them
                    near = 1e-6 if offset == 0 else 1e-3
                    assert abs(products[b, i, j] - (of_x * of_y).sum()) <= near * size + 1e-9


def test_any_portions_of_permutations_have_equal_bytes():
    generator = torch.Generator().manual_seed(0)
    stacks = {model: [torch.randn(40, 8, generator=generator) for _ in range(9)] for model in "abc"}
    cells = cells_of(stacks, Kernel())
    perms = torch.stack([torch.randperm(40, generator=generator) for _ in range(3 * permuted.AT_ONCE)])
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    whole = permuted_inner(*cells, pairs, perms)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        parts = [
            permuted_inner(*cells, pairs, perms[start : start + permuted.AT_ONCE])
            for start in range(0, len(perms), permuted.AT_ONCE)
        ]
    finally:
        torch.set_num_threads(threads)
    for pair, products in whole.items():
        assert torch.equal(products, torch.cat([part[pair] for part in parts]))


def test_a_layer_without_a_kernel_counts_as_nothing():
    stacks = {"flat": [torch.ones(9, 4)], "x": [torch.randn(9, 4)]}
    cells, pairs, drawn = cells_of(stacks, Kernel()), [("flat", "x")], draw_rotations(9, 1, 0)
    assert permuted_inner(*cells, pairs, drawn.permutations())["flat", "x"].item() == 0
    assert rotated_inner(*cells, pairs, drawn)["flat", "x"].item() == 0


@pytest.mark.parametrize("n", [64, 65])
def test_bytes_of_rotated_kernels_depend_on_the_pair_alone(n):
    generator = torch.Generator().manual_seed(0)
    stacks = {model: [torch.randn(n, 8, generator=generator) for _ in range(3)] for model in "abc"}
    cells, drawn = cells_of(stacks, Kernel()), draw_rotations(n, 90, 0)
    assert len(drawn.used()) == 2
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    whole = rotated_inner(*cells, pairs, drawn)
    for pair in pairs:
        some = drawn.some(7, 80)
        assert torch.equal(rotated_inner(*cells, [pair], some)[pair], whole[pair][7:80])
