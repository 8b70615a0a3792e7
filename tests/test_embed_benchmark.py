"""The benchmark of features compares sides that come to the same features, whatever time they take."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

JOBS = Path(__file__).parent.parent / "jobs"

pytestmark = pytest.mark.weights


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    import torch

    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(str(JOBS))
    yield importlib.import_module("benchmark")
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bench", "benchmark", "metrics")]:
        del sys.modules[name]


def test_texts_have_the_lengths_that_the_recipe_is_timed_on(jobs: Any) -> None:
    texts = importlib.import_module("bench.texts").captions(2000)
    lengths = [len(text.split()) + 2 for text in texts]
    assert 19 <= np.median(lengths) <= 21
    assert max(lengths) == 200


def test_the_recipe_gives_the_same_features_and_so_does_a_run_that_writes(jobs: Any) -> None:
    sizes = ["--repetitions", "1", "--threads", "1"]
    report = jobs.main(["embed", "--only", "recipe-minilm", "--texts", "12", "--recipe-texts", "4", *sizes])
    assert report["texts"] == 12
    assert report["largest_relative_difference"] < 1e-5
    assert report["recipe"]["padded_to"] == report["tokens"]["longest"] >= 200
    assert report["share_of_bound"] > 0
    report = jobs.main(["embed", "--part", "writing", "--texts", "12", *sizes])
    assert report["written_MiB"] == pytest.approx(12 * 7 * 384 * 4 / 2**20, abs=0.05)


def test_a_language_model_is_timed_beside_products_and_its_operations_are_those_that_torch_counts(
    jobs: Any,
) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaModel

    small = ["--width", "128", "--depth", "2", "--tokens", "16", "--texts", "6", "--batch-tokens", "64"]
    report = jobs.main(
        ["embed", "--part", "lm", "--dtype", "float32", *small, "--repetitions", "1", "--threads", "1"]
    )
    assert (report["layers"], report["texts"], report["tokens_a_text"]) == (3, 6, 16)
    assert report["share_of_peak"] > 0
    assert report["share_of_peak"] == pytest.approx(
        report["model_tflop"] / report["peak_tflops"] * report["samples_a_second"] / 6
    )
    language = importlib.import_module("bench.language")
    config = LlamaConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=352, vocab_size=9
    )
    config._attn_implementation = "eager"  # the one whose products are counted, all pairs of them
    network = LlamaModel(config)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.ones((6, 16), dtype=torch.long))
    of_blocks = language.products_of_blocks(network, 6 * 16)
    of_all_pairs = language.products_of_attention(config, 6, 16) * 2 * 16 // 17
    assert abs(counter.get_total_flops() - of_blocks - of_all_pairs) < 0.001 * of_blocks  # beside: positions


@pytest.mark.slow
@pytest.mark.parametrize("model", ["efficientnet-lite0", "vit-b"])
def test_a_loop_over_images_gives_the_same_features(jobs: Any, model: str) -> None:
    report = jobs.main(
        [
            "embed",
            "--part",
            "images",
            "--model",
            model,
            "--images",
            "3",
            "--repetitions",
            "1",
            "--threads",
            "1",
        ]
    )
    assert report["largest_relative_difference"] < 1e-4
    assert set(report["images_a_second"]) == {
        *("ours", "loop", "tensors_in_memory", "tensors_in_memory_side_by_side"),
        *("preparing_one_thread", "model_one_thread"),
    }
