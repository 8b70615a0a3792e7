"""Encoded images, embedded by the library and by a plain PyTorch `DataLoader` loop, in turns.

Both sides prepare images by the same functions and compute on the same network; the loop may take
the best of several batch sizes and numbers of worker processes. Two sides have their tensors in
memory already, so that what is left is the model's own time: by a plain loop, all threads on each batch,
and by the library's batches side by side. The bound is what the cores could do at best if none ever
waited: the time that one thread alone takes to prepare an image and to run the model on it, shared by all.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from platonic_ray.datasets import decode_image
from platonic_ray.models import load, resolve
from platonic_ray.models.lanes import run_batches
from platonic_ray.study import ModelEntry

SHARD = 256
_SIZE = (500, 375)
_DISTINCT = 64
_BATCHES, _WORKERS = (4, 8, 32), (0, 1, 2)


def photos(count: int) -> list[bytes]:
    """Return JPEG images of 500 × 375 pixels from a seed: smooth shapes under some noise, about 40 KiB each."""
    drawn = np.random.default_rng(0)
    encoded = []
    for _ in range(min(count, _DISTINCT)):
        coarse = Image.fromarray(drawn.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(_SIZE, Image.Resampling.BICUBIC), np.float32)
        pixels = np.clip(smooth + drawn.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=88)
        encoded.append(out.getvalue())
    return [encoded[row % len(encoded)] for row in range(count)]


def time_images(network: str, count: int, repetitions: int) -> dict[str, Any]:
    """Time EfficientNet-lite0, or a ViT-B with random weights, from encoded images."""
    with tempfile.TemporaryDirectory() as folder:
        model: Any = load(resolve(_entry(network, Path(folder))))
    images = photos(count)
    prepare, run = _parts(model)
    batch = model.budget
    threads = torch.get_num_threads()
    shape = {"model": network, "images": count, "image": list(_SIZE), "threads": threads}
    tensors = torch.stack([prepare(image) for image in images])
    some = images[: max(32, min(count // 4, 128))]
    tried = {}
    for size in _BATCHES:
        for workers in _WORKERS:
            tried[size, workers] = _timed(lambda s=size, w=workers: _loop(some, prepare, run, s, w))[0]  # type: ignore[misc]
    size, workers = min(tried, key=tried.__getitem__)
    ours_s, loop_s, memory_s, beside_s, prepared_s, model_s = ([] for _ in range(6))
    for _ in range(repetitions):
        seconds, ours = _timed(lambda: _sharded(model, images))
        ours_s.append(seconds)
        seconds, theirs = _timed(lambda: _loop(images, prepare, run, size, workers))
        loop_s.append(seconds)
        seconds, _ = _timed(lambda: _in_memory(tensors, run, batch))
        memory_s.append(seconds)
        seconds, _ = _timed(lambda: _side_by_side(tensors, run, batch))
        beside_s.append(seconds)
        torch.set_num_threads(1)
        seconds, _ = _timed(lambda: [prepare(image) for image in some])
        prepared_s.append(seconds * count / len(some))
        seconds, _ = _timed(lambda: _in_memory(tensors[: len(some)], run, batch))
        model_s.append(seconds * count / len(some))
        torch.set_num_threads(threads)
    middle = {
        name: statistics.median(seconds)
        for name, seconds in (
            *(("ours", ours_s), ("loop", loop_s), ("tensors_in_memory", memory_s)),
            ("tensors_in_memory_side_by_side", beside_s),
            *(("preparing_one_thread", prepared_s), ("model_one_thread", model_s)),
        )
    }
    widest = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))
    return {
        **shape,
        "repetitions": repetitions,
        "images_a_second": {name: round(count / seconds, 2) for name, seconds in middle.items()},
        "loop": {"batch": size, "workers": workers, "seconds_of_all_tried": {
            f"{s} × {w}": round(seconds, 2) for (s, w), seconds in tried.items()
        }},
        "ratio": middle["loop"] / middle["ours"],
        "beyond_tensors_in_memory": middle["ours"] / middle["tensors_in_memory"] - 1,
        "beyond_tensors_side_by_side": middle["ours"] / middle["tensors_in_memory_side_by_side"] - 1,
        "share_of_bound": (middle["preparing_one_thread"] + middle["model_one_thread"])
        / threads / middle["ours"],
        "largest_relative_difference": widest,
    }  # fmt: skip


def _entry(network: str, folder: Path) -> ModelEntry:
    if network != "vit-b":
        return ModelEntry(name=network, use=network, view="image")
    from transformers import ViTConfig, ViTImageProcessorPil

    ViTConfig().save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)
    return ModelEntry(
        name=network, kind="transformers-vision", weights=str(folder), init="random", view="image"
    )


def _parts(model: Any) -> tuple[Callable[[bytes], Tensor], Callable[[Tensor], list[Tensor]]]:
    """Return how a model prepares one image, and how it makes pooled layers of a batch of these."""
    if hasattr(model, "_processor"):
        return (
            lambda image: model._pixels(decode_image(image)),
            lambda pixels: [model._pool(state, pixels, "mean") for state in model._states(pixels)],
        )
    return (
        lambda image: torch.from_numpy(model._decode([image])[0]),
        lambda rgb: [state.mean(dim=(2, 3)) for state in model._states(model._pixels(rgb.numpy()))],
    )


class _Images(Dataset[Tensor]):
    def __init__(self, images: list[bytes], prepare: Callable[[bytes], Tensor]) -> None:
        self._images, self._prepare = images, prepare

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> Tensor:
        return self._prepare(self._images[row])


def _loop(
    images: list[bytes],
    prepare: Callable[[bytes], Tensor],
    run: Callable[[Tensor], Any],
    size: int,
    workers: int,
) -> list[NDArray[np.float32]]:
    return _run(DataLoader(_Images(images, prepare), batch_size=size, num_workers=workers), run)


def _in_memory(tensors: Tensor, run: Callable[[Tensor], Any], size: int) -> list[NDArray[np.float32]]:
    return _run(iter(tensors.split(size)), run)


def _side_by_side(tensors: Tensor, run: Callable[[Tensor], Any], size: int) -> None:
    batches = list(tensors.split(size))
    run_batches(lambda batch: batch, lambda batch, _: run(batch), batches, "cpu", 0)


def _run(batches: Iterator[Tensor] | DataLoader[Tensor], run: Any) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        found = [run(batch) for batch in batches]
    return [torch.cat(layer).numpy() for layer in zip(*found, strict=True)]


def _sharded(model: Any, images: list[bytes]) -> list[NDArray[np.float32]]:
    shards = [model.embed(images[start : start + SHARD]).layers for start in range(0, len(images), SHARD)]
    return [np.concatenate(layer) for layer in zip(*shards, strict=True)]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    done = work()
    return time.perf_counter() - started, done
