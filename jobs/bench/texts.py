"""Texts of the lengths of captions, embedded by the library and by what others use, in turns.

The other sides compute on the very network that the library loaded. The paper's recipe (Huh et al.
2024, `extract_features.py`) pads all texts to the longest of all and runs batches of 4: each of its
batches takes as long as any other, so a part of them is timed for all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from platonic_ray.models import load, resolve
from platonic_ray.study import ModelEntry

SHARD = 256
_RECIPE_BATCH = 4
_LONGEST, _MEDIAN = 200, 20
_SIZES = (16, 32, 64, 128)
_WORDS = "a dog runs on the green grass near two small red houses while people look at the sky"


def captions(count: int) -> list[str]:
    """Return texts whose lengths in tokens have a median of about 20 and a maximum of about 200, from a seed."""
    drawn = np.random.default_rng(0)
    lengths = np.exp(drawn.normal(np.log(_MEDIAN - 2), 0.55, count)).round().clip(3, _LONGEST - 2).astype(int)
    lengths[drawn.integers(count)] = _LONGEST - 2  # MiniLM adds two tokens
    return [" ".join(drawn.choice(_WORDS.split(), length)) for length in lengths]


def time_recipe(use: str, count: int, repetitions: int, recipe_texts: int) -> dict[str, Any]:
    """Time all layers of a model of the catalog against the paper's recipe on the same texts."""
    model: Any = load(resolve(ModelEntry(name=use, use=use, view="text")))
    texts = captions(count)
    lengths = [len(ids) for ids in model._tokens(texts).ids]
    chosen = np.random.default_rng(1).permutation(count)
    ours_s: list[float] = []
    recipe_s: list[float] = []
    widest = 0.0
    for repetition in range(repetitions):
        at = (np.arange(recipe_texts) + repetition * recipe_texts) % count
        some = [texts[row] for row in chosen[at]]
        seconds, found = _timed(lambda some=some: _recipe(model, some, max(lengths)))  # type: ignore[misc]
        recipe_s.append(seconds / len(some) * count)
        seconds, layers = _timed(lambda: _sharded(model, texts))
        ours_s.append(seconds)
        for ours, theirs in zip(layers, found, strict=True):
            widest = max(widest, _apart(ours[chosen[at]], theirs))
    return {
        "model": use,
        "layers": len(model.layers),
        "texts": count,
        "tokens": {"median": statistics.median(lengths), "longest": max(lengths), "all": sum(lengths)},
        "recipe": {"batch": _RECIPE_BATCH, "padded_to": max(lengths), "texts_timed": recipe_texts},
        "threads": torch.get_num_threads(),
        "repetitions": repetitions,
        "samples_a_second": count / statistics.median(ours_s),
        "recipe_samples_a_second": count / statistics.median(recipe_s),
        "ratio": statistics.median(recipe_s) / statistics.median(ours_s),
        "ratios": [round(b / a, 2) for a, b in zip(ours_s, recipe_s, strict=True)],
        "largest_relative_difference": widest,
        **_bound(model, lengths, ours_s),
    }


def time_encode(use: str, count: int, repetitions: int) -> dict[str, Any]:
    """Time the last layer of a sentence encoder against `sentence_transformers`' `encode` at its best batch."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from platonic_ray.models.weights import locate

    spec = resolve(ModelEntry(name=use, use=use, view="text", layers=(-1,)))
    model: Any = load(spec)
    assert spec.weights is not None
    transformer = Transformer(str(locate(spec.weights)), max_seq_length=512)
    other = SentenceTransformer(
        modules=[transformer, Pooling(model.layers[0].width, pooling_mode="mean")], device="cpu"
    )
    texts = captions(count)

    def encode(size: int, some: list[str]) -> NDArray[np.float32]:
        return other.encode(some, batch_size=size, show_progress_bar=False)

    encode(32, texts[:64])
    tried = {size: _timed(lambda size=size: encode(size, texts))[0] for size in _SIZES}  # type: ignore[misc]
    best = min(tried, key=tried.__getitem__)
    ours_s, theirs_s = [], [tried[best]]
    for _ in range(repetitions):
        seconds, layers = _timed(lambda: _sharded(model, texts))
        ours_s.append(seconds)
        seconds, theirs = _timed(lambda: encode(best, texts))
        theirs_s.append(seconds)
    return {
        "model": use,
        "texts": count,
        "threads": torch.get_num_threads(),
        "repetitions": repetitions,
        "their_batch": best,
        "their_seconds_by_batch": {size: round(seconds, 2) for size, seconds in tried.items()},
        "samples_a_second": count / statistics.median(ours_s),
        "their_samples_a_second": count / statistics.median(theirs_s),
        "ratio": statistics.median(theirs_s) / statistics.median(ours_s),
        "largest_relative_difference": _apart(layers[0], theirs),
        **_bound(model, [len(ids) for ids in model._tokens(texts).ids], ours_s),
    }


def _sharded(model: Any, texts: list[str]) -> list[NDArray[np.float32]]:
    shards = [model.embed(texts[start : start + SHARD]).layers for start in range(0, len(texts), SHARD)]
    return [np.concatenate(layer) for layer in zip(*shards, strict=True)]


def _recipe(model: Any, texts: list[str], longest: int) -> list[NDArray[np.float32]]:
    """Embed as the paper's code does: every text padded to the longest of all, 4 at a time, all layers at once."""
    tokens = model._tokens(texts).ids
    pooled = []
    for start in range(0, len(tokens), _RECIPE_BATCH):
        batch = tokens[start : start + _RECIPE_BATCH]
        ids = torch.full((len(batch), longest), model._tokens.pad)
        mask = torch.zeros_like(ids)
        for row, one in enumerate(batch):
            ids[row, : len(one)], mask[row, : len(one)] = torch.tensor(one), 1
        with torch.no_grad():
            output = model._network(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            states = torch.stack(output["hidden_states"]).permute(1, 0, 2, 3)
            valid = mask.unsqueeze(-1).unsqueeze(1)
            pooled.append((states * valid).sum(2) / valid.sum(2))
    return list(torch.cat(pooled).transpose(0, 1).numpy())


def _bound(model: Any, lengths: list[int], seconds: list[float]) -> dict[str, float]:
    """Return the multiply-adds of the tokens alone (no padding, no attention) at the speed of a large product."""
    embeddings = {id(parameter) for parameter in model._network.get_input_embeddings().parameters()}
    weights = sum(p.numel() for p in model._network.parameters() if p.ndim == 2 and id(p) not in embeddings)
    width = model._network.config.hidden_size
    rows, matrix = torch.randn(2048, width), torch.randn(width, 4 * width)
    rows @ matrix
    speed = max(2 * rows.numel() * 4 * width / _timed(lambda: rows @ matrix)[0] for _ in range(20))
    return {
        "product_gflops": speed / 1e9,
        "share_of_bound": 2 * weights * sum(lengths) / speed / statistics.median(seconds),
    }


def _apart(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Return the largest distance of two rows that should be one, relative to its length."""
    return float((np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max())


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done
