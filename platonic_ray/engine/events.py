"""The log of a run: what happened when, as JSON lines in the store.

Events are facts with times in seconds since the epoch; a worker's are taken by its own clock.
The log proves what a run did (what was computed, reused and retried, which tiles ran while shards
were still being embedded, how many bytes came from objects and how many from the store); nothing
reads it to decide anything.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from platonic_ray.store import Store

_FLUSH_S = 1.0
_FLUSH_LINES = 200
ALIVE_S = 10.0
"""A driver that lives writes at least this often."""


class EventLog:
    """Appends events in segments, about once a second.

    `counts` is the number of events of each name, `totals` the sum of each fact that begins with
    `bytes_`. `listeners` are handed every event as it is added.
    """

    def __init__(self, store: Store, run: str) -> None:
        self.run = run
        self.counts: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.listeners: list[Callable[[str, Mapping[str, Any]], None]] = []
        self._store = store
        self._segment = 0
        self._lines: list[str] = []
        self._flushed = self._said = time.monotonic()

    def add(self, event: str, **facts: Any) -> None:
        """Record an event; `facts` are JSON values."""
        self.counts[event] += 1
        self.totals.update({name: value for name, value in facts.items() if name.startswith("bytes_")})
        self._lines.append(json.dumps({"event": event, "time": time.time(), **facts}, ensure_ascii=False))
        for listener in self.listeners:
            listener(event, facts)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flush if there is much to flush, or if it was a second ago; after ten silent ones, a sign of life."""
        if not self._lines and time.monotonic() - self._said >= ALIVE_S:
            self._lines.append(json.dumps({"event": "alive", "time": time.time()}))
        if len(self._lines) >= _FLUSH_LINES or time.monotonic() - self._flushed >= _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Make everything recorded so far durable."""
        if self._lines:
            self._store.append_events(self.run, self._segment, self._lines)
            self._segment += 1
            self._lines = []
            self._said = time.monotonic()
        self._flushed = time.monotonic()
