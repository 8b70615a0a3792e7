import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.kernels import (
    Anchor,
    Kernel,
    TileSums,
    anchors,
    blocks_of,
    merge_tree,
    one_thread,
    root_level,
    row_inner,
    row_total,
    span,
    super_tile,
    tree_sum,
)
from platonic_ray.kernels.trees import children

MICRO = 8
LINEAR = {precision: Kernel("linear", precision=precision) for precision in ("float32", "float64")}
PAIRS = [("a", "b"), ("a", "c"), ("c", "c")]


def models(seed: int, n: int) -> dict[str, list[torch.Tensor]]:
    drawn = np.random.default_rng(seed)
    widths = {"a": [5, 17, 3], "b": [40], "c": [1, 9]}
    return {
        name: [torch.from_numpy((drawn.normal(size=(n, width)) + 1).astype("f4")) for width in layers]
        for name, layers in widths.items()
    }


def about(stacks: dict, kernel: Kernel, micro: int = MICRO) -> dict:  # type: ignore[type-arg]
    return {name: anchors(stack, kernel, micro=micro) for name, stack in stacks.items()}


def whole(stacks: dict, n: int, kernel: Kernel, pairs=PAIRS, micro: int = MICRO, **options) -> TileSums:  # type: ignore[no-untyped-def, type-arg]
    given = {"unary": list(stacks), **options}
    level = root_level(blocks_of(n, micro))
    start = about(stacks, kernel, micro)
    return super_tile(stacks, stacks, pairs, level, 0, 0, n, kernel, start, micro=micro, **given)


def parts(stacks: dict, level: int, n: int, kernel: Kernel, micro: int = MICRO) -> list[TileSums]:  # type: ignore[type-arg]
    last = (blocks_of(n, micro) - 1) >> level
    start = about(stacks, kernel, micro)
    tiles = []
    for a in range(last + 1):
        for b in range(a, last + 1):
            cut = [
                {m: [x[span(level, at, n, micro)] for x in stack] for m, stack in stacks.items()}
                for at in (a, b)
            ]
            tiles.append(
                super_tile(*cut, PAIRS, level, a, b, n, kernel, start, unary=list(stacks), micro=micro)
            )
    return tiles


def content(sums: TileSums) -> dict[tuple, bytes]:  # type: ignore[type-arg]
    return {
        (field, key): value.numpy().tobytes()
        for field in ("inner", "squares", "rows", "columns", "diagonal")
        for key, value in getattr(sums, field).items()
    }


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(2, 90), st.booleans())
def test_sums_over_the_tree_are_those_of_the_whole_kernels(seed: int, n: int, centered: bool) -> None:
    stacks, kernel = models(seed, n), LINEAR["float64"]
    start = about(stacks, kernel)
    if not centered:
        start = {m: [Anchor(torch.zeros(x.shape[1])) for x in stack] for m, stack in stacks.items()}
    sums = super_tile(
        stacks,
        stacks,
        PAIRS,
        root_level(blocks_of(n, MICRO)),
        0,
        0,
        n,
        kernel,
        start,
        unary=list(stacks),
        micro=MICRO,
    )
    kernels = {}
    for name, stack in stacks.items():
        wide = [x.double().numpy() for x in stack]
        if centered:
            wide = [x - x[:MICRO].mean(0).astype("f4") for x in wide]
        kernels[name] = np.stack([x @ x.T for x in wide])
        np.testing.assert_allclose(
            sums.diagonal[name], np.einsum("lii->li", kernels[name]), rtol=1e-11, atol=1e-12
        )
        kernels[name] = kernels[name] * (1 - np.eye(n))
    for x, y in PAIRS:
        expected = np.einsum("lij,mij->lm", kernels[x], kernels[y])
        np.testing.assert_allclose(sums.inner[x, y], expected, rtol=1e-11, atol=1e-10)
    for name, cells in kernels.items():
        np.testing.assert_allclose(sums.squares[name], (cells**2).sum((1, 2)), rtol=1e-11)
        np.testing.assert_allclose(sums.rows[name], cells.sum(2), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 8, 9, 61, 64, 100])
def test_super_tiles_of_any_size_in_any_order_give_the_same_bytes(n: int, precision: str) -> None:
    stacks, kernel = models(n, n), LINEAR[precision]
    expected = content(whole(stacks, n, kernel))
    for level in range(4):
        tiles = parts(stacks, level, n, kernel)
        shuffled = [tiles[i] for i in np.random.default_rng(level).permutation(len(tiles))]
        assert content(merge_tree(shuffled, n, MICRO)) == expected


@pytest.mark.parametrize("kernel", [LINEAR["float32"], LINEAR["float64"], Kernel("euclidean")])
def test_micro_tiles_of_the_real_size_give_the_same_bytes_in_any_super_tile(kernel: Kernel) -> None:
    n = 5 * 256 + 37
    stacks = {name: list(stack[:2]) for name, stack in models(1, n).items()}
    first, *others = [
        content(merge_tree(parts(stacks, level, n, kernel, micro=256), n, 256)) for level in range(4)
    ]
    assert all(other == first for other in others)


