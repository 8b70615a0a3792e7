"""Whether every node sees the files of the driver: the store, where it is a folder, samples, weights.

One machine's folder looks like any other's until a worker elsewhere finds it empty, or, worse, fills
one of its own. So each node reads what the driver has written, before any work and when it joins.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRef
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from platonic_ray.errors import RunError, StoreError, StudyError
from platonic_ray.store import Store

_PATIENCE_S = 120.0


class Sharing:
    """Checks nodes that have not been checked yet; on one node there is nothing to check."""

    def __init__(self, store: Store, paths: Sequence[str]) -> None:
        self._store = store
        self._paths = {path: _outline(path) for path in paths}
        self._checked: set[str] = set()
        self._asked: dict[ObjectRef, str] = {}
        self._word = uuid.uuid4().hex

    def check(self) -> None:
        """Check all nodes, and wait for their answers.

        :raises StoreError: if a node does not see the store; StudyError for samples and weights.
        :raises RunError: if a node does not answer.
        """
        self._ask()
        waiting = list(self._asked)
        _, late = ray.wait(waiting, num_returns=len(waiting), timeout=_PATIENCE_S) if waiting else ([], [])
        self.check_joined()
        if late and self._asked:
            raise RunError(
                f"The nodes {', '.join(sorted(self._asked.values()))} did not answer within {_PATIENCE_S:.0f} s. "
                "Check that they run the versions of Ray and Python that this process has."
            )

    def check_joined(self) -> None:
        """Ask nodes that joined since, and look at the answers that are there, without waiting.

        :raises StoreError: as `check`.
        """
        self._ask()
        done, _ = (
            ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        )
        for ref in done:
            address = self._asked.pop(ref)
            try:
                word, outlines = ray.get(ref)
            except ray.exceptions.RayError:
                continue  # the node has gone: what it would have done is done elsewhere
            self._judge(address, word, outlines)

    def _ask(self) -> None:
        nodes = {
            node["NodeID"]: node["NodeManagerAddress"]
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].keys() & {"CPU", "GPU"}
        }
        here = ray.get_runtime_context().get_node_id()
        if not set(nodes) - {here} or not (self._store.is_local or self._paths):
            return
        if self._store.is_local and not self._checked:
            self._store.write_word(self._word)
        for node in set(nodes) - self._checked - {here}:
            self._checked.add(node)
            pinned = _look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            self._asked[pinned.remote(self._store, list(self._paths))] = nodes[node]

    def _judge(self, address: str, word: str | None, outlines: Mapping[str, str | None]) -> None:
        # Another driver may have left its word since; then both of us see that one.
        if self._store.is_local and word != self._word and (word is None or word != self._store.read_word()):
            raise StoreError(
                f"The store {self._store.uri} is a folder of this machine; the node {address} does not see it. Give a "
                "store that every node sees: a shared file system, or a URI (--store s3://bucket/store)."
            )
        for path, outline in self._paths.items():
            if outlines[path] != outline:
                what = "has something else there" if outlines[path] else "does not have it"
                raise StudyError(
                    f"The study names {path}; the node {address} {what}. Put it where every node sees it, or let "
                    "`platonic-ray submit` send it along."
                )


@ray.remote(num_cpus=0, max_retries=3)
def _look(store: Store, paths: Sequence[str]) -> tuple[str | None, dict[str, str | None]]:
    """Return what stands in the store's probe, and the outlines of files and folders, on this node."""
    return store.read_word() if store.is_local else None, {path: _outline(path) for path in paths}


def _outline(path: str) -> str | None:
    """Return the size of a file, or the names in a folder and the sizes of its files; None if there is neither."""
    root = Path(path)
    if root.is_file():
        return str(root.stat().st_size)
    if not root.is_dir():
        return None
    entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    return "\n".join(f"{entry.name} {entry.stat().st_size if entry.is_file() else ''}" for entry in entries)


def local_paths(dataset: Any, models: Sequence[Any]) -> list[str]:
    """Return the files and folders of this machine that a study names."""
    named = [dataset.source, *dataset.join, *(model.weights for model in models if model.weights)]
    return sorted({path for path in named if "://" not in path and Path(path).is_absolute()})
