"""A slice of the chaos job: everything it promises, over a few kills."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.chaos, pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


def test_no_promise_is_broken_whatever_is_killed():
    ran = subprocess.run(
        [sys.executable, "jobs/chaos.py", "--kills", "6", "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout)
    assert sum(said["kills"].values()) == 6
    assert said["whole artifacts read meanwhile"] > 20
    assert said["broken promises"] == []
