"""The walk-through under docs/: its blocks of Python run one after another, and say what the text says."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "docs" / "walkthrough.md").read_text(encoding="utf-8")


@pytest.mark.weights
def test_the_walkthrough_runs_and_its_claims_hold(tmp_path, monkeypatch, capsys) -> None:
    # Weights are downloaded once for all tests; features and scores are the walk-through's own.
    for module in ("run", "extract"):
        monkeypatch.setattr(f"platonic_ray.engine.{module}.default_store", lambda: str(tmp_path / "store"))
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/walkthrough.md", "exec"), names)
    assert names["trained"] > names["chance"] + 0.02
    assert names["added"] > 0
    assert names["english"] > names["german"]
    assert names["sure"].low < names["trained"] < names["sure"].high + 0.05
    assert all(pair < 0.05 for pair in names["across"]("mutual_knn")["p"].head(1))
    print(capsys.readouterr().out)
