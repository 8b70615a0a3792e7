"""How tests start processes that start others, wait for them, and end them, on a machine that may be busy."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

PATIENCE_S = 180.0
"""What takes seconds on a machine of one's own: nothing is found wrong by its having taken longer."""


def wait_until(
    condition: Callable[[], Any], why: Callable[[], object] = lambda: "", every_s: float = 0.05
) -> Any:
    """Return what a condition comes to once that is true; `why` says what there is to say if it never is."""
    until = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until, f"it did not happen in {PATIENCE_S:.0f} s. {why()}"
        time.sleep(every_s)
    return found


def free_ports(count: int) -> list[int]:
    """Return ports that are free, and stay so until who asked for them takes them.

    Below those that a system hands out by itself, to connections and to whoever asks for any: one of these can be
    another's a moment after it was found free.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
    return found


def start_cluster(*cores: int, **head: Any) -> Cluster:
    """Start a head that runs no tasks and a node for each number of cores, whose processes find `tests`.

    As Ray's own helper does, which gives each of them half a minute to join.
    """
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 200 * 2**20}
    cluster = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", with_tests()["PYTHONPATH"])
        cluster.add_node(wait=False, num_cpus=0, include_dashboard=False, **store, **head)
        for count in cores:
            cluster.add_node(wait=False, num_cpus=count, **store)
    cluster.wait_for_nodes(PATIENCE_S)
    return cluster


def with_tests() -> dict[str, str]:
    """Return the environment of a process that finds the modules of `tests`."""
    paths = (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def end(process: subprocess.Popen, patience_s: float = 60) -> None:
    """Tell a process to end; kill it and all that it has started if it has not after a while.

    Ray's own commands wait for what they started, on a busy machine for longer than a test can.
    """
    try:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        for one in tree:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait()
