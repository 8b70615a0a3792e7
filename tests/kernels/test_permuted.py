"""Inner products of permuted kernels against dense float64 kernels whose rows and columns are permuted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import Anchor, Kernel, anchors, permuted, permuted_inner


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
    limit=st.sampled_from([1, 2**30]),
)
@settings(max_examples=40, deadline=None)
def test_they_are_those_of_permuted_kernels(n, form, precision, seed, count, offset, together, limit):
    generator = torch.Generator().manual_seed(seed)
    widths = {"a": (3, 50), "b": (1,), "c": (7, 2, 9)}
    stacks = {
        model: [torch.randn(n, width, generator=generator) + offset for width in of]
        for model, of in widths.items()
    }
    kernel = Kernel(form, precision=precision)
    about = {model: anchors(stack, kernel) for model, stack in stacks.items()}
    perms = torch.stack([torch.randperm(n, generator=generator) for _ in range(count)])
    pairs = [("a", "b"), ("a", "c"), ("c", "b")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permuted, "_TOGETHER", together)
        patch.setattr(permuted, "_CHUNK", 7 if together == 2 else 1024)
        found = permuted_inner(stacks, pairs, perms, kernel, about, limit)
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
    kernel = Kernel()
    about = {model: anchors(stack, kernel) for model, stack in stacks.items()}
    perms = torch.stack([torch.randperm(40, generator=generator) for _ in range(3 * permuted.AT_ONCE)])
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    whole = permuted_inner(stacks, pairs, perms, kernel, about)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        parts = [
            permuted_inner(stacks, pairs, perms[start : start + permuted.AT_ONCE], kernel, about)
            for start in range(0, len(perms), permuted.AT_ONCE)
        ]
    finally:
        torch.set_num_threads(threads)
    for pair, products in whole.items():
        assert torch.equal(products, torch.cat([part[pair] for part in parts]))


def test_a_layer_without_a_kernel_counts_as_nothing():
    stacks = {"flat": [torch.ones(9, 4)], "x": [torch.randn(9, 4)]}
    kernel = Kernel()
    about = {model: anchors(stack, kernel) for model, stack in stacks.items()}
    found = permuted_inner(stacks, [("flat", "x")], torch.randperm(9)[None], kernel, about)
    assert found["flat", "x"].item() == 0
