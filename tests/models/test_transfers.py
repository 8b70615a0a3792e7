"""What leaves an accelerator leaves it once a batch. Here the CPU stands for one: its tensors are told to be away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_samples import entry
from sound_samples import save_audio, sound
from support import write_tiny_vit

from platonic_ray.models import load, resolve, transfers


@pytest.fixture
def fetched(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of what was fetched, by a machine that takes its CPU for an accelerator."""
    shapes: list[tuple[int, ...]] = []
    fetch = transfers._fetched
    monkeypatch.setattr(transfers, "_is_here", lambda state: False)
    monkeypatch.setattr(
        transfers, "_fetched", lambda state: shapes.append(tuple(state.shape)) or fetch(state)
    )
    return shapes


def test_states_come_side_by_side_and_are_told_apart_again(fetched) -> None:
    states = [torch.randn(3, width) for width in (4, 1, 2)]
    kept = np.ones((3, 5), np.float32)
    found = transfers.on_host([states[0], kept, *states[1:]])
    assert fetched == [(3, 7)]
    assert found[1] is kept
    for state, array in zip(states, [found[0], *found[2:]], strict=True):
        assert np.array_equal(array, state.numpy())


def _of(kind: str, tiny_bert, tmp_path):
    from model_samples import image

    if kind == "transformers-text":
        return {"weights": str(tiny_bert), "batch_tokens": 8, "pooling": ["mean", "last"]}, [
            "a b",
            "dog",
            "hat b",
        ]
    if kind == "transformers-vision":
        return {"weights": str(write_tiny_vit(tmp_path)), "batch_images": 2}, [image(row) for row in range(3)]
    return {"weights": str(save_audio(tmp_path, "wav2vec2-layer"))}, [sound(0.2, 1), sound(0.3, 2)]


@pytest.mark.parametrize("kind", ["transformers-text", "transformers-vision", "transformers-audio"])
def test_every_layer_and_pooling_of_a_batch_is_one_transfer(
    kind, tiny_bert, tmp_path, monkeypatch, fetched
) -> None:
    given, items = _of(kind, tiny_bert, tmp_path)
    model = load(resolve(entry(kind=kind, concatenate=True, **given)))
    found = model.embed(items).layers
    assert max(rows for rows, _ in fetched) > 1  # one transfer a batch, not one a sample
    assert sum(rows for rows, _ in fetched) == len(items)
    of_layers = sum(layer.width for layer in model.layers if not layer.name.startswith("all layers"))
    assert {width for _, width in fetched} == {of_layers}
    monkeypatch.setattr(transfers, "_is_here", lambda state: True)
    for ours, plain in zip(found, model.embed(items).layers, strict=True):
        assert ours.tobytes() == plain.tobytes()


def test_on_a_cpu_nothing_is_copied() -> None:
    state = torch.randn(2, 3)
    assert transfers.to_device(state, "cpu") is state
    assert transfers.on_host([state])[0].base is not None
    assert transfers.to_device(state, "cpu", torch.bfloat16).dtype == torch.bfloat16
