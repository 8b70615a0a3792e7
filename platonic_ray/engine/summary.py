"""What a run did and where its time went: from its events, and, on Ray, from what its machines were asked.

Said at the end, and kept in the log's last event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from platonic_ray.engine.work import TILES as TILE_TASKS
from platonic_ray.study import Prices

_OF_NODES = {"gpu": "with GPUs", "cpu": "without GPUs", "head": "of a head without tasks"}

TILES = tuple(kind.__name__ for kind in TILE_TASKS)


@dataclass
class Summary:
    """Adds up events. `core_s` and `node_s` are the seconds of cores and of nodes that there were, by
    the nodes' kind ("gpu", "cpu", "head"); None where nobody counted. `spilled_bytes` likewise. `peak_bytes` is the
    most memory that any process has had of its own while it did a task, `resident_bytes` the most with shared objects
    and mapped files, `driver_bytes` the most of the driver's own (0 where tasks ran in it).
    """

    reused: int
    counts: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    core_s: float | None = None
    node_s: Mapping[str, float] | None = None
    spilled_bytes: int | None = None
    peak_bytes: int = 0
    resident_bytes: int = 0
    driver_bytes: int = 0

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        """Take an event into account."""
        self.counts[event] += 1
        self.peak_bytes = max(self.peak_bytes, facts.get("peak_bytes", 0))
        self.resident_bytes = max(self.resident_bytes, facts.get("resident_bytes", 0))
        if event == "lost":
            self.losses[facts["loss"]] += 1
        if "start" in facts and "end" in facts:
            # Both by one clock: those of other machines may differ from ours.
            spent = max(0.0, facts["end"] - facts["start"])
            self.seconds["loading" if event == "model_loaded" else "tasks"] += spent
            self.seconds["arithmetic"] += min(facts.get("cpu_s", 0.0), spent)
            self.seconds["store"] += min(facts.get("store_s", 0.0), spent)
        for name, value in facts.items():
            if name.startswith("bytes_"):
                self.read[name] += value

    @property
    def shares(self) -> dict[str, float] | None:
        """Where the seconds of the cores went, as shares that add up to 1; None where nobody counted them.

        "arithmetic" is the processor's time in tasks, at most one core a task; "store" is spent in reading,
        writing and waiting for it; "hand-over" is the rest of the tasks (decoding, waiting for the device);
        "idle" is what is in no task: dispatch, transfers, waiting for work.
        """
        if not self.core_s:
            return None
        whole = max(self.core_s, self.seconds["tasks"] + self.seconds["loading"])
        store = min(self.seconds["store"], self.seconds["tasks"])
        arithmetic = min(self.seconds["arithmetic"], self.seconds["tasks"] - store)
        parts = {
            "arithmetic": arithmetic,
            "store": store,
            "hand-over": self.seconds["tasks"] - arithmetic - store,
            "loading models": self.seconds["loading"],
        }
        shares = {name: seconds / whole for name, seconds in parts.items()}
        return {**shares, "idle": max(0.0, 1 - sum(shares.values()))}

    def cost(self, prices: Prices | None) -> float | None:
        """Return what the nodes cost, in the prices' currency; None without prices or without nodes."""
        made = None if self.node_s is None else cost_of(prices, self.node_s)
        return None if made is None else made["cost"]

    def facts(self, prices: Prices | None) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "reused": self.reused,
            "again": self.counts["late"],
            "losses": dict(self.losses),
            "core_s": self.core_s,
            "node_s": None if self.node_s is None else dict(self.node_s),
            "shares": self.shares,
            "spilled_bytes": self.spilled_bytes,
            "peak_bytes": self.peak_bytes,
            "resident_bytes": self.resident_bytes,
            "driver_bytes": self.driver_bytes,
            "cost": self.cost(prices),
        }

    def lines(self, run: str, seconds: float, prices: Prices | None) -> list[str]:
        """Say it in a few lines."""
        counts = self.counts
        lost, late = sum(self.losses.values()), counts["late"]
        by_kind = ", ".join(f"{count} {kind}" for kind, count in sorted(self.losses.items()))
        objects, stored = (self.read[f"bytes_from_{source}"] / 1e6 for source in ("objects", "store"))
        lines = [
            f"Computed {counts['shard']} shards, {sum(counts[kind] for kind in TILES)} tiles and "
            f"{counts['Score']} pairs in {seconds:.0f} s; reused {self.reused} from the store"
            f"{f', {lost} lost and done again ({by_kind})' if lost else ''}"
            f"{f', {late} that were late begun again' if late else ''}. "
            f"Tiles read {objects:,.0f} MB from objects, {stored:,.0f} MB from the store. Log: run {run}."
        ]
        if (shares := self.shares) is not None and self.core_s is not None:
            went = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            lines.append(f"Of {self.core_s:,.0f} core-seconds: {went}.")
        if self.peak_bytes:
            driver = f", the driver {self.driver_bytes / 2**30:.2f}" if self.driver_bytes else ""
            lines.append(
                f"Memory: the largest worker had {self.peak_bytes / 2**30:.2f} GiB of its own "
                f"({self.resident_bytes / 2**30:.2f} with shared objects and mapped files){driver}."
            )
        if self.node_s is not None:
            nodes = " and ".join(
                f"{seconds:,.0f} node-seconds {_OF_NODES[kind]}"
                for kind, seconds in sorted(self.node_s.items())
            )
            cost = self.cost(prices)
            priced = "" if cost is None else f", which cost {cost:,.2f}"
            spilled = f"; {self.spilled_bytes / 1e6:,.0f} MB spilled" if self.spilled_bytes else ""
            lines.append(f"Machines: {nodes or 'none'}{priced}{spilled}.")
        return lines


def cost_of(prices: Prices | None, node_s: Mapping[str, float]) -> dict[str, Any] | None:
    """Return what seconds of nodes of each kind cost, by the prices that a study gives; None without."""
    if prices is None:
        return None
    hours = {kind: seconds / 3600 for kind, seconds in node_s.items()}
    return {
        "price_per_hour": {kind: prices.of(kind) for kind in hours},
        "node_hours": sum(hours.values()),
        "cost": sum(prices.of(kind) * spent for kind, spent in hours.items()),
    }
