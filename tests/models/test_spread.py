"""Which block of a network goes to which GPU is decided on shapes: none is cut, and what does not fit is refused."""

from __future__ import annotations

import pytest
import torch
import transformers
from model_samples import TEXTS, entry

from platonic_ray.errors import WeightsError
from platonic_ray.models import resolve
from platonic_ray.models.pretrained import load_network
from platonic_ray.models.spread import device_map
from platonic_ray.models.text import TextModel


def shapes_of(folder) -> transformers.PreTrainedModel:
    with torch.device("meta"):
        return transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder))


def block_bytes(network) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.layers[0].parameters())


def test_gpus_are_filled_in_order_and_no_block_is_cut(tiny_llama) -> None:
    network = shapes_of(tiny_llama)
    one = block_bytes(network)
    whole = sum(tensor.numel() * tensor.element_size() for tensor in network.parameters())
    placed = device_map(network, {0: whole - one, 1: 3 * one}, "Model 'm'")
    of_block = [
        {
            gpu
            for name, gpu in placed.items()
            if f"{name}.".startswith(f"layers.{at}.") or name == f"layers.{at}"
        }
        for at in range(3)
    ]
    assert all(len(gpus) == 1 for gpus in of_block)
    order = [min(gpus) for gpus in of_block]
    assert order == sorted(order)
    assert set(placed.values()) == {0, 1}
    assert set(device_map(network, {0: 10 * whole, 1: 10 * whole}, "Model 'm'").values()) == {0}


def test_what_all_gpus_together_do_not_hold_is_refused_with_the_figures(tiny_llama) -> None:
    network = shapes_of(tiny_llama)
    with pytest.raises(WeightsError, match=r"Model 'm' needs 0\.0 GB.*the 2 GPUs that it was given"):
        device_map(network, {0: block_bytes(network), 1: block_bytes(network)}, "Model 'm'")


def test_a_network_whose_parts_were_placed_gives_the_same_features(tiny_llama) -> None:
    spec = resolve(entry(kind="transformers-text", weights=str(tiny_llama)))
    config = transformers.AutoConfig.from_pretrained(tiny_llama, use_cache=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_llama)
    parts = {"embed_tokens": "cpu", "layers": "cpu", "norm": "cpu", "rotary_emb": "cpu"}
    plain, placed = (
        TextModel(spec, load_network(spec, tiny_llama, config, placed=some), tokenizer, "cpu").embed(
            TEXTS[:2]
        )
        for some in (None, parts)
    )
    for a, b in zip(plain.layers, placed.layers, strict=True):
        assert a.tobytes() == b.tobytes()
