"""The memory that a process has of its own while it works: what it asked for, not what it shares.

A process's resident memory counts every page that it has touched, so a worker that has read all of a run's
features seems to hold them: pages of Ray's object store, which all workers of a node share and none can
free, and of files in the store, which the system drops when it likes. What a task can be admitted by, and
what a machine runs out of, is the rest: its **private** memory. The system keeps no peak of that, so a
thread looks twenty times a second while somebody asks, and once when they are done.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from types import TracebackType

_LOOK_S = 0.05
_STATM = "/proc/self/statm"  # size, resident and shared (with files and other processes), in pages


def private_bytes() -> int:
    """Return the memory that this process has now and shares with none; all it has ever had where no /proc is."""
    try:
        with open(_STATM) as stated:
            _, resident, shared, *_ = map(int, stated.read().split())
    except OSError:
        return resident_bytes()
    return (resident - shared) * resource.getpagesize()


def resident_bytes() -> int:
    """Return the most memory that this process has had, with what it read of shared objects and of files."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Footprint:
    """The most private memory of this process while this is open, in bytes.

    >>> with Footprint() as held:
    ...     block = bytearray(2**26)
    >>> held.peak_bytes > 2**26
    True
    """

    def __init__(self) -> None:
        self.peak_bytes = 0

    def __enter__(self) -> Footprint:
        self.look()
        _watch(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _changing:
            _open.discard(self)
        self.look()

    def look(self) -> None:
        """Take what there is now into account."""
        self.peak_bytes = max(self.peak_bytes, private_bytes())


_open: set[Footprint] = set()
_changing = threading.Condition()
_watching: tuple[int, threading.Thread] | None = (
    None  # a process that was forked has no thread of its parent's
)


def _watch(footprint: Footprint) -> None:
    global _watching
    with _changing:
        _open.add(footprint)
        if _watching is None or _watching[0] != os.getpid():
            _watching = os.getpid(), threading.Thread(target=_look, name="footprint", daemon=True)
            _watching[1].start()
        _changing.notify()


def _look() -> None:
    while True:
        with _changing:
            while not _open:
                _changing.wait()
            held = private_bytes()
            for footprint in _open:
                footprint.peak_bytes = max(footprint.peak_bytes, held)
        time.sleep(_LOOK_S)
