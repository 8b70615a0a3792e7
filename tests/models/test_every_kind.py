"""One study of every kind of model and the demo's, four kinds of views, through Ray's actors, as in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import ray
import torch
from model_samples import image
from safetensors.numpy import save_file
from sound_samples import clip, save_audio, save_video, sound
from support import changed, events_of, score_bytes
from test_vision_models import FAMILIES as VISION
from test_vision_models import _save
from text_families import save_family

import platonic_ray as pr
from platonic_ray.cache import cache_folder
from platonic_ray.models import check_models

N = 24
TEXT, IMAGE, AUDIO, VIDEO = (f"transformers-{what}" for what in ("text", "vision", "audio", "video"))
MODELS = {
    "llama": (TEXT, {"pooling": ["mean", "last"], "bits_per_byte": True}),
    "bert": (TEXT, {"dtype": "bfloat16"}),
    "t5": (TEXT, {"concatenate": True}),
    "vit": (IMAGE, {"pooling": "first", "layers": "blocks"}),  # the class token enters as a constant
    "dinov2": (IMAGE, {}),
    "clip": (IMAGE, {"layers": "blocks"}),
    "convnext": (IMAGE, {}),
    "whisper": (AUDIO, {}),
    "wav2vec2": (AUDIO, {}),
    "videomae": (VIDEO, {}),
}
VIEWS = {TEXT: "caption", IMAGE: "image", AUDIO: "sound", VIDEO: "clip"}
WORDS = ["red", "green", "blue", "round", "square", "small", "large", "cat", "dog"]


def _samples() -> bytes:
    rng = np.random.default_rng(1)
    table = {
        "caption": [" ".join(rng.choice(WORDS, size=3)) for _ in range(N)],
        "image": [image(row, (40, 36)) for row in range(N)],
        "sound": [sound(0.1 + row % 5 / 20, row) for row in range(N)],
        "clip": [clip(row, frames=4) for row in range(N)],
    }
    out = io.BytesIO()
    pq.write_table(pa.table(table), out)
    return out.getvalue()


def _folder(folder: Path, name: str) -> Path:
    kind = MODELS[name][0]
    folder.mkdir()
    if kind == TEXT:
        return save_family(folder, name)
    if kind == IMAGE:
        return _save(folder, *VISION[name][:4])
    return save_audio(folder, name) if kind == AUDIO else save_video(folder)


# But for SmolLM2, whose GGUF file takes longer to load than all others together: CI runs the demo itself.
DEMO = {
    "MiniLM": ("minilm-l6", "caption"),
    **{"wordllama": ("wordllama-256", "caption"), "tfidf": ("char-tfidf", "caption")},
    **{"EfficientNet": ("efficientnet-lite0", "image"), "pixels": ("pixels", "image")},
}
STORED = ("npy", "safetensors", "arrow", "parquet", "pt")
NETWORK = """
import torch

def build():
    torch.manual_seed(3)
    network = torch.nn.Sequential(torch.nn.Embedding(256, 8), torch.nn.Linear(8, 5))
    def batch(texts):
        return torch.tensor([[ord(letter) % 256 for letter in text[:9].ljust(9)] for text in texts])
    return network, batch, "a cat"
