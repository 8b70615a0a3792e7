"""Options of transformers' models: each changes what it says, enters the key, and is refused where it cannot be."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import entry, image
from safetensors.torch import load_file, save_file
from sound_samples import clip, save_audio, save_video, sound
from support import dense_features, write_samples, write_tiny_bert, write_tiny_vit
from text_families import save_tokenizer

import platonic_ray as pr
from platonic_ray.engine.embedding import ModelRunner
from platonic_ray.engine.prepare import prepare
from platonic_ray.errors import DataError, StudyError, WeightsError
from platonic_ray.models import describe, load, resolve
from platonic_ray.store import Store

TEXTS = ["a red apple", "dog", "a b a b dog hat", "b"]
KIND = "transformers-text"


def _spec(folder: Path, **given):
    return resolve(entry(**{"kind": KIND, "weights": str(folder), **given}))


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def _close(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


def _of_kind(kind: str, folder: Path) -> tuple[Path, list]:
    if kind == KIND:
        return write_tiny_bert(folder), ["red cat", "dog"]
    if kind == "transformers-vision":
        return write_tiny_vit(folder), [image(1), image(2)]
    if kind == "transformers-audio":
        return save_audio(folder, "wav2vec2-layer"), [sound(0.2, 1), sound(0.3, 2)]
    return save_video(folder), [clip(1), clip(2)]


@pytest.mark.parametrize("kind", [KIND, "transformers-vision", "transformers-audio", "transformers-video"])
def test_a_narrow_dtype_halves_the_weights_and_moves_features_by_its_rounding(kind, tmp_path) -> None:
    folder, items = _of_kind(kind, tmp_path)
    whole, half = (_spec(folder, kind=kind, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert whole.key == _spec(folder, kind=kind).key != half.key
    assert describe(half).weight_bytes * 2 == describe(whole).weight_bytes
    model = load(half)
    assert {tensor.dtype for tensor in model._network.parameters()} == {torch.bfloat16}
    _close(model.embed(items).layers, load(whole).embed(items).layers, 0.05)


def test_the_attention_asked_for_is_the_one_that_runs(tiny_bert) -> None:
    plain, eager, sdpa = (_spec(tiny_bert, attention=name) for name in (None, "eager", "sdpa"))
    assert len({plain.key, eager.key, sdpa.key}) == 3
    loaded = [load(spec) for spec in (eager, sdpa)]
    assert [model._network.config._attn_implementation for model in loaded] == ["eager", "sdpa"]
    _close(*(model.embed(TEXTS).layers for model in loaded), 2e-6)


def _overflowing(folder: Path) -> Path:
    """A BERT whose embedding of one word is beyond float16; the norm after it keeps float32 finite."""
    write_tiny_bert(folder)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][4] *= 1e7  # "red"
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _study(folder: Path, samples: Path, store: Path, **more) -> pr.Study:
    model = {"name": "bert", "kind": KIND, "weights": str(folder), "view": "en", **more}
    return pr.Study.from_dict(
        {
            **{"dataset": {"source": str(samples)}, "shard_rows": 8, "null": {"permutations": 0}},
            **{"models": [model, {"name": "spelling", "use": "char-tfidf", "view": "en"}]},
            "run": {"engine": "local", "store": str(store)},
        }
    )


def test_nan_of_half_precision_is_named_or_its_shards_are_run_again_in_float32(tmp_path) -> None:
    folder, samples = _overflowing(tmp_path / "bert"), write_samples(tmp_path / "samples.parquet", 24)
    with pytest.raises(DataError, match=r"Model 'bert', layer 'embedding': .* NaN or infinite, of sample 's"):
        pr.align(_study(folder, samples, tmp_path / "a", dtype="float16"), quiet=True)
    study = _study(folder, samples, tmp_path / "b", dtype="float16", on_nan="float32")
    result = pr.align(study, quiet=True)
    store = Store(study.run.store)
    noted = [
        manifest.meta["fell_back"]
        for path in (tmp_path / "b" / "features").rglob("manifest.json")
        if "fell_back" in (manifest := store.manifest("features", path.parent.name)).meta
        and len(manifest.parts) > 1
    ]
    again = noted.count("float32")
    assert again >= 1
    assert f"bert: {again} of 3 shards were run again in float32" in " ".join(result.provenance["notes"])
    assert np.isfinite(result.scores["score"].to_numpy()).all()


def test_bits_that_are_nan_are_refused_by_the_samples_they_are_of(saved_text, tmp_path) -> None:
    """The head alone gives NaN: every feature is finite."""
    folder = _copy(saved_text("llama"), tmp_path / "llama")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][5:] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    samples = write_samples(tmp_path / "samples.parquet", 16)
    study = _study(folder, samples, tmp_path / "store", bits_per_byte=True)
    with pytest.raises(DataError, match="'bert': the bits per byte of samples 0 to 7 are NaN or infinite"):
        pr.align(study, quiet=True)


def test_a_shard_that_had_to_run_in_smaller_batches_says_so_and_gives_the_same_features(
    tiny_bert, tmp_path
) -> None:
    samples = write_samples(tmp_path / "samples.parquet", 16)
    study = _study(tiny_bert, samples, tmp_path / "store", batch_tokens=64)
    context = prepare(study, Store.open(study.run.store)).context
    runner = ModelRunner(replace(context, pieces=3), 0)
    runner.load()
    assert runner._loaded.budget == 8
    list(runner.embed(0))
    keys = context.plan.models[0].shard_keys
    assert context.store.manifest("features", keys[0]).meta["smaller_batches"] == 3
    result = pr.align(study, quiet=True)
    assert "smaller_batches" not in context.store.manifest("features", keys[1]).meta
    assert "bert: 1 of 2 shards were run in smaller batches" in " ".join(result.provenance["notes"])
    whole = _study(tiny_bert, samples, tmp_path / "whole", batch_tokens=64)
    pr.align(whole, quiet=True)
    _close(dense_features(study)["bert"], dense_features(whole)["bert"], 2e-6)


def test_a_fallback_is_that_of_the_model_in_float32(tmp_path) -> None:
    folder = _overflowing(tmp_path)
    spec = _spec(folder, dtype="float16", on_nan="float32")
    wide = spec.in_float32()
    assert wide is not None
    plain = load(_spec(folder)).embed(["red cat"]).layers
    assert [rows.tobytes() for rows in load(wide).embed(["red cat"]).layers] == [
        rows.tobytes() for rows in plain
    ]
    assert _spec(folder, dtype="float16").in_float32() is None
    assert _spec(folder, on_nan="float32").in_float32() is None
    assert spec.key != _spec(folder, dtype="float16").key


_CODE = """
from transformers import BertConfig, BertModel

