"""Rounds of pairs: every two rows meet once, and no two pairs of a round share a row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platonic_ray.kernels.rounds import GRAIN, rounds

SIZES = st.integers(1, 9 * GRAIN + 1)


def busy(parts: list[range]) -> np.ndarray:
    return np.bincount([row for part in parts for row in part])


@given(a=SIZES, b=SIZES, threads=st.integers(1, 5), both=st.booleans())
def test_rows_of_two_blocks_meet_once(a: int, b: int, threads: int, both: bool) -> None:
    met = np.zeros((400, 800), int)
    for pairs in rounds(range(5, 5 + a), range(400, 400 + b), threads, both):
        assert len(pairs) <= threads
        for rows, columns in pairs:
            met[rows.start : rows.stop, columns.start : columns.stop] += 1
        assert busy([part for pair in pairs for part in (pair if both else pair[:1])]).max() == 1
    assert (met[5 : 5 + a, 400 : 400 + b] == 1).all()
    assert met.sum() == a * b


@given(n=SIZES, threads=st.integers(1, 5))
def test_rows_of_a_block_meet_each_other_once(n: int, threads: int) -> None:
    block, met = range(7, 7 + n), np.zeros((400, 400), int)
    for pairs in rounds(block, block, threads):
        assert len(pairs) <= threads
        assert busy([part for pair in pairs for part in set(pair)]).max() == 1
        for a, b in pairs:
            assert a == b or a.stop <= b.start
            met[a.start : a.stop, b.start : b.stop] += 1
    assert (np.triu(met[7 : 7 + n, 7 : 7 + n]) == np.triu(np.ones((n, n)))).all()
    assert met[:7].sum() == met[7 + n :].sum() == 0


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_all_threads_have_work_in_nearly_every_round(threads: int) -> None:
    block = range(GRAIN * 4 * threads)
    found = rounds(block, block, threads)
    assert sum(len(pairs) == threads for pairs in found) >= len(found) - 1
    assert all(part.start % GRAIN == 0 for pairs in found for pair in pairs for part in pair)
