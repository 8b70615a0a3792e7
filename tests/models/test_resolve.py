"""A spec's key covers what determines features, and nothing else; wrong entries are refused with a hint."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from model_samples import entry

from platonic_ray.errors import DataError, StudyError
from platonic_ray.models import CATALOG, load, resolve
from platonic_ray.models.kinds import KINDS
from platonic_ray.study import ModelEntry


def test_importing_models_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, platonic_ray.models; "
        "print({'torch', 'transformers', 'sklearn', 'ray', 'PIL', 'huggingface_hub'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize("use", CATALOG)
def test_a_model_of_the_catalog_is_pinned_without_any_download(use, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PLATONIC_RAY_CACHE", str(tmp_path))
    spec = resolve(entry(use=use))
    assert list(tmp_path.iterdir()) == []
    assert json.loads(json.dumps(spec.identity())) == spec.identity()
    assert pickle.loads(pickle.dumps(spec)).key == spec.key
    assert spec.modality == KINDS[CATALOG[use].kind].modality
    assert spec.fits == (use == "char-tfidf")
    for _, sha in spec.weights.files if spec.weights else ():
        assert len(sha) == 64


def test_the_key_ignores_the_name_and_the_view() -> None:
    one = resolve(entry(use="minilm-l6"))
    other = resolve(entry(use="minilm-l6", name="other", view="name.de"))
    assert one.key == other.key


def test_the_key_changes_with_everything_that_changes_features() -> None:
    changes = [
        *({}, {"pooling": "last"}, {"prompt": "a photo of {text}"}, {"max_tokens": 16}, {"batch_tokens": 64}),
        {"init": "random"},
    ]
    specs = [resolve(entry(use="minilm-l6", **change)) for change in changes]
    specs.append(resolve(entry(use="minilm-l6", init="random"), seed=1))
    weights = specs[0].weights
    assert weights is not None
    other = tuple((name, "0" * 64) for name, _ in weights.files)
    specs.append(dataclasses.replace(specs[0], weights=dataclasses.replace(weights, files=other)))
    keys = [spec.key for spec in specs]
    keys += [resolve(entry(use=use)).key for use in CATALOG if use != "minilm-l6"]
    keys.append(resolve(entry(use="efficientnet-lite0", batch_images=2)).key)
    assert len(set(keys)) == len(keys)


def test_the_key_of_random_weights_does_not_depend_on_the_trained_ones() -> None:
    spec = resolve(entry(use="minilm-l6", init="random"))
    assert spec.weights is not None
    assert "model.safetensors" not in dict(spec.weights.files)
    assert resolve(entry(use="efficientnet-lite0", init="random")).weights is None


def test_the_key_of_local_weights_depends_on_their_bytes_and_not_on_their_place(tiny_bert, tmp_path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_bert, tmp_path / "copy"))
    keys = [resolve(entry(kind="transformers-text", weights=str(folder))).key for folder in (tiny_bert, copy)]
    assert keys[0] == keys[1]
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert resolve(entry(kind="transformers-text", weights=str(copy))).key != keys[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"use": "minilm-l7"}, "Did you mean 'minilm-l6'"),
        ({"kind": "transformer-text", "weights": "x"}, "Did you mean 'transformers-text'"),
        ({"kind": "transformers-text"}, "needs 'weights'"),
        ({"kind": "pixels", "weights": "x"}, "has no weights"),
        ({"use": "pixels", "pooling": "mean"}, "pooling would do nothing"),
        ({"use": "pixels", "init": "random"}, "means nothing"),
        ({"use": "minilm-l6", "prompt": "no place"}, "exactly once"),
        ({"kind": "efficientnet-lite", "weights": "/x/net.pth"}, "must name the network"),
        ({"kind": "transformers-text", "weights": "/x", "file": "a.safetensors"}, "GGUF"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_with_a_hint(given, message) -> None:
    with pytest.raises(StudyError, match=message):
        resolve(entry(**given))


def test_tfidf_without_a_corpus_is_refused() -> None:
    with pytest.raises(DataError, match="corpus"):
        load(resolve(entry(use="char-tfidf")))


def test_two_files_of_one_hub_commit_are_two_models():
    """A commit pins all files, but a model reads one of them; no network is needed to tell them apart."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    keys = {
        resolve(
            ModelEntry(name="m", view="v", kind="transformers-text", weights=f"hub:org/m@{commit}", file=file)
        ).key
        for file in ("m-Q4.gguf", "m-Q8.gguf")
    }
    assert len(keys) == 2
