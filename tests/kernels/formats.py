"""Formats of factors that a search on a CPU can be made to use, whatever the processor would choose."""

import pytest

from platonic_ray.kernels import factors
from platonic_ray.kernels.compiled import integer_products, matrix_units

FORMATS = ["bfloat16 by torch", "float32"]
FORMATS += ["int16"] if integer_products() is not None else []
FORMATS += ["matrix units", "matrix units, refined"] if matrix_units() is not None else []


def use(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let searches use a format; integers still leave rows of very different norms to float32."""
    if name == "matrix units, refined":
        patch.setattr(factors, "OnMatrixUnits", factors.RefinedOnMatrixUnits)
    elif name != "matrix units":
        patch.setattr(factors, "matrix_units", lambda: None)
    if name != "int16":
        patch.setattr(factors, "integer_products", lambda: None)
    patch.setattr(factors, "fast_bfloat16", lambda device: name == "bfloat16 by torch")
