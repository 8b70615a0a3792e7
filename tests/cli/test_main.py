"""The program: exit statuses, no traceback for a user's error, a reader that leaves."""

import argparse
import re
import shlex
import subprocess
import sys

import pytest

import platonic_ray
from platonic_ray.cli import parser


def test_the_program_prints_no_traceback_for_a_users_error(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "platonic_ray.cli", "run", str(tmp_path / "none.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: There is no study file")
    assert "Traceback" not in ran.stderr


def test_the_program_says_its_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args(["--version"])
    assert capsys.readouterr().out == f"platonic-ray {platonic_ray.__version__}\n"


def test_a_reader_that_leaves_early_is_no_error(features):
    folder, _ = features
    command = (
        f"{sys.executable} -m platonic_ray.cli table {folder}/a.npy {folder}/b.safetensors --k 5 | head -n 1"
    )
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""


PRINTS_NOTHING = ("embed",)


def commands() -> dict[str, argparse.ArgumentParser]:
    (choices,) = (action.choices for action in parser()._actions if isinstance(action.choices, dict))
    return choices


def test_every_command_prints_json_and_shows_examples_that_it_would_accept(capsys):
    for name, command in commands().items():
        assert "--json" in command.format_help() or name in PRINTS_NOTHING, name
        examples = re.findall(r"^  platonic-ray (.+)$", command.epilog or "", re.MULTILINE)
        assert examples, name
        for example in examples:
            assert parser().parse_args(shlex.split(re.split(" > | && ", example)[0])).run_command, example


def test_asking_for_help_does_not_wait_for_torch_polars_or_ray():
    script = (
        "import sys; from platonic_ray.cli import parser; parser().format_help(); "
        "print([name for name in ('torch', 'polars', 'pyarrow', 'ray', 'matplotlib', 'numpy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
