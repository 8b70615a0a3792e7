"""A run's events as counters and histograms of Ray's metrics, which Prometheus reads from every node.

All are counted in the driver, which sees every event, and have few values of their tags. The queries to
watch them with are in docs/cluster.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Histogram

from platonic_ray.engine.summary import TILES

_BOUNDS_S = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class Counters:
    """Counts events; `reused` results were in the store when the run began."""

    def __init__(self, reused: int) -> None:
        self._samples = Counter("platonic_ray_samples", "samples embedded, once for each model")
        self._tiles = Counter("platonic_ray_tiles", "tiles computed", ("kind",))
        self._bytes = Counter("platonic_ray_bytes", "bytes of features and tables, by where", ("where",))
        self._lost = Counter("platonic_ray_retries", "attempts that were lost and made again", ("loss",))
        self._hits = Counter("platonic_ray_cache_hits", "results found in the store")
        self._seconds = Histogram("platonic_ray_task_seconds", "how long tasks took", _BOUNDS_S, ("kind",))
        if reused:
            self._hits.inc(reused)

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        """Count an event."""
        if event == "shard":
            self._samples.inc(facts["rows"])
        if event in TILES:
            self._tiles.inc(1, {"kind": event})
        if event == "lost":
            self._lost.inc(1, {"loss": facts["loss"]})
        if facts.get("found"):
            self._hits.inc(1)
        if "start" in facts and "end" in facts:
            self._seconds.observe(max(0.0, facts["end"] - facts["start"]), {"kind": event})
        for name in ("bytes_from_objects", "bytes_from_store", "bytes_out"):
            if facts.get(name):
                self._bytes.inc(facts[name], {"where": name.removeprefix("bytes_")})
