"""Batches side by side: they do overlap, what fails is said as if they had not, and torch is left as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
import transformers
from text_families import DEEP

from platonic_ray.models.lanes import lanes_of, run_batches, runs_side_by_side


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def _threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_batches_run_at_once_each_on_its_own_threads_without_gradients(four_threads) -> None:
    together = threading.Barrier(2, timeout=30)  # is passed only by two at once
    seen = []

    def prepare(batch: int) -> int:
        together.wait()
        return -batch

    def run(batch: int, ready: int) -> None:
        together.wait()
        seen.append((batch, ready, torch.get_num_threads(), torch.is_inference_mode_enabled()))

    run_batches(prepare, run, [1, 2], "cpu", 0)
    assert sorted(seen) == [(1, -1, 2, True), (2, -2, 2, True)]
    assert torch.get_num_threads() == 4
    assert _threads_of_a_new_thread() == 4


@pytest.mark.parametrize(("device", "held_bytes"), [("cuda", 0), ("cpu", None), ("cpu", 1 << 30)])
def test_elsewhere_they_run_one_after_the_other_on_all_threads_of_the_caller(
    device, held_bytes, four_threads
) -> None:
    seen = []

    def run(batch: int, ready: int) -> None:
        seen.append((batch, ready, torch.get_num_threads(), threading.current_thread()))

    run_batches(lambda batch: -batch, run, [1, 2, 3], device, held_bytes)
    assert seen == [(batch, -batch, 4, threading.current_thread()) for batch in (1, 2, 3)]


def test_the_first_batch_that_fails_is_the_one_that_is_told_and_later_ones_do_not_begin(four_threads) -> None:
    second = threading.Event()
    begun = []

    def run(batch: int, _: int) -> None:
        begun.append(batch)
        if batch == 1:
            assert second.wait(30)
            raise ValueError("of the first")
        if batch == 2:
            second.set()
            raise ValueError("of the second")
        threading.Event().wait(0.2)

    with pytest.raises(ValueError, match="of the first"):
        run_batches(lambda batch: batch, run, range(1, 1000), "cpu", 0)
    assert len(begun) < 900
    assert torch.get_num_threads() == _threads_of_a_new_thread() == 4


def test_what_is_left_after_equal_shares_runs_last_on_all_threads(four_threads) -> None:
    seen = []

    def run(batch: int, _: int) -> None:
        seen.append((batch, torch.get_num_threads()))

    run_batches(lambda batch: batch, run, range(10), "cpu", 0)
    assert sorted(seen[:8]) == [(batch, 1) for batch in range(8)]
    assert seen[8:] == [(8, 4), (9, 4)]


def test_lanes_begin_with_the_dearest_and_the_same_batches_are_left_for_all_threads(four_threads) -> None:
    seen = []
    together = threading.Barrier(4, timeout=30)  # four at a time, none of the next before all of these

    def run(batch: int, _: int) -> None:
        seen.append((batch, torch.get_num_threads()))
        if torch.get_num_threads() == 1:
            together.wait()

    costs = [1, 7, 3, 8, 2, 6, 4, 5, 9, 0]
    run_batches(lambda batch: batch, run, range(10), "cpu", 0, costs.__getitem__)
    dearest, others = {1, 3, 5, 7}, {0, 2, 4, 6}
    assert {batch for batch, _ in seen[:4]} == dearest
    assert {batch for batch, _ in seen[4:8]} == others
    assert seen[8:] == [(8, 4), (9, 4)]


def test_no_more_batches_at_once_than_there_are_threads_batches_and_memory_for() -> None:
    assert lanes_of(100, 8, "cpu", 1 << 20) == 8
    assert lanes_of(7, 8, "cpu", 1 << 20) == 4  # of 2 threads each; seven would leave one idle
    assert lanes_of(100, 7, "cpu", 300 << 20) == 1
    assert lanes_of(100, 9, "cpu", 300 << 20) == 3
    assert lanes_of(100, 8, "cpu", 5 << 30) == 1
    assert lanes_of(100, 8, "cuda", 0) == lanes_of(100, 8, "cpu", None) == lanes_of(0, 8, "cpu", 0) == 1
    run_batches(lambda batch: batch, lambda *_: pytest.fail("there is none"), [], "cpu", 0)


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "linear", None])
def test_a_network_that_writes_into_itself_runs_one_batch_at_a_time(kind) -> None:
    """Dynamic rotary positions are computed anew, in place, by the longest text that was seen."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4} if kind == "longrope" else {"factor": 2.0}
    given = {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **factors}} if kind else {}
    if kind == "longrope":
        given["rope_parameters"]["original_max_position_embeddings"] = 20
    network = transformers.LlamaModel(transformers.LlamaConfig(**DEEP, **given))
    assert runs_side_by_side(network) == (kind in ("linear", None))


def test_code_of_a_models_own_is_not_trusted_to_run_side_by_side() -> None:
    class Own(transformers.BertModel):
        pass

    network = Own(transformers.BertConfig(**DEEP))
    assert not runs_side_by_side(network)
    assert runs_side_by_side(transformers.BertModel(transformers.BertConfig(**DEEP)))
