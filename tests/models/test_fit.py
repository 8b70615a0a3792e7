"""A model that is larger than its device is refused before its weights are downloaded or read, with the figures."""

from __future__ import annotations

import os

import pytest
from model_samples import entry

from platonic_ray.errors import WeightsError
from platonic_ray.models import describe, fit, hub, load, resolve


def _spec(folder, **given):
    return resolve(entry(kind="transformers-text", weights=str(folder), **given))


def test_what_weights_take_is_what_their_headers_say_in_the_dtype_they_run_in(tiny_bert) -> None:
    whole = describe(_spec(tiny_bert)).weight_bytes
    assert fit.weight_bytes(_spec(tiny_bert)) == whole
    assert fit.weight_bytes(_spec(tiny_bert, dtype="bfloat16")) * 2 == whole
    assert fit.weight_bytes(_spec(tiny_bert, init="random")) == 0
    assert fit.weight_bytes(resolve(entry(use="pixels"))) == 0


def test_a_model_that_is_too_large_is_not_loaded(tiny_bert, monkeypatch) -> None:
    spec = _spec(tiny_bert, batch_tokens=1, max_tokens=4)
    needed = describe(spec).weight_bytes + fit.activation_bytes(spec, describe(spec))
    monkeypatch.setattr(fit, "device_bytes", lambda device: needed)
    load(spec)
    monkeypatch.setattr(fit, "device_bytes", lambda device: needed - 1)
    monkeypatch.setattr("platonic_ray.models.text.load_network", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(WeightsError, match=r"Model 'm' needs 0\.0 GB for its weights in float32.*or dtype"):
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
        WeightsError, match=r"192\.0 GB for a batch \(batch_tokens\).*192\.0 GB: it was not loaded"
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
    with pytest.raises(WeightsError, match="it was not loaded"):
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
