"""One study of every kind of model, three kinds of views, through Ray's actors: nothing differs from this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_samples import image
from sound_samples import clip, save_audio, save_video, sound
from support import changed, score_bytes
from test_vision_models import FAMILIES as VISION
from test_vision_models import _save
from text_families import save_family

import platonic_ray as pr
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


def _write_samples(path: Path) -> Path:
    rng = np.random.default_rng(1)
    table = {
        "caption": [" ".join(rng.choice(WORDS, size=3)) for _ in range(N)],
        "image": [image(row, (40, 36)) for row in range(N)],
        "sound": [sound(0.1 + row % 5 / 20, row) for row in range(N)],
        "clip": [clip(row, frames=4) for row in range(N)],
    }
    pq.write_table(pa.table(table), path)
    return path


def _folder(folder: Path, name: str) -> Path:
    kind = MODELS[name][0]
    folder.mkdir()
    if kind == TEXT:
        return save_family(folder, name)
    if kind == IMAGE:
        return _save(folder, *VISION[name][:4])
    return save_audio(folder, name) if kind == AUDIO else save_video(folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> pr.Study:
    """Ten tiny random models, one of another kind whose features exist, and an embedded floor."""
    root = tmp_path_factory.mktemp("every")
    np.save(root / "features.npy", np.random.default_rng(2).normal(size=(N, 2, 6)).astype(np.float32))
    models = [
        {"name": name, "kind": kind, "weights": str(_folder(root / name, name)), "view": VIEWS[kind], **more}
        for name, (kind, more) in MODELS.items()
    ]
    models += [
        {"name": "stored", "kind": "features", "weights": str(root / "features.npy"), "view": "caption"},
        {"name": "wordllama", "use": "wordllama-256", "view": "caption"},
        {"name": "pixels", "use": "pixels", "view": "image"},
    ]
    declared = {
        view: {"column": view, "kind": kind} for view, kind in (("sound", "audio"), ("clip", "video"))
    }
    return pr.Study.from_dict(
        {
            **{"name": "every", "models": models, "null": {"permutations": 0}, "shard_rows": 12},
            "dataset": {"source": str(_write_samples(root / "samples.parquet")), "views": declared},
            "metrics": [{"name": "mutual_knn", "k": 5}, {"name": "cka"}],
            "run": {"engine": "local", "store": str(root / "local")},
        }
    )


@pytest.mark.weights
def test_every_kind_runs_in_a_study_and_is_checked_without_running(study) -> None:
    checks = {check.model: check for check in check_models(study.models)}
    assert [check.problem for check in checks.values()] == [None] * len(study.models)
    result = pr.align(study, quiet=True)
    assert result.models.height == 2 * len(study.models) * (len(study.models) + 1) // 2
    assert result.scores["score"].is_not_nan().all()
    for name, rows in result.layers.group_by("model"):
        found = tuple(zip(rows.sort("layer")["layer_name"], rows.sort("layer")["width"], strict=True))
        assert found == checks[name[0]].layers
    assert result.capability["capability"].to_list() == ["bits_per_byte", "bits_per_byte_per_text"]


@pytest.mark.slow  # a process a model, each importing its libraries: minutes on two cores
@pytest.mark.weights
@pytest.mark.cluster
def test_through_rays_actors_it_comes_out_the_same(study, tmp_path) -> None:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        distributed = pr.align(changed(study, engine="ray", store=str(tmp_path / "ray")), quiet=True)
    finally:
        ray.shutdown()
    here = pr.align(study, quiet=True)
    assert score_bytes(distributed) == score_bytes(here)
    assert distributed.capability.equals(here.capability)
