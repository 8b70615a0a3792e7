"""`platonic-ray models --check` says what a study's models are without running any of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_samples import image
from torch import get_num_threads, set_num_threads

from platonic_ray.cli import main
from platonic_ray.models import check, check_models, fit, load, resolve
from platonic_ray.models.calibrate import calibrate, propose
from platonic_ray.study import Study


@pytest.fixture
def study(tiny_bert, tiny_llama, tmp_path) -> Path:
    """Five models, two of which cannot be loaded: one has no weights, one asks for a layer too many."""
    bare = Path(shutil.copytree(tiny_llama, tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    (tmp_path / "study.toml").write_text(
        f"""
        [[models]]
        name = "bert"
        kind = "transformers-text"
        weights = "{tiny_bert}"
        view = "caption"
        layers = [0, -1]
        [[models]]
        name = "no weights"
        kind = "transformers-text"
        weights = "bare"
        view = "caption"
        [[models]]
        name = "random"
        kind = "transformers-text"
        weights = "bare"
        init = "random"
        view = "caption"
        [[models]]
        name = "no layer"
        kind = "transformers-text"
        weights = "{tiny_llama}"
        layers = [9]
        view = "caption"
        [[models]]
        name = "pixels"
        use = "pixels"
        view = "image"
        """
    )
    return tmp_path / "study.toml"


def test_every_model_is_described_and_the_bad_ones_say_why(study, capsys) -> None:
    assert main(["models", "--check", str(study), "--json"]) == 4
    said = capsys.readouterr()
    bert, bare, random, layer, pixels = json.loads(said.out)
    model = load(resolve(Study.from_toml(study).models[0]))
    parameters = sum(tensor.numel() for tensor in model._network.parameters())
    assert bert["layers"] == [["embedding", 16], ["block 2", 16]]
    assert (bert["parameters"], bert["weight_bytes"]) == (parameters, 4 * parameters)
    assert (bert["weights"], bert["problem"]) == ("here", None)
    assert bert["batch_bytes"] == 2048 * 3 * 16 * 4  # tokens, states, width, float32
    assert "has no weights of a form that is read" in bare["problem"]
    assert (random["weights"], len(random["layers"])) == ("random", 4)
    assert "has no layer 9. It has 4" in layer["problem"]
    assert pixels["layers"] == [["pixels", 3072]]
    assert "2 of 5 models cannot be loaded: no weights, no layer" in said.err


def test_what_does_not_fit_this_machine_is_a_warning_and_no_problem(study, capsys, monkeypatch) -> None:
    text = study.read_text()
    study.write_text(text[: text.index("[[models]]", text.index("[[models]]") + 1)])  # the first one alone
    monkeypatch.setattr(fit, "device_bytes", lambda device: 10)
    assert main(["models", "--check", str(study)]) == 0
    said = capsys.readouterr().out
    assert "bert: on this machine it needs 0.0 GB for its weights in float32" in said
    (check,) = check_models(Study.from_toml(study).models)
    assert (check.problem, check.parameters is not None) == (None, True)
    assert str(check.warning).startswith("needs 0.0 GB")


def test_batches_are_proposed_from_a_measurement_on_the_studys_samples(
    study, tmp_path, capsys, monkeypatch
) -> None:
    pq.write_table(
        pa.table({"caption": ["a red dog", "hat"] * 40, "image": [image(0)] * 80}), tmp_path / "s.parquet"
    )
    text = study.read_text() + '[dataset]\nsource = "s.parquet"\n'
    study.write_text(text)
    monkeypatch.setattr("platonic_ray.models.pretrained.load_network", None)
    threads: list[int] = []
    monkeypatch.setattr(
        check, "calibrate", lambda *given: threads.append(get_num_threads()) or calibrate(*given)
    )
    before = get_num_threads()
    set_num_threads(2)
    assert main(["models", "--check", str(study), "--calibrate", "--json"]) == 0
    assert (set(threads), get_num_threads()) == ({1}, 2)  # the study's, and then the caller's again
    set_num_threads(before)
    found = json.loads(capsys.readouterr().out)
    for name in ("bert", "random"):
        made = found[name]
        assert (made["setting"], made["given"]) == ("batch_tokens", 2048)
        rates = {float(size): rate for size, rate in made["rates"].items()}
        assert made["proposed"] == propose(rates)
        assert min(rates) == 256
    assert "has no layer 9" in found["no layer"]
    assert found["pixels"] is None


def test_the_proposed_size_is_the_smallest_that_is_as_good_as_the_best() -> None:
    assert propose({1: 5.0, 2: 9.8, 4: 10.0, 8: 7.0}) == 2
    assert propose({30.0: 1.0}) == 30.0


def test_calibrating_asks_for_a_study(capsys) -> None:
    assert main(["models", "--calibrate"]) != 0
    assert "--check" in capsys.readouterr().err


def test_the_table_has_a_line_a_model(study, capsys) -> None:
    assert main(["models", "--check", str(study)]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "bert", "no", "random", "no", "pixels"]
    assert "16" in lines[1]
    assert "cannot be loaded: Model 'no layer'" in lines[4]


def test_no_weight_is_read_for_a_check(study, monkeypatch) -> None:
    monkeypatch.setattr("safetensors.torch.load_file", None)
    monkeypatch.setattr("platonic_ray.models.text.load_network", None)
    assert check_models(Study.from_toml(study).models[:1])[0].problem is None


def test_the_kinds_and_the_catalog_are_listed(capsys) -> None:
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["kinds"]["transformers-vision"]["pooling"] == ["mean", "first", "max", "pooler"]
    assert listed["kinds"]["features"]["reads"] == "rows"
    assert listed["kinds"]["module"]["reads"] == "any view"
    assert len(listed["presets"]["prh-val"]["image"]) == 17
    assert listed["catalog"]["minilm-l6"]["kind"] == "transformers-text"
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*listed["kinds"], *listed["catalog"], *listed["presets"]))
