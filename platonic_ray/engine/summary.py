"""What a run did and where its time went: from its events, and, on Ray, from what its machines were asked.

Said at the end, and kept in the log's last event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from platonic_ray.engine.work import TILES as TILE_TASKS

TILES = tuple(kind.__name__ for kind in TILE_TASKS)


@dataclass
class Summary:
    """Adds up events. `core_s` and `node_s` are the seconds of cores and of nodes that there were, by
    "cpu" and "gpu" of nodes; None where nobody counted. `spilled_bytes` likewise.
    """

    reused: int
    counts: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    core_s: float | None = None
    node_s: Mapping[str, float] | None = None
    spilled_bytes: int | None = None

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        """Take an event into account."""
        self.counts[event] += 1
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

    def cost(self, price_per_hour: float | None) -> float | None:
        """Return what the nodes cost, in the price's currency; None without a price or without nodes."""
        made = None if self.node_s is None else cost_of(price_per_hour, sum(self.node_s.values()))
        return None if made is None else made["cost"]

    def facts(self, price_per_hour: float | None) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "reused": self.reused,
            "losses": dict(self.losses),
            "core_s": self.core_s,
            "node_s": None if self.node_s is None else dict(self.node_s),
            "shares": self.shares,
            "spilled_bytes": self.spilled_bytes,
            "cost": self.cost(price_per_hour),
        }

    def lines(self, run: str, seconds: float, price_per_hour: float | None) -> list[str]:
        """Say it in a few lines."""
        counts = self.counts
        lost = sum(self.losses.values())
        by_kind = ", ".join(f"{count} {kind}" for kind, count in sorted(self.losses.items()))
        objects, stored = (self.read[f"bytes_from_{source}"] / 1e6 for source in ("objects", "store"))
        lines = [
            f"Computed {counts['shard']} shards, {sum(counts[kind] for kind in TILES)} tiles and "
            f"{counts['Score']} pairs in {seconds:.0f} s; reused {self.reused} from the store"
            f"{f', {lost} lost and done again ({by_kind})' if lost else ''}. "
            f"Tiles read {objects:,.0f} MB from objects, {stored:,.0f} MB from the store. Log: run {run}."
        ]
        if (shares := self.shares) is not None and self.core_s is not None:
            went = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            lines.append(f"Of {self.core_s:,.0f} core-seconds: {went}.")
        if self.node_s is not None:
            nodes = " and ".join(
                f"{seconds:,.0f} node-seconds {'with' if kind == 'gpu' else 'without'} GPUs"
                for kind, seconds in sorted(self.node_s.items())
            )
            cost = self.cost(price_per_hour)
            priced = "" if cost is None else f", which cost {cost:,.2f}"
            spilled = f"; {self.spilled_bytes / 1e6:,.0f} MB spilled" if self.spilled_bytes else ""
            lines.append(f"Machines: {nodes or 'none'}{priced}{spilled}.")
        return lines


def cost_of(price_per_hour: float | None, node_s: float) -> dict[str, float] | None:
    """Return what seconds of nodes cost, by the price of a node and hour that a study gives; None without."""
    if price_per_hour is None:
        return None
    hours = node_s / 3600
    return {"price_per_hour": price_per_hour, "node_hours": hours, "cost": price_per_hour * hours}
