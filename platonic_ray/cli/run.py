"""`demo` and `run`: run a study, save its result, and say how to read it."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from platonic_ray.cli.common import (
    Commands,
    add_command,
    add_json,
    add_out,
    add_quiet,
    add_where_it_runs,
    changed_run,
    say_written,
    write_study,
)
from platonic_ray.study import Study

if TYPE_CHECKING:
    from platonic_ray.results import Result


def add(commands: Commands) -> None:
    demo = add_command(
        commands,
        "demo",
        _demo,
        summary="align the embedded models on the embedded emoji",
        examples=[
            "platonic-ray demo",
            "platonic-ray demo --samples 200 --out small",
            "platonic-ray demo --languages fr,ja,zh",
            "platonic-ray demo --write study.toml",
        ],
    )
    demo.add_argument("--write", metavar="FILE", type=Path, help="write the demo's study to a file, and stop")
    demo.add_argument(
        "--samples", type=int, metavar="N", help="take a seeded draw of N samples (default: all)"
    )
    demo.add_argument(
        "--languages",
        metavar="LIST",
        default="",
        help="let MiniLM read the names in more languages too: fr,ja,… (seconds each)",
    )
    _add_options(demo)

    run = add_command(
        commands,
        "run",
        _run,
        summary="run a study, or go on with it",
        examples=[
            "platonic-ray run study.toml",
            "platonic-ray run study.toml --store s3://bucket/store --json > result.json",
        ],
    )
    run.add_argument("study", type=Path, help="a study file (TOML)")
    _add_options(run)


def _add_options(command: argparse.ArgumentParser) -> None:
    add_where_it_runs(command)
    add_out(command, "folder of the result (default: platonic-ray-<study>)")
    add_json(command)
    add_quiet(command)


def _demo(given: argparse.Namespace) -> None:
    from platonic_ray.studies import demo_text

    text = demo_text([language for language in given.languages.split(",") if language])
    if given.write is not None:
        write_study(given.write, text)
        say_written(given.write, json=given.json)
        return
    study = Study.from_dict(tomllib.loads(text), where="the demo")
    if given.samples is not None:
        study = study.replace(dataset={**study.dataset.model_dump(), "samples": given.samples})
    _align(study, given)


def _run(given: argparse.Namespace) -> None:
    _align(Study.from_toml(given.study), given)


def _align(study: Study, given: argparse.Namespace) -> None:
    from platonic_ray.api import align
    from platonic_ray.cli.show import print_result
    from platonic_ray.results import heatmap, save_figure
    from platonic_ray.results.report import save_report

    result = align(changed_run(study, given), quiet=given.quiet)
    folder = result.save(given.out or Path(f"platonic-ray-{study.name}"))
    figures = [save_figure(heatmap(result, metric), folder / f"{metric}.png") for metric in result.metrics]
    report = save_report(result, folder / "report.html")
    print_result(result, None, as_json=given.json)
    if not given.json:
        print(_reading(result))
        print(f"\nTables: {folder}/scores.parquet, models.parquet, layers.parquet")
        print(f"Figures: {', '.join(str(figure) for figure in figures)}")
        print(f"Report: {report}")


def _reading(result: Result) -> str:
    """Say in a few lines what the numbers of a run mean."""
    lines = ["", "Reading the numbers:"]
    if "mutual_knn" in result.metrics:
        pairs = result.pairs("mutual_knn")
        lines.append(
            f"  mutual_knn  share of a sample's {pairs['k'][0]} nearest samples on which two models agree; "
            f"unrelated models: {pairs['chance'][0]:.4f} for one pair of layers."
        )
    if "cka" in result.metrics:
        lines.append(
            "  cka         agreement of all similarities at once, 0 to 1; biased upward when n is small."
        )
    if "unbiased_cka" in result.metrics:
        lines.append("  unbiased_cka  the same without that bias: 0 for unrelated models, can be negative.")
    lines.append(
        "  Each cell is the best over layer pairs, so it lies beyond chance even for unrelated models, the more\n"
        "  layers the more. Compare with the floors (random weights, TF-IDF, pixels) before you conclude anything."
    )
    return "\n".join(lines)
