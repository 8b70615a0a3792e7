"""The world that `jobs/chaos.py` breaks: an S3 server, a cluster of real raylets, a reader that polls a store."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from platonic_ray.store import Store

BUCKET = "chaos"
KINDS = ("features", "neighbors", "kernels", "scores", "results")
OUTAGE_S = 3.0
PATIENCE_S = 180.0
FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 5,
}


class S3:
    """Moto's S3 server in a process of its own, which can be stopped for a while."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.environ |= {
            **{"AWS_ACCESS_KEY_ID": "chaos", "AWS_SECRET_ACCESS_KEY": "chaos"},
            **{"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true"},
        }
        wait_for(lambda: answers(port), "the S3 server")
        from pyarrow import fs

        options = {"endpoint_override": f"127.0.0.1:{port}", "scheme": "http"}
        fs.S3FileSystem(allow_bucket_creation=True, **options).create_dir(BUCKET)

    def stop_for_a_while(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        time.sleep(OUTAGE_S)
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.05)
    return found


class Reader(threading.Thread):
    """Polls a store all along: whatever a manifest names must be there, whole."""

    def __init__(self, uri: str) -> None:
        super().__init__(daemon=True)
        self.uri, self.reads, self.broken = uri, 0, list[str]()
        self.ended = threading.Event()

    def run(self) -> None:
        store, known = Store(self.uri), set[tuple[str, str]]()
        while not self.ended.wait(0.3):
            try:
                for kind in KINDS:
                    for key in store.keys(kind):
                        if (kind, key) not in known or random.random() < 0.05:
                            self._read(store, kind, key)
                            known.add((kind, key))
            except Exception as error:  # whatever it is, a reader must not see it
                self.broken.append(f"{type(error).__name__}: {error}"[:300])

    def _read(self, store: Store, kind: str, key: str) -> None:
        manifest = store.manifest(kind, key)
        if manifest is not None:
            for part in manifest.parts:
                store.read(manifest, part)
            self.reads += 1


class Nodes:
    """A head that runs no task and two nodes of a core, as real raylets; their processes are watched."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.seen: dict[int, str] = {}
        self.start()

    def start(self) -> None:
        memory: dict[str, Any] = {"object_store_memory": 100 * 2**20}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": FAST_HEALTH_CHECKS, **memory}
        self.cluster = Cluster(
            initialize_head=True, head_node_args={**head, "temp_dir": tempfile.mkdtemp(dir=self._folder)}
        )
        self.workers = [self.cluster.add_node(num_cpus=1, **memory) for _ in range(2)]

    def kill_a_raylet(self, rng: random.Random) -> None:
        lost = self.workers.pop(rng.randrange(2))
        self.cluster.remove_node(lost, allow_graceful=False)
        self.workers.append(self.cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20))

    def end(self, *, graceful: bool) -> None:
        for node in [*self.workers, self.cluster.head_node]:
            node.kill_all_processes(check_alive=False, allow_graceful=graceful)
        self.watch()

    def watch(self) -> dict[int, str]:
        """Return the processes of this cluster that hold or ran work, by pid; remember all of them."""
        found = descendants(os.getpid())
        self.seen |= {pid: started(pid) for pid in found if pid not in self.seen}
        return {
            pid: name for pid, name in found.items() if name.startswith("ray::") and "Agent" not in name
        }  # a node's agents take their raylet with them: that is another victim

    def models(self) -> list[int]:
        """Return the processes that hold a model."""
        return [pid for pid, name in self.watch().items() if name.startswith("ray::_ModelActor")]

    def left_behind(self) -> list[int]:
        return [pid for pid, start in self.seen.items() if start and started(pid) == start]


def descendants(root: int) -> dict[int, str]:
    """The command lines of the processes below `root`, by pid."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _read(entry / "stat")
            if stat:
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    frontier = [root]
    while frontier:
        for child in children.get(frontier.pop(), []):
            frontier.append(child)
            found[child] = _read(Path(f"/proc/{child}/cmdline"))
    return found


def started(pid: int) -> str:
    """When a process that lives was started: with its pid it names it for good."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
