"""How many of a model's shards its actor gets in one call: a call costs Ray as much as a task. Pure."""

from __future__ import annotations

CALL_S = 0.25
"""About how long a call with several shards may take: tiles wait so long for the first of them."""

_MOST_SHARDS = 32
_SHORTEST_S = 1e-3
_MOST_BYTES = 2**26  # which an actor holds until they are handed over


def shards_a_call(shard_s: float, shard_bytes: float) -> int:
    """Return how many shards go together, of the seconds that one takes and the bytes of its features.

    >>> shards_a_call(0.01, 2**20), shards_a_call(0.01, 2**25), shards_a_call(3.0, 2**20)
    (25, 2, 1)
    """
    by_time = int(CALL_S / max(shard_s, _SHORTEST_S))
    by_size = int(_MOST_BYTES / max(shard_bytes, 1.0))
    return max(1, min(by_time, by_size, _MOST_SHARDS))