def test_which_other_models_share_a_task_changes_no_byte() -> None:
    stacks, n, kernel = models(0, 50), 50, LINEAR["float32"]
    together = whole(stacks, n, kernel, unary=["a", "b"])
    alone = whole(stacks, n, kernel, pairs=[("a", "c")], unary=())
    assert content(alone).items() <= content(together).items()


@pytest.mark.parametrize("panel_bytes", [0, 1200, 5000])
def test_models_that_do_not_fit_together_give_the_same_bytes_in_groups(panel_bytes: int) -> None:
    n, kernel = 50, LINEAR["float32"]
    stacks = models(0, n)
    pairs = [("a", "b"), ("c", "a"), ("b", "b"), ("b", "c")]
    together = whole(stacks, n, kernel, pairs=pairs)
    grouped = whole(stacks, n, kernel, pairs=pairs, panel_bytes=panel_bytes)
    assert content(grouped) == content(together)


def test_the_number_of_threads_changes_no_byte() -> None:
    n = 700
    stacks = models(3, n)
    before = torch.get_num_threads()
    for kernel in (LINEAR["float32"], LINEAR["float64"], Kernel("euclidean")):
        found = []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                sums = whole(stacks, n, kernel, micro=256)
                rows = row_inner(sums.rows["a"], sums.rows["c"]), row_total(sums.rows["a"])
                found.append((content(sums), [part.numpy().tobytes() for part in rows]))
                assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert found[0] == found[1] == found[2]


def test_a_constant_layer_about_its_origin_is_exactly_zero() -> None:
    row = torch.randn(1, 77, generator=torch.Generator().manual_seed(0))
    for kernel in LINEAR.values():
        for n in (3, 7, 300):
            sums = whole({"a": [row.repeat(n, 1)]}, n, kernel, pairs=[], micro=256)
            assert sums.squares["a"].item() == 0


def test_one_thread_restores_the_number_even_after_an_error() -> None:
    before = torch.get_num_threads()

    @one_thread()
    def fail() -> None:
        raise RuntimeError(f"inside, with {torch.get_num_threads()}")

    with pytest.raises(RuntimeError, match="inside, with 1"):
        fail()
    assert torch.get_num_threads() == before


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 70))
def test_row_sums_add_blocks_in_the_binary_tree(seed: int, n: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, n)))
    y = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=(3, n)))
    np.testing.assert_allclose(row_inner(x, y, MICRO), x.numpy() @ y.numpy().T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(row_total(x, MICRO), x.numpy().sum(1), rtol=1e-9, atol=1e-12)


def test_the_binary_tree_pairs_aligned_neighbors_and_skips_what_is_not_there() -> None:
    tiny = 2.0**-53  # 1 + tiny is 1, but (tiny + tiny) + 1 is more
    terms = [torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.0, tiny, tiny, tiny)]
    assert tree_sum(terms).item() == ((1.0 + 0.0) + (tiny + tiny)) + tiny
    assert tree_sum(terms[:1]).item() == 1.0


def test_a_node_adds_its_children_row_by_row_and_skips_what_is_not_there() -> None:
    assert children(1, 0, 0, 4) == [(0, 0), (0, 1), (1, 1)]
    assert children(1, 0, 1, 4) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert children(1, 0, 1, 3) == [(0, 2), (1, 2)]
    assert children(2, 0, 0, 3) == [(0, 0), (0, 1), (1, 1)]
    assert children(1, 1, 1, 3) == [(2, 2)]


def test_missing_repeated_and_mixed_super_tiles_are_refused() -> None:
    stacks, n, kernel = models(0, 30), 30, LINEAR["float64"]
    tiles = parts(stacks, 1, n, kernel)
    with pytest.raises(ValueError, match="missing"):
        merge_tree(tiles[1:], n, MICRO)
    with pytest.raises(ValueError, match="belong"):
        merge_tree([*tiles, tiles[0]], n, MICRO)
    with pytest.raises(ValueError, match="belong"):
        merge_tree([*tiles, *parts(stacks, 0, n, kernel)], n, MICRO)
    with pytest.raises(ValueError, match="missing"):
        merge_tree([], n, MICRO)


def test_a_node_below_the_diagonal_or_with_other_rows_is_refused() -> None:
    stacks, kernel = models(0, 30), LINEAR["float64"]
    start = about(stacks, kernel)
    with pytest.raises(ValueError, match="no node"):
        super_tile(stacks, stacks, PAIRS, 0, 1, 0, 30, kernel, start, micro=MICRO)
    with pytest.raises(ValueError, match="rows 0 to 8"):
        super_tile(stacks, stacks, PAIRS, 0, 0, 0, 30, kernel, start, micro=MICRO)
