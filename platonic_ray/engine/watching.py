"""The machines of a run on Ray: what they offer now, which are going, how long each was there.

Looks at the cluster every two seconds. Nodes that join are seen here, and checked by `sharing`, whose
answer ends the run if they do not see its files; a node that is told to go (a spot notice, the
autoscaler) gets no new shard.
"""

from __future__ import annotations

import time
from collections import defaultdict

from platonic_ray.engine import cluster
from platonic_ray.engine.progress import ProgressDisplay
from platonic_ray.engine.sharing import Sharing
from platonic_ray.errors import RunError
from platonic_ray.study import RunEntry

_LOOK_S = 2.0
_SAY_S = 5.0


class Machines:
    """`resources` is what there is; `node_s` the seconds of nodes so far by kind (`Summary`); `core_s` of cores."""

    def __init__(self, run: RunEntry, progress: ProgressDisplay, sharing: Sharing) -> None:
        self._run, self._progress, self._sharing = run, progress, sharing
        self.node_s: defaultdict[str, float] = defaultdict(float)
        self.core_s = 0.0
        self._going: frozenset[str] = frozenset()
        self._seen: dict[str, dict[str, float]] = {}
        self._looked = self._moved = time.monotonic()
        self._said = False
        self._spilled = cluster.spilled_bytes()
        self.look(force=True)

    def look(self, *, force: bool = False) -> None:
        """Look again, if it is time.

        :raises StoreError: if a node has joined that does not see the store.
        """
        since = time.monotonic() - self._looked
        if since < _LOOK_S and not force:
            return
        for offers in self._seen.values():
            kind = "gpu" if offers.get("GPU") else "cpu" if offers.get("CPU") else "head"
            self.node_s[kind] += since
            self.core_s += since * offers.get("CPU", 0.0)
        self._looked += since
        self._seen = cluster.nodes()
        self.resources = cluster.resources()
        self._going = cluster.going()
        if not force:
            self._sharing.check_joined()

    @property
    def several(self) -> bool:
        """Whether more than one node runs tasks."""
        return sum(offers.get("CPU", 0.0) > 0 for offers in self._seen.values()) > 1

    def goes(self, node: str) -> bool:
        """Whether a node, by the beginning of its id, has been told to go."""
        return bool(node) and any(name.startswith(node) for name in self._going)

    def spilled_bytes(self) -> int | None:
        """Return the bytes of objects that the cluster has written to disks since the run began, if it says so."""
        now = cluster.spilled_bytes()
        return None if now is None or self._spilled is None else max(0, now - self._spilled)

    def wait_for_some(self, moved: bool, gpus: float) -> None:
        """Say what the run waits for where no node can do it, and end it when that takes too long.

        :param moved: whether anything has come back since the last call.
        :param gpus: the most that a model with work left asks for.
        :raises RunError: after `run.wait_s`.
        """
        run = self._run
        short = self.resources.node_gpus < gpus
        if moved or not (short or self.resources.node_cpus == 0):
            self._moved, self._said = time.monotonic(), False
            return
        waited = time.monotonic() - self._moved
        what = (
            f"a node with {gpus:g} GPUs (run.device, run.gpus_per_model)" if short else "a node with a core"
        )
        if waited > run.wait_s:
            raise RunError(
                f"No {what[2:]} came within {run.wait_s:g} s (run.wait_s). Finished work is kept; start one, or "
                "let the autoscaler bring one, and run again."
            )
        if waited > _SAY_S and not self._said:
            self._said = True
            self._progress.say(f"Waiting for {what}, up to {run.wait_s:g} s: the cluster has none.")
