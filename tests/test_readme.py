"""README's Python examples run, and its study is a valid one."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import platonic_ray as pr
from platonic_ray.metrics import metrics
from platonic_ray.models.kinds import KINDS
from platonic_ray.study import Study

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = blocks("python")
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "result" / "scores.parquet").exists()


def test_the_metric_of_one_s_own_scores(tmp_path, monkeypatch):
    (example,) = [block for block in blocks("py") if "Metric(" in block]
    (tmp_path / "my_module.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rows = np.random.default_rng(0).normal(size=(40, 5))
    assert pr.score(rows, rows, metric="my_module:NEAREST") == 1
    assert pr.score(rows, rows[::-1].copy(), metric="my_module:NEAREST") < 1


@pytest.mark.slow
@pytest.mark.weights
def test_the_network_of_the_example_is_scored(tmp_path, monkeypatch):
    """The Trainer of the block after it has a test of its own, `test_training`."""
    (example,) = [block for block in blocks("py") if "pr.Scorer(" in block]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    logged = names["scorer"].score(names["features"](names["network"])).log()
    assert set(logged) == {
        f"alignment/{metric}/{model}"
        for metric in ("mutual_knn", "cka")
        for model in ("minilm-l6", "efficientnet-lite0", "char-tfidf")
    }
    assert pr.Scorer("references.safetensors", dataset="emoji") is not None


def test_the_example_of_a_study_is_valid():
    (example,) = blocks("toml")
    study = Study.from_dict(tomllib.loads(example))
    assert [model.name for model in study.models] == ["MiniLM", "mine"]


def test_nothing_is_left_to_be_filled_in():
    assert not re.search("@[A-Z]*@", README.read_text(encoding="utf-8"))


def test_the_two_commands_are_the_first_blocks():
    first, second = blocks("bash")[:2]
    assert first.strip().endswith("platonic-ray demo")
    assert second.strip().endswith("pytest")


def test_the_table_of_kinds_has_every_kind_and_how_it_pools():
    lines = README.read_text(encoding="utf-8").split("| kind | reads |")[1].split("\n\n")[0].splitlines()
    rows = {
        kind: line.split("|")
        for line in lines
        if line.startswith("| `")
        for kind in re.findall(r"`([a-z-]+)`", line.split("|")[1])
    }
    assert sorted(rows) == sorted(KINDS)
    for name, kind in KINDS.items():
        *_, poolings, _ = rows[name]
        assert set(re.findall(r"`([a-z]+)`", poolings)) == set(kind.poolings), name
        if kind.poolings:
            assert poolings.strip().startswith(f"`{kind.settings['pooling']}`"), name


def test_the_table_of_metrics_says_what_the_metrics_declare():
    text = README.read_text(encoding="utf-8").split("## Metrics\n")[1].split("\n## ")[0]
    rows = {
        cells[1].strip().strip("`"): cells
        for line in text.splitlines()
        if line.startswith("| `") and (cells := line.split("|"))
    }
    assert list(rows) == [metric.name for metric in metrics()]
    for metric in metrics():
        _, _, what, bounds, symmetric, options, *_ = rows[metric.name]
        assert (symmetric.strip() == "yes") == metric.symmetric, metric.name
        assert ("distance**" in what) == (metric.direction == "distance"), metric.name
        assert set(re.findall(r"`([a-z_]+)", options)) <= set(metric.options), metric.name
        for bound in metric.bounds:
            shown = {float("inf"): "", float("-inf"): "", -1.0: "−1", 0.0: "0", 1.0: "1", 2.0: "2"}
            assert shown.get(bound, "π/2") in bounds, metric.name
