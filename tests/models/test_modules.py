"""Any torch module: its submodules' outputs, pooled, under a key of its source and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import entry

import platonic_ray as pr
from platonic_ray.errors import StudyError, WeightsError
from platonic_ray.models import check_models, describe, load, resolve

_SOURCE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(256, 8)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(2))
        self.head = torch.nn.Linear(8, 5)

    def forward(self, ids, scale):
        state = self.table(ids) * scale
        for block in self.blocks:
            state = torch.tanh(block(state))
        return self.head(state.mean(1))

def batch(items):
    texts = [item if isinstance(item, str) else item.decode("latin1") for item in items]
    ids = [[ord(letter) % 256 for letter in text[:3].ljust(3)] for text in texts]
    return {"ids": torch.tensor(ids), "scale": torch.tensor(2.0)}

def build():
    torch.manual_seed(SEED)
    return Net(), batch, "abc"

def drawn_anew():
    torch.seed()
    return Net(), batch, "abc"

def half():
    return Net()

number = 3
"""
TEXTS = ["red", "green cat", "dog", "blue"]


@pytest.fixture
def written(tmp_path, monkeypatch, request) -> str:
    """A module of this test's own, in the path of imports."""
    name = f"my_net_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(_SOURCE.replace("SEED", "3"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def _spec(path: str, **given):
    return resolve(entry(kind="module", weights=path, **given))


def test_layers_are_the_outputs_of_the_submodules_that_are_named(written) -> None:
    spec = _spec(
        f"{written}:build", layers=["table", "blocks.1", "head"], pooling=["mean", "last"], batch_items=3
    )
    model = load(spec)
    assert describe(spec).layers == model.layers
    assert [layer.name for layer in model.layers][:3] == ["table (mean)", "blocks.1 (mean)", "head (mean)"]
    import importlib

    net, batch, _ = importlib.import_module(written).build()
    with torch.inference_mode():
        state = table = net.table(batch(TEXTS)["ids"])
        state = state * 2
        for block in net.blocks:
            state = torch.tanh(block(out := block(state)) * 0 + out)
        head = net.head(state.mean(1))
    wanted = [table.mean(1), out.mean(1), head, table[:, -1], out[:, -1], head]
    for layer, rows in zip(model.embed(TEXTS).layers, wanted, strict=True):
        assert layer.dtype == np.float32
        np.testing.assert_allclose(layer, rows.numpy(), atol=1e-6)


def test_by_default_layers_are_the_children_that_ran(written) -> None:
    assert [layer.name for layer in load(_spec(f"{written}:build")).layers] == ["table", "head"]


def test_the_key_is_of_the_source_and_the_weights(written, tmp_path) -> None:
    file = tmp_path / f"{written}.py"
    keys = [_spec(f"{written}:build").key]
    assert _spec(f"{written}:build").key == keys[0]
    import importlib
    import sys

    for source in (_SOURCE.replace("SEED", "4"), _SOURCE.replace("SEED", "3") + "# changed\n"):
        file.write_text(source)
        importlib.invalidate_caches()
        sys.modules.pop(written)
        keys.append(_spec(f"{written}:build").key)
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("path", "given", "message"),
    [
        ("no colon", {}, "give 'weights' as an import path"),
        ("no_such_module_at_all:build", {}, "cannot be imported"),
        ("{}:nothing", {}, "cannot be imported"),
        ("{}:number", {}, "is int, no function"),
        ("{}:half", {}, r"half\(\) must return a torch.nn.Module"),
        ("{}:build", {"layers": ["blocks.7"]}, "has no layer 'blocks.7'"),
        ("{}:build", {"init": "random"}, "no 'sha256', 'file' or 'init'"),
        ("{}:build", {"max_tokens": 3}, "max_tokens would do nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(path, given, message, written) -> None:
    with pytest.raises(StudyError, match=message):
        _spec(path.format(written), **given)


def test_weights_that_are_drawn_anew_each_time_are_refused(written) -> None:
    with pytest.raises(WeightsError, match="must not be drawn anew each time"):
        load(_spec(f"{written}:drawn_anew"))


def test_a_study_runs_with_a_module_on_texts_and_on_bytes(written, samples, tmp_path) -> None:
    models = [
        {
            "name": view,
            "kind": "module",
            "weights": f"{written}:build",
            "view": view,
            "layers": ["blocks.0", "head"],
        }
        for view in ("en", "image")
    ]
    study = pr.Study.from_dict(
        {
            **{
                "dataset": {"source": str(samples), "samples": 40},
                "models": models,
                "null": {"permutations": 0},
            },
            "run": {"engine": "local", "store": str(tmp_path / "store")},
        }
    )
    result = pr.align(study, quiet=True)
    assert result.layers["layer_name"].to_list() == ["blocks.0", "head"] * 2
    assert [check.problem for check in check_models(study.models)] == [None, None]
    assert check_models(study.models)[0].parameters == 256 * 8 + 2 * 72 + 45
    (tmp_path / "study.toml").write_text("")
    assert study._with_paths_from(Path(tmp_path)).models[0].weights == f"{written}:build"