class TinyConfig(BertConfig):
    model_type = "tiny-code"

class TinyModel(BertModel):
    config_class = TinyConfig
"""


def test_code_beside_the_weights_runs_only_where_the_entry_says_so_and_enters_the_key(
    tiny_bert, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = _copy(tiny_bert, tmp_path / "code")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "tiny-code", "architectures": ["TinyModel"]}
    config["auto_map"] = {"AutoConfig": "tiny_code.TinyConfig", "AutoModel": "tiny_code.TinyModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tiny_code.py").write_text(_CODE)
    with pytest.raises(WeightsError, match="cannot be loaded as a text model"):
        load(_spec(folder))
    assert not (tmp_path / "modules").exists()
    trusted = _spec(folder, trust_remote_code=True)
    model = load(trusted)
    assert type(model._network).__name__ == "TinyModel"
    _close(model.embed(TEXTS).layers, load(_spec(tiny_bert)).embed(TEXTS).layers, 1e-6)
    (folder / "tiny_code.py").write_text(_CODE + "# changed\n")
    assert _spec(folder, trust_remote_code=True).key != trusted.key


def test_weights_that_are_no_safetensors_are_read_only_where_they_are_named(tiny_bert, tmp_path) -> None:
    folder = _copy(tiny_bert, tmp_path / "bin")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(_spec(folder))
    spec = _spec(folder, file="pytorch_model.bin")
    assert "pytorch_model.bin" in dict(spec.weights.files)
    _close(load(spec).embed(TEXTS).layers, load(_spec(tiny_bert)).embed(TEXTS).layers, 1e-7)
    with pytest.raises(StudyError, match="to allow weights that are no safetensors"):
        _spec(folder, file="other.bin")


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_bin_that_would_run_code_is_refused(tiny_bert, tmp_path, capsys) -> None:
    folder = _copy(tiny_bert, tmp_path / "evil")
    (folder / "model.safetensors").unlink()
    torch.save({"x": _Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(_spec(folder, file="pytorch_model.bin"))
    assert "code ran" not in capsys.readouterr().out


def _sentence_folder(folder: Path, pooling: dict, *modules: str) -> Path:
    kinds = ("Transformer", "Pooling", *modules)
    described = [
        {
            "idx": at,
            "name": str(at),
            "path": f"{at}_{kind}" if at else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for at, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(described))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "max"}, "max"),
    ],
)
def test_a_sentence_encoders_own_pooling_is_taken_from_its_folder(said, ours, tiny_bert, tmp_path) -> None:
    folder = _sentence_folder(_copy(tiny_bert, tmp_path / "sentence"), said, "Normalize")
    spec = _spec(folder, pooling="model")
    found, wanted = load(spec), load(_spec(folder, pooling=ours))
    assert describe(spec).layers == found.layers == wanted.layers
    for a, b in zip(found.embed(TEXTS).layers, wanted.embed(TEXTS).layers, strict=True):
        assert a.tobytes() == b.tobytes()
    assert "1_Pooling/config.json" in dict(spec.weights.files)


def test_a_sentence_encoders_own_length_cuts_its_texts(tiny_bert, tmp_path) -> None:
    folder = _sentence_folder(_copy(tiny_bert, tmp_path / "sentence"), {"pooling_mode": "mean"})
    plain = _spec(folder, pooling="model")
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 4, "do_lower_case": False})
    )
    short = _spec(folder, pooling="model")
    assert short.key != plain.key
    found, wanted = (load(spec).embed(TEXTS) for spec in (short, _spec(folder, pooling="mean", max_tokens=4)))
    assert found.truncated == wanted.truncated > 0
    assert [rows.tobytes() for rows in found.layers] == [rows.tobytes() for rows in wanted.layers]
    least = load(_spec(folder, pooling="model", max_tokens=3)).embed(TEXTS)
    assert least.truncated >= found.truncated
    assert load(_spec(folder, pooling="mean")).embed(TEXTS).truncated == 0  # only of the model's own way


@pytest.mark.parametrize(
    ("said", "modules", "given", "message"),
    [
        ({"pooling_mode": "mean"}, ("Dense",), "model", "'Dense' after the pooling is not applied here"),
        ({"pooling_mode_weightedmean_tokens": True}, (), "model", "weightedmean_tokens, which is not known"),
        ({"pooling_mode": "mean"}, (), ["mean", "model"], "its own pooling is 'mean', which is given too"),
    ],
)
def test_a_pooling_of_its_own_that_is_not_known_is_refused(
    said, modules, given, message, tiny_bert, tmp_path
) -> None:
    folder = _sentence_folder(_copy(tiny_bert, tmp_path / "sentence"), said, *modules)
    with pytest.raises(StudyError, match=message):
        _spec(folder, pooling=given)
    with pytest.raises(StudyError, match=r"needs a sentence-transformers folder; modules\.json is not there"):
        _spec(tiny_bert, pooling="model")


_HAS_BITS = (
    importlib.util.find_spec("bitsandbytes") is not None
    and importlib.util.find_spec("accelerate") is not None
)


@pytest.mark.skipif(_HAS_BITS, reason="bitsandbytes is installed")
def test_without_bitsandbytes_quantization_says_what_to_install_before_any_work(saved_text) -> None:
    with pytest.raises(StudyError, match=r"needs bitsandbytes.*pip install 'platonic-ray\[quantized\]'"):
        _spec(saved_text("llama"), quantization="8bit")


def _held(network) -> int:
    """What bitsandbytes holds: the weights, and the scales beside them."""
    tensors = list(network.parameters())
    for module in network.modules():
        if type(module).__name__ == "Linear4bit":
            tensors.append(module.weight.quant_state.absmax)
        elif type(module).__name__ == "Linear8bitLt":  # they move when it has run for the first time
            tensors.append(module.weight.SCB if module.state.SCB is None else module.state.SCB)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.skipif(not _HAS_BITS, reason="bitsandbytes and accelerate are not installed")
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantized_weights_give_features_near_those_of_the_whole_ones(bits, tmp_path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    wide = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=100, max_position_embeddings=64, **wide)).save_pretrained(
        tmp_path
    )
    save_tokenizer(tmp_path, pad=False)
    whole, narrow = _spec(tmp_path), _spec(tmp_path, quantization=bits, bits_per_byte=True)
    assert whole.key != narrow.key
    model = load(narrow)
    assert type(model._network.model.layers[0].self_attn.q_proj).__name__ in ("Linear8bitLt", "Linear4bit")
    assert describe(narrow).weight_bytes == _held(model._network)
    ours, theirs = model.embed(TEXTS), load(whole).embed(TEXTS)
    assert ours.likelihood is not None
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a - b).max() <= 0.3 * np.abs(b).max()
    assert np.abs(ours.layers[-1] - theirs.layers[-1]).max() > 0


def test_quantization_is_of_trained_weights_alone(saved_text, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    with pytest.raises(StudyError, match="trained weights that are no GGUF"):
        _spec(saved_text("llama"), quantization="4bit", init="random")
    with pytest.raises(StudyError, match="quantization would do nothing"):
        resolve(entry(use="pixels", quantization="4bit"))
