"""SIGTERM ends what runs like Ctrl-C, and the caller's own handler comes back; a job's last line tells how it ended."""

import os
import signal
import sys

import pytest
from support import events_of, run

import platonic_ray as pr
from platonic_ray.cli import end_as_job, status_of
from platonic_ray.engine.events import EventLog
from platonic_ray.errors import DataError
from platonic_ray.signals import sigterm_kept
from platonic_ray.store import Store


@pytest.fixture
def handler():
    """The handler of a program that calls the library; nothing of what is sent here may reach it."""

    def own(signum, frame):
        pytest.fail("SIGTERM reached the caller's handler")

    before = signal.signal(signal.SIGTERM, own)
    yield own
    signal.signal(signal.SIGTERM, before)


def end():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def told_at_first_shard(monkeypatch):
    """Send SIGTERM to this process as soon as a shard is durable."""
    add, told = EventLog.add, []

    def add_and_tell(log, event, **facts):
        add(log, event, **facts)
        if event == "shard" and not told:
            told.append(event)
            end()

    monkeypatch.setattr(EventLog, "add", add_and_tell)


def test_a_run_in_one_process_that_is_told_to_end_says_so_and_keeps_what_it_finished(
    tiny_study, handler, told_at_first_shard, tmp_path, capsys
):
    (tmp_path / "study.toml").write_text(tiny_study.to_toml())
    assert run("run", tmp_path / "study.toml", "--quiet") == 130
    assert "What was finished is in the store" in capsys.readouterr().err
    assert events_of(tiny_study)[-1]["event"] == "stopped"
    assert len(Store(tiny_study.run.store).keys("features")) == 1
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_handler_that_a_library_replaces_comes_back(handler):
    """Ray sets one of its own whenever it is connected, which ends the process in the middle of what it writes."""
    with sigterm_kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_caller_is_interrupted_too_and_has_its_own_handler_back(tiny_study, handler, told_at_first_shard):
    with pytest.raises(KeyboardInterrupt):
        pr.align(tiny_study, quiet=True)
    assert signal.getsignal(signal.SIGTERM) is handler
    pr.align(tiny_study, quiet=True)
    assert signal.getsignal(signal.SIGTERM) is handler


def no_such_sample():
    raise DataError("no such sample")


@pytest.mark.parametrize(
    ("work", "status", "line"),
    [
        (lambda: status_of(lambda: None), 0, "done"),
        (lambda: status_of(no_such_sample), 3, "failed with exit status 3"),
        (lambda: status_of(end), 130, "stopped: submit the same job again to go on"),
        (lambda: sys.exit(2), 2, "failed with exit status 2"),
        (lambda: sys.exit("why"), 1, "failed with exit status 1"),
        (lambda: 1 // 0, 1, "failed with exit status 1"),
        (end, 130, "stopped: submit the same job again to go on"),
    ],
)
def test_the_exit_status_of_a_job_and_its_last_line_agree(work, status, line, handler, capsys):
    with pytest.raises(SystemExit) as ended:
        end_as_job(work)
    assert ended.value.code == status
    assert capsys.readouterr().out == f"{line}\n"
    assert signal.getsignal(signal.SIGTERM) is handler