"""


def _write_features(folder: Path) -> None:
    """Write the same two layers of features in every form that is read."""
    features = np.random.default_rng(2).normal(size=(N, 2, 6)).astype(np.float32)
    np.save(folder / "features.npy", features)
    layers = {f"layer {at}": np.ascontiguousarray(features[:, at]) for at in range(2)}
    save_file(layers, folder / "features.safetensors")
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 6) for name, rows in layers.items()
    }
    pa.feather.write_feather(pa.table(columns), folder / "features.arrow", compression="uncompressed")
    pq.write_table(pa.table(columns), folder / "features.parquet")
    torch.save({"feats": torch.from_numpy(features)}, folder / "features.pt")


def _sentence_encoder(folder: Path) -> Path:
    """Save a tiny BERT as sentence-transformers does, which pools its first token."""
    folder.mkdir()
    save_family(folder, "bert")
    kinds = ("Transformer", "Pooling")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("every")


@pytest.fixture(scope="module")
def study(root, object_store) -> Iterator[pr.Study]:
    """Every kind of model: tiny random ones, the demo's, features in every form, a network of one's own.

    The samples are in a bucket alone.
    """
    source = object_store.new_uri() + "/samples.parquet"
    with object_store.files.open_output_stream(source.removeprefix("s3://")) as stream:
        stream.write(_samples())
    _write_features(root)
    (root / "network_of_this_test.py").write_text(NETWORK)
    models = [
        {"name": name, "kind": kind, "weights": str(_folder(root / name, name)), "view": VIEWS[kind], **more}
        for name, (kind, more) in MODELS.items()
    ]
    models += [
        {"name": form, "kind": "features", "weights": str(root / f"features.{form}"), "view": "caption"}
        for form in STORED
    ]
    models += [{"name": name, "use": use, "view": view} for name, (use, view) in DEMO.items()]
    folder = str(_sentence_encoder(root / "sentence"))
    own = {"kind": "module", "weights": "network_of_this_test:build"}
    models += [
        {"name": "sentence", "kind": TEXT, "weights": folder, "pooling": "model", "view": "caption"},
        {"name": "module", **own, "view": "caption"},
    ]
    declared = {
        view: {"column": view, "kind": kind} for view, kind in (("sound", "audio"), ("clip", "video"))
    }
    made = pr.Study.from_dict(
        {
            **{"name": "every", "models": models, "null": {"permutations": 0}, "shard_rows": 12},
            "dataset": {"source": source, "views": declared},
            "metrics": [{"name": "mutual_knn", "k": 5}],
            "run": {"engine": "ray", "store": str(root / "ray")},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        (root / "cache").mkdir()
        (root / "cache" / "weights").symlink_to(cache_folder("weights"))  # of the real models
        patch.setenv("PLATONIC_RAY_CACHE", str(root / "cache"))
        yield made


@pytest.fixture(scope="module")
def distributed(study, root) -> Iterator[Any]:
    """The result of the study through Ray's actors."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(root)}},
    )
    try:
        yield pr.align(study, quiet=True)
    finally:
        ray.shutdown()


@pytest.mark.weights
@pytest.mark.cluster
def test_every_kind_runs_in_a_study_through_rays_actors_and_is_checked_without_running(
    study, distributed, root
) -> None:
    checks = {check.model: check for check in check_models(study.models)}
    assert [check.problem for check in checks.values()] == [None] * len(study.models)
    assert distributed.models.height == len(study.models) * (len(study.models) + 1) // 2
    assert distributed.scores["score"].is_not_nan().all()
    for name, rows in distributed.layers.group_by("model"):
        found = tuple(zip(rows.sort("layer")["layer_name"], rows.sort("layer")["width"], strict=True))
        if name[0] == "tfidf":  # fitted on the texts: no wider than was said
            assert found[0][1] <= checks["tfidf"].layers[0][1]
        else:
            assert found == checks[name[0]].layers
    assert {"bits_per_byte", "bits_per_byte_per_text"} <= set(distributed.capability["capability"])
    matrix = distributed.matrix("mutual_knn")
    for form in STORED[1:]:
        assert matrix.at("llama", form) == matrix.at("llama", "npy")
    assert distributed.provenance["dataset"]["name"].startswith("s3://")
    assert [path.name for path in (root / "cache").rglob("*.parquet")] == ["samples.parquet"]
    loads = [event for event in events_of(study) if event["event"] == "model_loaded"]
    assert {event["model"] for event in loads} == {model.name for model in study.models}
    assert len({event["pid"] for event in loads}) < len(loads) / 2  # a process takes one model after another


@pytest.mark.slow  # all of it once more, in this process
@pytest.mark.weights
@pytest.mark.cluster
def test_in_this_process_it_comes_out_the_same(study, distributed, tmp_path) -> None:
    here = pr.align(changed(study, engine="local", store=str(tmp_path / "local")), quiet=True)
    assert score_bytes(distributed) == score_bytes(here)
    assert distributed.capability.equals(here.capability)
