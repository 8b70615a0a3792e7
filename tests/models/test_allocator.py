"""Memory that is freed is used again without the system's help, which page faults tell."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from platonic_ray.models import allocator

_CODE = """
import resource, sys
import numpy as np
from platonic_ray.models.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def work():
    for _ in range(20):
        blocks = [np.empty(size, np.uint8) for size in [3 << 20, *[20 << 20] * 5]]
        for block in blocks:
            block[::4096] = 1
        del block, blocks
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc"
)
def test_what_is_freed_is_taken_again_without_a_page_fault() -> None:
    """103 MiB twenty times over; by default glibc gives back what is free beyond twice the largest block."""
    faults = {}
    for how in ("default", "kept"):
        env = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
        said = subprocess.check_output([sys.executable, "-c", _CODE, how], text=True, env=env)
        faults[how] = int(said)
    assert faults["kept"] < 100 < faults["default"]


def test_another_c_library_is_left_alone(monkeypatch) -> None:
    class Musl:
        def mallopt(self, *_: int) -> int:
            pytest.fail("its mallopt may mean anything")

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: Musl())
    assert not allocator.keep_freed_memory()
