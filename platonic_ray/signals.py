"""SIGTERM (`ray job stop`, a machine that is taken back) ends what runs like Ctrl-C: what was finished is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Have SIGTERM do afterwards what it does now, whatever is put in place meanwhile."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if here and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def sigterm_interrupts() -> Iterator[threading.Event]:
    """Let SIGTERM raise `KeyboardInterrupt` meanwhile; afterwards it does what it did before.

    Yields what it sets besides: an exception that is raised while a destructor runs goes no further. Only the
    main thread receives signals: in any other this changes nothing.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def interrupt(signum: int, frame: object) -> None:
        told.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield told
    finally:
        # None: set by what is not Python, which cannot be given back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
