"""One progress display, in the driver, on standard error; quiet where nobody watches."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressDisplay:
    """Counts models loaded, samples embedded, tiles and pairs, with rates and the time left.

    Not on a terminal it prints nothing but the lines given to `say`; with `as_json` each of them, and every
    event that it is told of, is a line of JSON that names the run.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._console = Console(stderr=True)
        self._shown = not quiet and not as_json and sys.stderr.isatty()
        self._json = as_json
        self.run: str | None = None
        self._quiet = quiet
        self._bars: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>14}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            transient=True,
            disable=not self._shown,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def expect(self, what: str, total: int) -> None:
        """Add a bar; a bar with nothing to do is left out."""
        if total > 0:
            self._bars[what] = self._progress.add_task(what, total=total, rate="")

    def advance(self, what: str, amount: int = 1) -> None:
        """Count work that was finished."""
        if what not in self._bars:
            return
        bar = self._bars[what]
        self._started.setdefault(what, time.monotonic())
        self._progress.advance(bar, amount)
        elapsed = time.monotonic() - self._started[what]
        done = self._progress.tasks[self._progress.task_ids.index(bar)].completed
        if elapsed > 0.5:
            self._progress.update(bar, rate=f"{done / elapsed:,.1f}/s")

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        if self._json:
            self.event("said", {"text": text})
        elif not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def event(self, event: str, facts: Mapping[str, Any]) -> None:
        """Print an event where lines are JSON; else it is for the log alone."""
        if self._json and not self._quiet:
            line = {"time": time.time(), "run": self.run, "event": event, **facts}
            print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)
