"""README's Python examples run, and its study is a valid one."""

import re
import tomllib
from pathlib import Path

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


def test_the_example_of_a_study_is_valid():
    (example,) = blocks("toml")
    study = Study.from_dict(tomllib.loads(example))
    assert [model.name for model in study.models] == ["MiniLM", "mine"]


def test_nothing_is_left_to_be_filled_in():
    assert "@@" not in README.read_text(encoding="utf-8")


def test_the_two_commands_are_the_first_blocks():
    first, second = blocks("bash")[:2]
    assert first.strip().endswith("platonic-ray demo")
    assert second.strip().endswith("pytest")
