"""Killed and run again: the scores are byte for byte those of an light_undisturbed run."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import PATIENCE_S, wait_until, with_tests
from support import changed, committed, events_of, score_bytes

import platonic_ray as pr

pytestmark = pytest.mark.chaos

# Whichever of them is at work: a model's process ends with its last shard.
WORKERS = ("ray::_ModelActor", "ray::neighbors", "ray::merge", "ray::kernels", "ray::score")

DRIVER = """
import sys
import platonic_ray as pr
pr.align(pr.Study.from_dict(__import__("json").loads(sys.argv[1])), quiet=True)
"""


def start_driver(study):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(study.model_dump(mode="json"))],
        start_new_session=True,
        env=with_tests(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def descendants(pid, name):
    """The pids of processes below `pid` whose command line begins with `name`."""
    found, frontier = [], [pid]
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_bytes().decode(errors="replace").rsplit(")", 1)[1].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
            except (OSError, IndexError):
                continue
    while frontier:
        for child in children.get(frontier.pop(), []):
            frontier.append(child)
            if command_of(child).startswith(name):
                found.append(child)
    return found


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def shards_done(study):
    return len(committed(study, "features"))


def assert_nothing_whole_was_made_again(study, done):
    """What the last run found whole it did not make, and it found what was whole before it began.

    Workers that outlive their driver may commit a little more between the two looks.
    """
    events = events_of(study)
    found = events[0]["found"].get("Embed", 0)
    assert len(done) <= found
    made = [event["task"] for event in events if event["event"] == "shard"]
    assert len(made) == len(set(made)) == 40 - found


@pytest.mark.parametrize("shards", [3, *(pytest.param(late, marks=pytest.mark.slow) for late in (17, 31))])
def test_a_killed_driver_goes_on_from_the_last_committed_shard(
    light_study, tmp_path, shards, light_undisturbed
):
    study = changed(light_study, engine="ray", store=str(tmp_path / "killed"))
    driver = start_driver(study)
    wait_until(lambda: shards_done(study) >= shards)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stderr.close()
    done = committed(study, "features")
    assert shards <= len(done)
    engine = "ray" if shards == 31 else "local"
    result = pr.align(changed(study, engine=engine), quiet=True)
    assert score_bytes(result) == light_undisturbed
    assert_nothing_whole_was_made_again(study, done)


@pytest.mark.slow
def test_kills_at_random_moments_never_change_a_byte(light_study, tmp_path, light_undisturbed):
    """Workers and drivers in turn, each after some progress, so that every life has something to lose."""
    study = changed(light_study, engine="ray", store=str(tmp_path / "killed"))
    rng = random.Random(7)

    def progress():
        return sum(len(committed(study, kind)) for kind in ("features", "neighbors", "kernels"))

    def strike(driver, victim):
        """Kill the driver, or a process of its run that is at work; say whether there was one."""
        if victim == "driver":
            os.killpg(driver.pid, signal.SIGKILL)
            return True
        at_work = [pid for name in WORKERS for pid in descendants(driver.pid, name)]
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(rng.choice(at_work), signal.SIGKILL)
            return True
        return driver.poll() is not None

    kills = 0
    for _ in range(2):
        driver = start_driver(study)
        for victim in ("worker", "driver"):
            before = progress()
            wait_until(lambda b=before, d=driver: progress() > b or d.poll() is not None)
            time.sleep(rng.random())
            if driver.poll() is None:
                wait_until(lambda d=driver, v=victim: strike(d, v))
                kills += 1
        driver.wait()
        # It was killed, or the run was over before its turn came.
        assert driver.returncode in (-signal.SIGKILL, 0), driver.stderr.read()
        driver.stderr.close()
    assert kills >= 2
    assert score_bytes(pr.align(changed(study, engine="local"), quiet=True)) == light_undisturbed


@pytest.mark.slow
def test_a_run_whose_ray_is_lost_whole_goes_on(light_study, tmp_path, light_undisturbed):
    study = changed(light_study, engine="ray", store=str(tmp_path / "lost"))
    driver = start_driver(study)
    wait_until(lambda: shards_done(study) >= 2)
    (raylet,) = [
        pid for pid in descendants(driver.pid, "") if "raylet/raylet" in command_of(pid).split("\0")[0]
    ]
    os.kill(raylet, signal.SIGKILL)
    driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode != 0  # Ray ends a driver whose node has died
    done = committed(study, "features")
    assert len(done) >= 2
    assert score_bytes(pr.align(changed(study, engine="local"), quiet=True)) == light_undisturbed
    assert_nothing_whole_was_made_again(study, done)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_an_interrupted_run_ends_cleanly_and_goes_on(light_study, tmp_path, how, light_undisturbed):
    study = changed(light_study, engine="ray", store=str(tmp_path / "stopped"))
    file = tmp_path / "study.json"
    file.write_text(json.dumps(study.model_dump(mode="json")))
    script = (
        "import json, sys; import platonic_ray.cli as c; from platonic_ray.study import Study; "
        "Study.from_toml = classmethod(lambda cls, p: cls.from_dict(json.load(open(p)))); "
        "sys.exit(c.main(['run', sys.argv[1], '--out', sys.argv[2]]))"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script, str(file), str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=with_tests(),
    )
    wait_until(lambda: shards_done(study) >= 2)
    os.kill(driver.pid, how)
    _, said = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 130, said
    assert "goes on from there" in said
    assert "Traceback" not in said
    done = committed(study, "features")
    assert len(done) >= 2
    assert score_bytes(pr.align(changed(study, engine="local"), quiet=True)) == light_undisturbed
    assert_nothing_whole_was_made_again(study, done)
