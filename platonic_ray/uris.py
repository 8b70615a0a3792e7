"""Whether a URI holds what must not be logged or stored."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs

_AZURE = frozenset({"abfs", "abfss"})
_SECRET = re.compile(r"secret|password|token|key|^sig$|^sas", re.IGNORECASE)


def holds_credentials(parts: SplitResult) -> bool:
    """Whether a URI names a user or key, or an option that does."""
    user = parts.netloc.rpartition("@")[0]
    # Azure's own form names the container before the @; a key would follow it.
    held = ":" in user if parts.scheme in _AZURE else user not in ("", "anonymous")
    return held or any(_SECRET.search(name) for name in parse_qs(parts.query, keep_blank_values=True))
