"""`reproduce`: the experiments behind the figures of Huh et al. (2024), a command each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from platonic_ray.cli.common import (
    Commands,
    add_command,
    add_json,
    add_out,
    add_quiet,
    add_where_it_runs,
    changed_run,
    print_json,
    write_study,
)
from platonic_ray.errors import StudyError
from platonic_ray.study import Study

FIGURES = ("fig3", "fig4", "fig9", "fig10", "fig12")


def add(commands: Commands) -> None:
    reproduce = add_command(
        commands,
        "reproduce",
        _reproduce,
        summary="run the experiment behind a figure of Huh et al. (2024)",
        examples=[
            "platonic-ray reproduce fig3 --samples 200",
            "platonic-ray reproduce fig10 --dataset captions.parquet --text-view caption --image-view photo",
            "platonic-ray reproduce fig9 --write fig9.toml",
        ],
    )
    reproduce.add_argument(
        "figure",
        choices=FIGURES,
        help="3, 4: alignment and capability; 9: density of captions; 10: sweep of k; 12: metrics among each other",
    )
    reproduce.add_argument(
        "--dataset", metavar="SOURCE", help="samples of one's own: a file or folder (default: the emoji)"
    )
    reproduce.add_argument(
        "--text-view",
        action="append",
        metavar="VIEW",
        help="what language models read of --dataset; for fig9 several times, from sparse to dense",
    )
    reproduce.add_argument(
        "--image-view", metavar="VIEW", default="image", help="what vision models read of it"
    )
    reproduce.add_argument(
        "--models", choices=["embedded"], default="embedded", help="the models (default: the embedded ones)"
    )
    reproduce.add_argument("--samples", type=int, metavar="N", help="take a seeded draw of N samples")
    reproduce.add_argument("--write", metavar="FILE", type=Path, help="write the study to a file, and stop")
    add_where_it_runs(reproduce)
    add_out(reproduce, "folder of the result (default: platonic-ray-<figure>)")
    add_json(reproduce)
    add_quiet(reproduce)


def _reproduce(given: argparse.Namespace) -> None:
    from platonic_ray.studies import packaged_study, text_of
    from platonic_ray.studies.figures import on_fewer, on_samples

    if given.write is not None:
        write_study(given.write, text_of(given.figure))
        print(f"Wrote {given.write}. Run it: platonic-ray run {given.write}")
        return
    study = packaged_study(given.figure)
    if given.dataset is not None:
        if not given.text_view and given.figure != "fig12":
            raise StudyError("--dataset needs --text-view: the column that language models read.")
        if given.figure == "fig9" and len(given.text_view) < 2:
            raise StudyError("fig9 compares captions: give --text-view several times, from sparse to dense.")
        study = on_samples(study, given.dataset, given.text_view or (), given.image_view)
    if given.samples is not None:
        study, dropped = on_fewer(study, given.samples)
        if dropped and not given.quiet:
            print(f"Left out, for {given.samples} samples: {', '.join(dropped)}.", file=sys.stderr)
    _run(study, given)


def _run(study: Study, given: argparse.Namespace) -> None:
    import polars as pl

    from platonic_ray.api import align
    from platonic_ray.studies.figures import FIGURES as FACTS

    figure = FACTS[given.figure]
    result = align(changed_run(study, given), quiet=given.quiet)
    folder = result.save(given.out or Path(f"platonic-ray-{given.figure}"))
    frame = figure.frame(study, result)
    frame.write_csv(folder / f"{given.figure}.csv")
    if given.json:
        print_json({"figure": given.figure, "title": figure.title, "rows": frame.to_dicts()})
        return
    print(f"{given.figure}: {figure.title}\n{result.facts(result.metrics[0])}\n")
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=160,
        tbl_hide_dataframe_shape=True,
        float_precision=3,
        tbl_hide_column_data_types=True,
    ):
        print(frame)
    print(f"\n{figure.reading}")
    print(f"Numbers: {folder}/{given.figure}.csv. Pictures and report: platonic-ray report {folder}")
