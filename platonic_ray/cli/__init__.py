"""The command line over `platonic_ray.api`: results on standard output, progress on standard error.

A module a group of commands: it has `add(commands)`, which declares their options and examples, and the
functions that run them. A new command is a new module and its line in `_GROUPS`. These modules import at
their top only what is quick to import, and what computes when it is needed.

Exit statuses: 0 done; 1 other errors; 2 a study or option that cannot be run; 3 samples or features
that cannot be used; 4 weights that cannot be had; 5 a store that cannot be used; 6 a run that could
not finish; 130 interrupted (finished work is kept).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from platonic_ray import __version__
from platonic_ray.errors import PlatonicRayError
from platonic_ray.signals import sigterm_interrupts

INTERRUPTED = 130

# The modules, in the order of `platonic-ray --help`.
_GROUPS = (
    "init",
    "run",
    "plan",
    "pull",
    "table",
    "growth",
    "show",
    "report",
    "figure",
    "compare",
    "reproduce",
    "metrics",
    "models",
    "datasets",
    "doctor",
    "cluster",
    "completion",
)

_EPILOG = """examples:
  platonic-ray demo                       align the embedded models on the embedded emoji
  platonic-ray init && platonic-ray run study.toml
  platonic-ray COMMAND --help             options and examples of a command

Results go to standard output, progress to standard error. Exit statuses: 0 done; 1 other errors;
2 a study or option that cannot be run; 3 samples or features that cannot be used; 4 weights that cannot be had;
5 a store that cannot be used; 6 a run that could not finish; 130 interrupted (finished work is kept)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    given = parser().parse_args(arguments)
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # for a metric of the user's own; last, so that it hides no library
    return status_of(lambda: given.run_command(given))


def status_of(work: Callable[[], object]) -> int:
    """Do a command's work; return its exit status, and say on standard error why it is not 0.

    SIGTERM (`ray job stop`, a machine that is taken back) ends it like Ctrl-C: what was finished is kept.
    """
    try:
        with sigterm_interrupts():
            work()
    except PlatonicRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as interrupt:
        what = "Interrupted. What was finished is in the store; the same command goes on from there."
        print(str(interrupt) or what, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left, for example `| head`
        return 0
    return 0


def run_as_job(arguments: Sequence[str]) -> NoReturn:
    """Run one command as a script of its own, for instance one that `ray job submit` starts, and exit."""
    end_as_job(lambda: main(arguments))


def end_as_job(work: Callable[[], int], *, says: TextIO | None = None) -> NoReturn:
    """Do the work of a script, and exit with the status that it returns; the last line says how it ended.

    :param says: where that line goes, by default standard output.
    """
    try:
        with sigterm_interrupts():
            status = work()
    except KeyboardInterrupt:  # before its work began, or when it had ended
        status = INTERRUPTED
    except SystemExit as stop:  # options that cannot be read
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception:  # a bug of ours
        traceback.print_exc()
        status = PlatonicRayError.exit_status
    ended = {0: "done", INTERRUPTED: "stopped: submit the same job again to go on"}
    sys.stdout.flush()
    print(ended.get(status, f"failed with exit status {status}"), file=says or sys.stdout, flush=True)
    sys.exit(status)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="platonic-ray",
        description="How alike do many models see many samples?",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"platonic-ray {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in _GROUPS:
        importlib.import_module(f"{__name__}.{group}").add(commands)
    return whole
