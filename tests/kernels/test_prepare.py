from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platonic_ray.errors import DataError, StudyError
from platonic_ray.kernels import (
    Kernel,
    anchors,
    as_rows,
    forms,
    l2_normalize,
    prepare,
    require_finite,
    zero_rows,
)
from platonic_ray.kernels.compiled import loops_for


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8]
)
def test_tensors_of_every_real_type_become_float32_rows(dtype: torch.dtype) -> None:
    rows = as_rows(torch.tensor([[1, 2], [3, 4]], dtype=dtype))
    assert rows.dtype == torch.float32
    assert rows.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "i8", "u1"])
def test_arrays_of_every_real_type_and_layout_become_float32_rows(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)[::-1, ::2]
    array.flags.writeable = False
    assert as_rows(array).tolist() == [[8, 10], [4, 6], [0, 2]]


def test_float64_is_rounded_once_to_nearest() -> None:
    x = np.random.default_rng(0).normal(size=(50, 7))
    assert np.array_equal(as_rows(x).numpy(), x.astype(np.float32))
    assert np.array_equal(as_rows(torch.from_numpy(x)).numpy(), x.astype(np.float32))


NO_MATRICES = {
    "1-D": np.zeros(3),
    "3-D": np.zeros((2, 2, 2)),
    "no columns": np.zeros((2, 0)),
    "no rows": np.zeros((0, 2)),
    "complex": np.zeros((2, 2), complex),
    "complex tensor": torch.zeros(2, 2, dtype=torch.complex64),
    "text": np.array([["a"]]),
    "ragged": [[1], [2, 3]],
}


@pytest.mark.parametrize("bad", NO_MATRICES.values(), ids=NO_MATRICES.keys())
def test_what_is_no_real_matrix_is_refused_by_name(bad: object) -> None:
    with pytest.raises(DataError, match="image of clip"):
        as_rows(bad, "image of clip")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 150), st.sampled_from([1e-44, 1e-30, 1.0, 1e30]))
def test_normalized_rows_are_the_correctly_scaled_rows_at_any_norm(
    seed: int, width: int, scale: float
) -> None:
    x = (np.random.default_rng(seed).normal(size=(9, width)) * scale).astype(np.float32)
    x[4] = 0
    got = l2_normalize(torch.from_numpy(x)).numpy()
    wide = x.astype(np.float64)
    norms = np.sqrt((wide**2).sum(1, keepdims=True))
    expected = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    np.testing.assert_allclose(got, expected, rtol=1.2e-7, atol=1e-45)
    assert (got[4] == 0).all()


def test_normalization_does_not_depend_on_the_rows_beside_it() -> None:
    x = torch.randn(70, 33, generator=torch.Generator().manual_seed(0))
    whole = l2_normalize(x)
    assert all(torch.equal(whole[i : i + 1], l2_normalize(x[i : i + 1])) for i in range(70))


def rows_of_every_kind(width: int) -> torch.Tensor:
    """So many that compiled loops are used for them."""
    seeded = torch.Generator().manual_seed(width)
    rows = torch.randn(2**18 // width + 1, width, generator=seeded)
    rows *= 10 ** torch.randn(len(rows), 1, generator=seeded)
    rows[3], rows[4], rows[5], rows[6] = 0.0, -0.0, 1e-44, 3e38
    assert loops_for(rows, rows.numel()) is not None
    return rows


@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize("width", [1, 63, 65, 1000])
def test_compiled_loops_normalize_to_the_same_bytes(monkeypatch, width: int, bound: float | None) -> None:
    rows = rows_of_every_kind(width)
    compiled = l2_normalize(rows, bound)
    monkeypatch.setattr(import_module("platonic_ray.kernels.prepare"), "loops_for", lambda rows, size: None)
    assert compiled.numpy().tobytes() == l2_normalize(rows, bound).numpy().tobytes()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("width", [1, 65, 1000])
def test_compiled_loops_move_rows_to_the_same_bytes(monkeypatch, width: int, scaled: bool) -> None:
    rows = rows_of_every_kind(width).clamp(-1e3, 1e3) * (2.0**20 if scaled else 1.0)
    (anchor,) = anchors([rows], Kernel("linear"))
    assert (anchor.scale != 1.0) == scaled
    compiled = forms.move(rows, Kernel("linear"), anchor)
    monkeypatch.setattr(forms, "loops_for", lambda rows, size: None)
    plain = forms.move(rows, Kernel("linear"), anchor)
    assert compiled.moved.numpy().tobytes() == plain.moved.numpy().tobytes()
    assert compiled.norms.numpy().tobytes() == plain.norms.numpy().tobytes()


def test_rows_with_nan_or_infinity_are_named() -> None:
    x = torch.zeros(30, 2)
    x[3, 0], x[7, 1] = torch.nan, torch.inf
    with pytest.raises(DataError, match=r"model 'm', layer 2: 2 of 30 rows .* row 3, 7"):
        require_finite(x, "model 'm', layer 2")
    require_finite(torch.zeros(3, 2), "fine")


def test_zero_rows_are_found() -> None:
    assert zero_rows(torch.tensor([[0.0, -0.0], [0.0, 1e-45], [0.0, 0.0]])).tolist() == [0, 2]


def test_recipes_are_known_by_name() -> None:
    x = torch.tensor([[3.0, 4.0]])
    assert prepare(x, "none") is x
    assert prepare(x, "l2").tolist() == [[np.float32(0.6), np.float32(0.8)]]
    with pytest.raises(StudyError, match="l2, none"):
        prepare(x, "l3")
