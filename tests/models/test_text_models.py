"""Padding, batches and order change nothing; features are what transformers computes sentence by sentence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from model_samples import TEXTS, entry

from platonic_ray.errors import DataError, WeightsError
from platonic_ray.models import load, resolve
from platonic_ray.models.weights import locate

TINY = ["a red apple", "dog", "a b a b dog hat", "face with hat", "unknown words", "b"]


def _close(one: list[np.ndarray], other: list[np.ndarray], tolerance: float) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()), rtol=0)


def _one_by_one(model, texts) -> list[np.ndarray]:
    single = [model.embed([text]).layers for text in texts]
    return [np.concatenate(rows) for rows in zip(*single, strict=True)]


@pytest.mark.parametrize("pooling", ["mean", "last", "first"])
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_llama"])
def test_a_padded_batch_equals_single_samples(family, pooling, request) -> None:
    folder = request.getfixturevalue(family)
    model = load(resolve(entry(kind="transformers-text", weights=str(folder), pooling=pooling)))
    _close(model.embed(TINY).layers, _one_by_one(model, TINY), 2e-6)


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_llama"])
def test_the_order_of_items_changes_no_byte_and_neither_does_a_second_run(family, request) -> None:
    folder = request.getfixturevalue(family)
    model = load(resolve(entry(kind="transformers-text", weights=str(folder), batch_tokens=8)))
    forth, again, back = model.embed(TINY), model.embed(TINY), model.embed(TINY[::-1])
    for a, b, c in zip(forth.layers, again.layers, back.layers, strict=True):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, c[::-1], atol=1e-6)


def test_layers_are_named_and_the_final_norm_is_said(tiny_bert, tiny_llama) -> None:
    bert = load(resolve(entry(kind="transformers-text", weights=str(tiny_bert))))
    llama = load(resolve(entry(kind="transformers-text", weights=str(tiny_llama))))
    assert [layer.name for layer in bert.layers] == ["embedding", "block 1", "block 2"]
    assert [layer.name for layer in llama.layers] == ["embedding", "block 1", "block 2", "block 3 + norm"]
    assert {layer.width for layer in (*bert.layers, *llama.layers)} == {16}


def test_pooling_is_what_it_says(tiny_llama) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(tiny_llama)(TINY[2], return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(tiny_llama)(**tokens, output_hidden_states=True).hidden_states
    wanted = {"mean": lambda s: s[0].mean(0), "last": lambda s: s[0, -1], "first": lambda s: s[0, 0]}
    for pooling, reduce in wanted.items():
        model = load(resolve(entry(kind="transformers-text", weights=str(tiny_llama), pooling=pooling)))
        got = [layer[2] for layer in model.embed(TINY).layers]
        _close(got, [reduce(state).numpy() for state in states], 2e-6)


def test_long_texts_are_cut_and_counted(tiny_bert) -> None:
    model = load(resolve(entry(kind="transformers-text", weights=str(tiny_bert), max_tokens=4)))
    cut = model.embed(["a b a b dog", "a b a b", "a"])
    assert cut.truncated == 1
    _close([layer[:1] for layer in cut.layers], [layer[1:2] for layer in cut.layers], 1e-6)
    unbounded = load(resolve(entry(kind="transformers-text", weights=str(tiny_bert))))
    assert unbounded.embed(["a " * 50]).truncated == 1  # its positions end at 12


def test_a_prompt_is_put_around_each_text(tiny_bert) -> None:
    plain = load(resolve(entry(kind="transformers-text", weights=str(tiny_bert))))
    prompted = load(resolve(entry(kind="transformers-text", weights=str(tiny_bert), prompt="a {text} hat")))
    _close(prompted.embed(["dog", "{b}"]).layers, plain.embed(["a dog hat", "a {b} hat"]).layers, 1e-6)


def test_a_text_without_tokens_is_refused_and_no_texts_give_no_rows(tiny_bert) -> None:
    model = load(resolve(entry(kind="transformers-text", weights=str(tiny_bert))))
    with pytest.raises(DataError, match="no token"):
        model.embed(["a", " "])
    assert [layer.shape for layer in model.embed([]).layers] == [(0, 16)] * 3


def test_weights_that_lack_a_tensor_are_refused_and_not_filled_with_noise(tiny_bert, tmp_path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("encoder.layer.1.output.dense.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="weights are missing"):
        load(resolve(entry(kind="transformers-text", weights=str(tmp_path))))


def test_a_folder_of_pickled_weights_is_refused(tiny_bert, tmp_path) -> None:
    import shutil

    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(resolve(entry(kind="transformers-text", weights=str(tmp_path))))


def test_random_weights_are_the_same_in_every_process_and_leave_torchs_state_alone(tiny_llama) -> None:
    spec = resolve(entry(kind="transformers-text", weights=str(tiny_llama), init="random"))
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    here = load(spec).embed(TINY).layers
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    code = (
        "import sys, torch; torch.manual_seed(99); torch.set_num_threads(int(sys.argv[2]))\n"
        "from platonic_ray.models import load, resolve; from platonic_ray.study import ModelEntry\n"
        "given = dict(kind='transformers-text', weights=sys.argv[1], init='random')\n"
        "spec = resolve(ModelEntry(name='o', view='w', **given))\n"
        f"print(spec.key, load(spec).embed({TINY!r}).layers[-1].tobytes().hex())"
    )
    said = subprocess.check_output([sys.executable, "-c", code, str(tiny_llama), str(threads)], text=True)
    assert said.split() == [spec.key, here[-1].tobytes().hex()]
    trained = load(resolve(entry(kind="transformers-text", weights=str(tiny_llama)))).embed(TINY).layers
    assert not np.allclose(here[-1], trained[-1], atol=1e-2)


@pytest.mark.weights
def test_minilm_equals_an_independent_computation_and_orders_known_sentences(loaded) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = loaded("minilm-l6")
    folder = locate(resolve(entry(use="minilm-l6")).weights)
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    wanted: list[list[np.ndarray]] = []
    for text in TEXTS:
        with torch.inference_mode():
            states = network(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        wanted.append([state[0].mean(0).numpy() for state in states])
    got = model.embed(TEXTS).layers
    for layer, rows in zip(got, zip(*wanted, strict=True), strict=True):
        np.testing.assert_allclose(layer, np.stack(rows), atol=1e-5)

    one, near, far = model.embed(
        ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell."]
    ).layers[-1]
    assert _cosine(one, near) > 0.5 > 0.2 > _cosine(one, far)


@pytest.mark.weights
@pytest.mark.parametrize("use", ["minilm-l6", "smollm2-135m", "wordllama-256"])
def test_a_real_padded_batch_equals_single_samples(loaded, use) -> None:
    model = loaded(use)
    _close(model.embed(TEXTS).layers, _one_by_one(model, TEXTS), 1e-5)


@pytest.mark.weights
def test_smollm2_says_paris(loaded) -> None:
    """The GGUF reader's weights are right if the next token is: its embedding is tied to its head."""
    model = loaded("smollm2-135m")
    network, tokenizer = model._network, model._tokens.tokenizer
    tokens = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        logits = network(**tokens).last_hidden_state[0, -1] @ network.get_input_embeddings().weight.T
    assert tokenizer.decode(logits.argmax()).strip() == "Paris"
    assert len(model.layers) == 31
    assert (model.layers[-1].name, model.layers[-1].width) == ("block 30 + norm", 576)


