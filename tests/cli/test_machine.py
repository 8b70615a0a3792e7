"""`doctor`, `datasets` and `completion`."""

import http.server
import json
import subprocess
import threading

import pytest
from support import run

from platonic_ray.engine import doctor


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


@pytest.mark.parametrize(
    ("status", "state", "said"), [(200, "ok", "logged in as me"), (401, "fault", "refuses the token")]
)
def test_the_doctor_asks_the_hub_whether_it_takes_the_token(status, state, said, monkeypatch):
    """A server on loopback stands for the hub: nothing else is asked of it than who the token is of."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/api/whoami-v2"
            assert self.headers["authorization"] == "Bearer hf_of_a_test"
            body = json.dumps({"name": "me", "error": "Invalid"}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *given: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        check = doctor._hub()
        server.shutdown()
    assert check.state == state
    assert said in check.found
    assert bool(check.fix) == (state == "fault")


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
