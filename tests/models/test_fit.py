"""A model that is larger than its device is refused before its weights are downloaded or read, with the figures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from model_samples import entry
from safetensors.torch import load_file
from text_families import DEEP

from platonic_ray import hub
from platonic_ray.errors import WeightsError
from platonic_ray.models import describe, fit, load, resolve
from platonic_ray.models.pretrained import quantized_bytes


def _spec(folder, **given):
    return resolve(entry(kind="transformers-text", weights=str(folder), **given))


def _lacking(spec, monkeypatch, bytes_there: int) -> str:
    monkeypatch.setattr(fit, "device_bytes", lambda device: bytes_there)
    with pytest.raises(WeightsError, match="It was not loaded") as refused:
        fit.refuse_too_large(spec, "cpu")
    return str(refused.value)


def test_what_has_no_network_is_never_too_large(monkeypatch) -> None:
    monkeypatch.setattr(fit, "device_bytes", lambda device: 1)
    fit.refuse_too_large(resolve(entry(use="pixels")), "cpu")


def test_weights_of_any_form_count_as_they_are_in_memory(saved_text, tmp_path, monkeypatch) -> None:
    """A `.bin`, a GGUF file (two of its tensors hold float32) and random weights are as large as safetensors."""
    whole = describe(_spec(saved_text("llama"))).weight_bytes
    folder = Path(shutil.copytree(saved_text("llama"), tmp_path / "bin"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for given in ({"file": "pytorch_model.bin"}, {"init": "random"}):
        spec = _spec(folder, **given)
        assert describe(spec).weight_bytes == whole
        assert "for its weights in float32" in _lacking(spec, monkeypatch, whole - 1)
        assert describe(_spec(folder, dtype="bfloat16", **given)).weight_bytes * 2 == whole


@pytest.mark.weights
def test_a_gguf_file_counts_as_it_is_once_dequantized(monkeypatch) -> None:
    spec = resolve(entry(use="smollm2-135m"))
    found = describe(spec)
    assert found.weight_bytes == 4 * found.parameters
    assert "0.5 GB for its weights in float32" in _lacking(spec, monkeypatch, found.weight_bytes - 1)


def test_quantized_linear_maps_count_what_bitsandbytes_holds_and_the_rest_its_dtype(saved_text) -> None:
    """Counted by hand for a LLaMA of 2 blocks: width 32, 48 between, 100 tokens."""
    with torch.device("meta"):
        network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**DEEP)).to(torch.bfloat16)
    linear = 2 * (4 * 32 * 32 + 3 * 32 * 48)
    others = 2 * 100 * 32 + 5 * 32  # the embedding and the head, and norms
    rows = 2 * (5 * 32 + 2 * 48)
    assert quantized_bytes(network, "8bit") == linear + 4 * rows + 2 * others
    assert quantized_bytes(network, "4bit") == linear // 2 + 4 * linear // 64 + 2 * others


def test_a_quantized_model_of_a_hub_is_costed_as_it_will_be_held(saved_text, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: True)  # as if bitsandbytes were here
    monkeypatch.setattr(hub, "fetch", lambda *_: saved_text("llama"))
    monkeypatch.setattr(hub, "is_cached", lambda *_: False)
    given = {
        "weights": "hub:org/tiny@" + "0123456789" * 4,
        "dtype": "bfloat16",
        "batch_tokens": 1,
        "max_tokens": 1,
    }
    whole, narrow = (
        resolve(entry(kind="transformers-text", **given, **more)) for more in ({}, {"quantization": "4bit"})
    )
    there = describe(narrow).weight_bytes + fit.activation_bytes(narrow, describe(narrow))
    assert "in bfloat16" in _lacking(whole, monkeypatch, there)
    fit.refuse_too_large(narrow, "cpu")
    assert "in 4bit" in _lacking(narrow, monkeypatch, there - 1)


def test_a_model_that_is_too_large_is_not_loaded(tiny_bert, monkeypatch) -> None:
    spec = _spec(tiny_bert, batch_tokens=1, max_tokens=4)
    needed = describe(spec).weight_bytes + fit.activation_bytes(spec, describe(spec))
    monkeypatch.setattr(fit, "device_bytes", lambda device: needed)
    load(spec)
    monkeypatch.setattr(fit, "device_bytes", lambda device: needed - 1)
    monkeypatch.setattr("platonic_ray.models.text.load_network", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(
        WeightsError, match=r"Model 'm' needs 0\.0 GB for its weights in float32.*or dtype.*not loaded"
    ):
        load(spec)


def test_a_batch_that_does_not_fit_beside_the_weights_is_refused_with_both_figures(
    tiny_bert, monkeypatch
) -> None:
    spec = _spec(tiny_bert, batch_tokens=10**9)
    held = fit.activation_bytes(spec, describe(spec))
    assert held == 10**9 * 3 * 16 * 4
    monkeypatch.setattr(fit, "device_bytes", lambda device: held)
    monkeypatch.setattr("platonic_ray.models.text.load_network", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(
        WeightsError, match=r"192\.0 GB for a batch \(batch_tokens\).*192\.0 GB\..*It was not loaded"
    ):
        load(spec)


def test_of_a_hubs_model_only_the_configuration_is_fetched_to_know(tiny_bert, monkeypatch) -> None:
    fetched = []

    def fetch(address, patterns):
        fetched.append(patterns)
        return tiny_bert

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.setattr(hub, "is_cached", lambda *_: False)
    monkeypatch.setattr(fit, "device_bytes", lambda device: 100)
    with pytest.raises(WeightsError, match="It was not loaded"):
        load(_spec("hub:org/tiny@" + "0123456789" * 4))
    assert fetched
    assert not [name for patterns in fetched for name in patterns if "safetensors" in name]


def test_the_memory_of_a_machine_is_that_of_its_container(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fit, "_CGROUP", tmp_path / "memory.max")
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert fit.device_bytes("cpu") == whole
    (tmp_path / "memory.max").write_text("max\n")
    assert fit.device_bytes("cpu") == whole
    (tmp_path / "memory.max").write_text("1000000\n")
    assert fit.device_bytes("cpu") == 1000000