@pytest.mark.weights
@pytest.mark.parametrize("use", ["minilm-l6", "smollm2-135m", "wordllama-256"])
def test_real_architectures_with_random_weights_differ_from_the_trained(loaded, use) -> None:
    trained, random = loaded(use), loaded(use, "random")
    assert trained.layers == random.layers
    for a, b in zip(trained.embed(TEXTS).layers, random.embed(TEXTS).layers, strict=True):
        assert np.isfinite(b).all()
        assert not np.allclose(a, b, atol=1e-2)


@pytest.mark.weights
def test_wordllama_is_the_mean_of_token_vectors_and_a_text_without_token_is_zero(loaded) -> None:
    model = loaded("wordllama-256")
    apple, empty = model.embed(["a red apple", ""]).layers[0]
    tokens = model._tokenizer.encode("a red apple", add_special_tokens=False).ids
    np.testing.assert_allclose(apple, model.table[tokens].mean(0), atol=1e-6)
    assert not empty.any()
    cat, kitten, bank = model.embed(["cat", "kitten", "central bank"]).layers[0]
    assert _cosine(cat, kitten) > _cosine(cat, bank)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_llama"])
def test_the_code_of_one_architecture_is_imported_and_no_other(family, request) -> None:
    """All of transformers' language models together take seconds to import and some hundred megabytes."""
    code = (
        "import sys; from platonic_ray.models import load, resolve; from platonic_ray.study import ModelEntry;"
        "load(resolve(ModelEntry(name='a', view='v', kind='transformers-text', weights=sys.argv[1])));"
        "print(*(name for name in sys.modules if '.models.' in name and '.modeling_' in name))"
    )
    folder = str(request.getfixturevalue(family))
    said = subprocess.check_output([sys.executable, "-c", code, folder], text=True)
    architectures = {name.rpartition(".")[2] for name in said.split()}
    assert f"modeling_{family.removeprefix('tiny_')}" in architectures
    assert len(architectures) < 10
