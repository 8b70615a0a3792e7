"""docs/api.md is what the docstrings of the public names say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_reference_is_that_of_the_docstrings() -> None:
    made = runpy.run_path(str(ROOT / "jobs" / "build_api.py"))["reference"]()
    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert made == written, "docstrings have changed: python jobs/build_api.py writes docs/api.md anew"
