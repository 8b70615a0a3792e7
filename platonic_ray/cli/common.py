"""What commands share: how one is declared, the options that mean the same in all of them, JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from platonic_ray.errors import StudyError

Commands = Any  # what `ArgumentParser.add_subparsers` returns; argparse has no public name for it


def add_command(
    commands: Commands,
    name: str,
    run_command: Callable[[argparse.Namespace], None],
    *,
    summary: str,
    examples: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Declare a command and return its parser, which options are added to.

    :param run_command: what runs it; it prints its result on standard output and raises `PlatonicRayError`.
    :param summary: one line, without a period.
    :param examples: command lines as a user would type them, shown below the options.
    """
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog="\n  ".join(["examples:", *examples]) if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run_command=run_command)
    return command


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def add_out(command: argparse.ArgumentParser, what: str) -> None:
    """Let the user say where `what`, which names its default, is written."""
    command.add_argument("--out", type=Path, metavar="PATH", help=what)


def add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quiet", action="store_true", help="no progress, no summary")


def add_where_it_runs(command: argparse.ArgumentParser) -> None:
    """Let the user override `[run]` of a study: its store, engine and log (see `changed_run`)."""
    command.add_argument(
        "--store", help="where shards, blocks and tiles are kept (default: the study's, else ~/.cache)"
    )
    command.add_argument(
        "--engine", choices=["auto", "ray", "local"], help="where it runs (default: the study's)"
    )
    command.add_argument(
        "--log", choices=["text", "json"], help="progress as text, or every event as a line of JSON"
    )


def changed_run(study: Any, given: argparse.Namespace) -> Any:
    """Return the study with what `add_where_it_runs` was given in place of its own."""
    changes = {"store": given.store, "engine": given.engine, "log": given.log}
    run = study.run.model_dump() | {key: value for key, value in changes.items() if value is not None}
    return study.replace(run=run)


def write_study(path: Path, text: str) -> None:
    """Write the text of a study to a new file.

    :raises StudyError: if it is there already, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise StudyError(f"{path} is there already; name another file.") from None
    except OSError as error:
        raise StudyError(f"{path} cannot be written: {error.strerror}.") from None


def say_written(path: Path, *, json: bool) -> None:
    """Say that a study was written, and how it is run."""
    if json:
        print_json({"study": str(path)})
    else:
        print(f"Wrote {path}. Run it: platonic-ray run {path}")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
