"""`doctor`, `datasets` and `completion`."""

import json
import subprocess

import pytest
from support import run


def test_the_doctor_finds_this_machine_able_and_says_what_it_looked_at(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    assert run("doctor", "--store", tmp_path / "store", "--json") == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert list(checks) == ["Python", "torch", "Ray", "GPU", "memory", "store", "model hub", "weights"]
    assert checks["store"]["state"] == "ok"
    assert checks["model hub"]["state"] == "note"
    assert "need no hub" in checks["model hub"]["fix"]


def test_the_doctor_says_what_to_mend_and_ends_with_a_status(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("mine")
    assert run("doctor", "--store", tmp_path / "store") == 1
    said = capsys.readouterr()
    assert "fault  store" in said.out
    assert "→ Set [run] store" in said.out
    assert said.err == "error: To be mended first: store.\n"


def test_datasets_are_listed_with_their_views_and_a_source_is_looked_at(samples, capsys):
    assert run("datasets") == 0
    said = capsys.readouterr().out
    assert "emoji: 1,240 samples" in said
    assert "name.en" in said
    assert ".parquet, .arrow" in said
    assert run("datasets", samples, "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["samples"], listed["views"]["image"]) == (600, "image")


@pytest.mark.parametrize("typed", ["platonic-ray do", "platonic-ray run --st"])
def test_the_shell_completes_commands_and_options(tmp_path, capsys, typed):
    pytest.importorskip("shtab")
    assert run("completion", "bash") == 0
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    words = typed.split()
    script = (
        f"source {tmp_path}/completion.sh; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE='{typed}'; "
        "$(complete -p platonic-ray | sed 's/.*-F \\([^ ]*\\).*/\\1/') platonic-ray; echo ${COMPREPLY[@]}"
    )
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == (["doctor"] if typed.endswith("do") else ["--store"])
