"""Bits per byte are those of transformers' own logits, text by text, and cost the features not a bit."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from model_samples import entry
from support import dense_features
from text_families import FAMILIES, TEXTS, save_tokenizer

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.models import Likelihood, load, resolve

CAUSAL = [family for family, (name, _, _) in FAMILIES.items() if "CausalLM" in name or "LMHead" in name]
CAUSAL += ["gemma3"]


def _load(folder: Path, **given):
    return load(resolve(entry(kind="transformers-text", weights=str(folder), bits_per_byte=True, **given)))


def _bits_alone(folder: Path, texts: list[str], first: list[int]) -> list[float]:
    """The oracle: one text at a time, unpadded, log-softmax in float64."""
    network = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bits = []
    for text in texts:
        ids = first + tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            chances = network(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        bits.append(-sum(float(chances[at, one]) for at, one in enumerate(ids[1:])) / math.log(2))
    return bits


@pytest.mark.parametrize("family", CAUSAL)
def test_bits_are_those_of_each_text_alone_and_features_stay_the_same_bytes(family, saved_text) -> None:
    folder = saved_text(family)
    features = _load(folder).embed(TEXTS)
    wanted = _bits_alone(folder, TEXTS, [])
    sizes = [len(text.encode()) for text in TEXTS]
    found = features.likelihood
    assert found is not None
    assert (found.text_bytes, found.texts, found.without_context) == (sum(sizes), len(TEXTS), len(TEXTS))
    np.testing.assert_allclose(found.bits, sum(wanted), rtol=2e-6)
    np.testing.assert_allclose(
        found.bits_per_byte_per_text, np.mean(np.array(wanted) / np.array(sizes)), rtol=2e-6
    )
    plain = load(resolve(entry(kind="transformers-text", weights=str(folder)))).embed(TEXTS)
    assert plain.likelihood is None
    for a, b in zip(features.layers, plain.layers, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("bos", "option", "begins"),
    [("known", True, True), ("known", None, False), ("added", None, True), ("added", False, False)],
)
def test_a_first_token_gives_the_first_of_a_text_its_context(
    bos, option, begins, saved_text, tmp_path
) -> None:
    folder = Path(shutil.copytree(saved_text("llama"), tmp_path / "llama"))
    save_tokenizer(folder, pad=False, bos=bos)
    model = _load(folder, **({} if option is None else {"bos": option}))
    found = model.embed(TEXTS).likelihood
    assert found.without_context == (0 if begins else len(TEXTS))
    np.testing.assert_allclose(found.bits, sum(_bits_alone(folder, TEXTS, [0] if begins else [])), rtol=2e-6)


def test_the_first_token_is_counted_where_a_text_is_cut_and_bytes_are_those_that_were_read(
    saved_text, tmp_path
) -> None:
    folder = Path(shutil.copytree(saved_text("llama"), tmp_path / "llama"))
    text = "a red döog on a table"
    for bos, option, own in (("known", True, 5), ("added", False, 6), ("added", None, 5), ("known", None, 6)):
        save_tokenizer(folder, pad=False, bos=bos)
        given = {} if option is None else {"bos": option}
        features = _load(folder, max_tokens=6, **given).embed([text, "dog"])
        assert features.truncated == 1
        assert features.likelihood.text_bytes == len(text[:own].encode()) + 3
        assert _load(folder, max_tokens=6, **given).embed([text[:own]]).truncated == 0


def test_a_first_token_that_the_tokenizer_does_not_have_is_refused(saved_text) -> None:
    with pytest.raises(StudyError, match="has no BOS token"):
        load(resolve(entry(kind="transformers-text", weights=str(saved_text("llama")), bos=True)))


def test_a_likelihood_of_what_is_no_language_model_or_of_prompted_texts_is_refused(saved_text) -> None:
    for family in ("bert", "roberta", "t5", "bart"):
        with pytest.raises(StudyError, match="is of causal language models"):
            resolve(entry(kind="transformers-text", weights=str(saved_text(family)), bits_per_byte=True))
    with pytest.raises(StudyError, match="leave 'prompt' out"):
        resolve(entry(use="smollm2-135m", bits_per_byte=True, prompt="a photo of {text}"))
    with pytest.raises(StudyError, match="bits_per_byte would do nothing"):
        resolve(entry(use="pixels", bits_per_byte=True))


def test_shards_add_up() -> None:
    parts = [Likelihood.of([3.0, 1.0], [2, 4], 1), Likelihood.of([5.0], [1], 0)]
    whole = Likelihood.of([3.0, 1.0, 5.0], [2, 4, 1], 1)
    assert parts[0] + parts[1] == whole
    assert whole.bits_per_byte == 9 / 7
    assert whole.bits_per_byte_per_text == (3 / 2 + 1 / 4 + 5) / 3
    assert math.isnan(Likelihood().bits_per_byte)


def test_a_study_reports_what_was_measured_beside_what_was_given(saved_text, samples, tmp_path) -> None:
    def study(**more):
        folder = str(saved_text("gpt2"))
        models = [
            {
                "name": "gpt2",
                "kind": "transformers-text",
                "weights": folder,
                "view": "en",
                "bits_per_byte": True,
            },
            {"name": "pixels", "use": "pixels", "view": "image", **more},
        ]
        return pr.Study.from_dict(
            {
                **{"dataset": {"source": str(samples), "samples": 40}, "shard_rows": 16, "models": models},
                **{"null": {"permutations": 0}, "run": {"engine": "local", "store": str(tmp_path / "store")}},
            }
        )

    result = pr.align(study(), quiet=True)
    first, second, size = result.capability.rows(named=True)
    assert (size["capability"], size["model"]) == ("parameters", "gpt2")
    assert [first["capability"], second["capability"]] == ["bits_per_byte", "bits_per_byte_per_text"]
    assert (first["model"], first["view"], first["samples"]) == ("gpt2", "en", 40)
    assert "bos = true gives it one" in first["status"]
    texts = pr.datasets.open_dataset(study().dataset, study().seed).read("en")
    whole = _load(saved_text("gpt2")).embed(texts).likelihood
    np.testing.assert_allclose(first["value"], whole.bits_per_byte, rtol=1e-6)
    np.testing.assert_allclose(second["value"], whole.bits_per_byte_per_text, rtol=1e-6)
    assert pr.load(result.save(tmp_path / "result")).equals(result)
    given = pr.align(study(capability={"imagenet": 0.1}), quiet=True)
    assert given.capability.rows()[3] == ("pixels", "imagenet", None, 0.1, None, None)
    assert "imagenet: pixels 0.1" in given.summary()


def test_a_study_measures_the_likelihood_of_another_view_than_the_one_it_embeds(
    saved_text, samples, tmp_path
) -> None:
    def study(predicted):
        model = {
            "name": "gpt2",
            "kind": "transformers-text",
            "weights": str(saved_text("gpt2")),
            "view": "en",
        }
        return pr.Study.from_dict(
            {
                **{"dataset": {"source": str(samples), "samples": 40}, "shard_rows": 16},
                **{"models": [{**model, "bits_per_byte": predicted}], "null": {"permutations": 0}},
                "run": {"engine": "local", "store": str(tmp_path / "store")},
            }
        )

    result = pr.align(study("de"), quiet=True)
    first, second, *_ = result.capability.rows(named=True)
    assert (first["model"], first["view"], first["samples"]) == ("gpt2", "de", 40)
    texts = pr.datasets.open_dataset(study("de").dataset, 0).read("de")
    whole = _load(saved_text("gpt2")).embed(texts).likelihood
    np.testing.assert_allclose(first["value"], whole.bits_per_byte, rtol=1e-6)
    np.testing.assert_allclose(second["value"], whole.bits_per_byte_per_text, rtol=1e-6)
    features = [layer.tobytes() for layer in dense_features(study("de"))["gpt2"]]
    pr.align(study(True), quiet=True)
    assert features == [layer.tobytes() for layer in dense_features(study(True))["gpt2"]]
    with pytest.raises(StudyError, match="which holds no texts"):
        pr.align(study("image"), quiet=True)
    with pytest.raises(StudyError, match="has no view"):
        pr.align(study("fr"), quiet=True)


@pytest.mark.weights
def test_smollm2_predicts_english_better_than_shuffled_english() -> None:
    model = load(resolve(entry(use="smollm2-135m", bits_per_byte=True, layers=[-1])))
    english = "The capital of France is Paris, and the capital of Germany is Berlin."
    words = english.split()
    shuffled = " ".join(words[::2] + words[1::2][::-1])
    bits = [model.embed([text]).likelihood.bits_per_byte for text in (english, shuffled)]
    assert 0.3 < bits[0] < 1.2
    assert bits[0] < bits[1] - 0.3
