"""A large language model with random weights, embedded by the library, beside the speed of large products.

The bound is the products that the network is made of, at the speed that the device's own library reaches on large
square ones of the same dtype, measured in the same run. Where a share is missing is told by a third figure: the
network alone, on tokens that are there, with nothing pooled and nothing brought back.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from platonic_ray.models import load, resolve
from platonic_ray.models.batches import batches_by_length
from platonic_ray.study import ModelEntry

SHARD = 1024
_WORDS = 1000
_SQUARE = {"cuda": 8192, "cpu": 1024}
_PRODUCTS = 10


def time_language(
    *, width: int, depth: int, texts: int, tokens: int, dtype: str, batch_tokens: int, repetitions: int
) -> dict[str, Any]:
    """Time all layers of a LLaMA over texts of one length, on the GPU where there is one.

    :param width: of its states; with 22 blocks 2,048 make 1.0·10⁹ parameters without the head.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        _save(Path(folder), width, depth, tokens)
        entry = ModelEntry(
            **{
                "name": "lm",
                "view": "text",
                "kind": "transformers-text",
                "weights": folder,
                "init": "random",
            },
            **{"dtype": dtype, "max_tokens": tokens, "batch_tokens": batch_tokens},
        )
        model: Any = load(resolve(entry), device=device)
    drawn = np.random.default_rng(0).integers(_WORDS, size=(texts, tokens))
    items = [" ".join(f"w{word}" for word in row) for row in drawn]
    ids = model._tokens(items).ids
    flops = products_of_blocks(model._network, texts * tokens) + products_of_attention(
        model._network.config, texts, tokens
    )
    model.embed(items[: max(1, batch_tokens // tokens)])
    peaks, ours_s, network_s = [], [], []
    for _ in range(repetitions):
        peaks.append(_peak(device, getattr(torch, dtype)))
        ours_s.append(_timed(lambda: _sharded(model, items)))
        network_s.append(_timed(lambda: _network_alone(model, ids, device)))
    peak, ours, network = max(peaks), statistics.median(ours_s), statistics.median(network_s)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "parameters": sum(tensor.numel() for tensor in model._network.parameters()),
        "layers": len(model.layers),
        "texts": texts,
        "tokens_a_text": tokens,
        "batch_tokens": batch_tokens,
        "repetitions": repetitions,
        "peak_tflops": peak / 1e12,
        "model_tflop": flops / 1e12,
        "samples_a_second": texts / ours,
        "tokens_a_second": texts * tokens / ours,
        "share_of_peak": flops / peak / ours,
        "share_of_peak_network_alone": flops / peak / network,
    }


def products_of_blocks(network: Any, tokens: int) -> int:
    """Return the operations (two a multiply-add) of a network's linear maps on so many tokens."""
    linear = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
    return 2 * tokens * sum(module.weight.numel() for module in linear)


def products_of_attention(config: Any, texts: int, tokens: int) -> int:
    """Return the operations of causal attention's two products: a token meets itself and those before it."""
    pairs = texts * tokens * (tokens + 1) // 2
    return 4 * pairs * config.hidden_size * config.num_hidden_layers


def _save(folder: Path, width: int, depth: int, tokens: int) -> None:
    """Save the shape of a LLaMA (TinyLLaMA's, at 2,048 and 22), and a tokenizer of a token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    heads = max(1, width // 64)
    LlamaConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 8),
        intermediate_size=width * 11 // 4,
        max_position_embeddings=max(2048, tokens),
    ).save_pretrained(folder)
    words = {"[UNK]": 0, **{f"w{word}": word + 1 for word in range(_WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)


def _peak(device: str, dtype: torch.dtype) -> float:
    """Return the operations a second of the fastest of some large square products."""
    size = _SQUARE[device]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def multiply() -> None:
        a @ b
        _wait_for(device)

    multiply()
    return 2 * size**3 / min(_timed(multiply) for _ in range(_PRODUCTS))


def _network_alone(model: Any, ids: list[list[int]], device: str) -> None:
    for batch in batches_by_length([len(one) for one in ids], model.budget):
        model._run([ids[row] for row in batch], model._network, states=False)
    _wait_for(device)


def _sharded(model: Any, items: list[str]) -> None:
    for start in range(0, len(items), SHARD):
        model.embed(items[start : start + SHARD])


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
