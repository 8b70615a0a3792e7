"""`reproduce`: the experiments behind the figures of Huh et al. (2024), a command each."""

from __future__ import annotations

import argparse
import sys
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
    print_json,
    say_written,
    write_study,
)
from platonic_ray.cli.plan import add_cluster
from platonic_ray.errors import StudyError
from platonic_ray.study import Study

if TYPE_CHECKING:
    import polars as pl

FIGURES = ("fig3", "fig4", "fig9", "fig10", "fig12")
MODELS = ("paper", "embedded", "embedded-large")  # as `studies.figures` has them, which is slower to import


def add(commands: Commands) -> None:
    reproduce = add_command(
        commands,
        "reproduce",
        _reproduce,
        summary="run the experiment behind a figure of Huh et al. (2024), and draw the figure",
        examples=[
            "platonic-ray reproduce fig3 --models embedded --samples 200",
            "platonic-ray reproduce fig3 --plan --gpus 8xH200 --price 30",
            "platonic-ray reproduce fig10 --dataset captions.parquet --text-view caption --image-view photo",
            "platonic-ray reproduce fig4 --scores leaderboard.csv --write fig4.toml",
        ],
    )
    reproduce.add_argument(
        "figure",
        choices=FIGURES,
        help="3, 4: alignment and capability; 9: density of captions; 10: sweep of k; 12: metrics among each other",
    )
    reproduce.add_argument(
        "--models",
        choices=MODELS,
        default="paper",
        help="the paper's, from the hub (default); embedded: small ones, without a hub; embedded-large: with Gemma "
        "270M and mpnet beside them (0.7 GB of downloads)",
    )
    reproduce.add_argument(
        "--dataset",
        metavar="SOURCE",
        help="samples of one's own: a file or folder (default: the paper's, of the hub; of embedded models the emoji)",
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
        "--scores",
        metavar="FILE",
        type=Path,
        help="capabilities for fig4: a CSV or Parquet file with a column model, and hellaswag, gsm8k, …",
    )
    reproduce.add_argument("--samples", type=int, metavar="N", help="take a seeded draw of N samples")
    reproduce.add_argument("--write", metavar="FILE", type=Path, help="write the study to a file, and stop")
    reproduce.add_argument(
        "--plan", action="store_true", help="say what it would take (see platonic-ray plan), and stop"
    )
    add_cluster(reproduce)
    add_where_it_runs(reproduce)
    add_out(reproduce, "folder of the result (default: platonic-ray-<figure>)")
    add_json(reproduce)
    add_quiet(reproduce)


def _reproduce(given: argparse.Namespace) -> None:
    study = _study(given)
    if given.write is not None:
        _write(study, given)
    elif given.plan:
        _plan(study, given)
    else:
        _run(study, given)


def _study(given: argparse.Namespace) -> Study:
    """Return the study that the options describe."""
    from platonic_ray.studies.figures import on_fewer, on_samples, study_of, with_capabilities

    study = study_of(given.figure, given.models)
    if given.dataset not in (None, study.dataset.source):
        views = given.text_view
        if given.dataset == "emoji":
            views, given.image_view = views or _EMOJI.get(given.figure, ["name.en"]), "image"
        if not views and given.figure != "fig12":
            raise StudyError("--dataset needs --text-view: the column that language models read.")
        if given.figure == "fig9" and len(views) < 2:
            raise StudyError("fig9 compares captions: give --text-view several times, from sparse to dense.")
        study = on_samples(study, given.dataset, views or (), given.image_view)
    elif given.text_view:
        raise StudyError("--text-view names a column of --dataset, which is not given.")
    elif given.figure == "fig9" and given.models == "paper" and given.write is None and not given.plan:
        raise StudyError(
            "The captions of figure 9 are at no hub id: give --dataset FILE with an image and captions of several "
            "lengths, and --text-view for each, from sparse to dense; or --models embedded, on the emoji."
        )
    if given.samples is not None:
        study, dropped = on_fewer(study, given.samples)
        if dropped and not given.quiet:
            print(f"Left out, for {given.samples} samples: {', '.join(dropped)}.", file=sys.stderr)
    return study if given.scores is None else with_capabilities(study, _scores(given.scores))


_EMOJI = {"fig9": ["group", "subgroup", "name.en", "tags.en"]}  # captions of the emoji, from sparse to dense


def _scores(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StudyError(f"The table of scores {path} cannot be read: {error}.") from None


def _write(study: Study, given: argparse.Namespace) -> None:
    from platonic_ray.studies import text_of
    from platonic_ray.studies.figures import study_of

    plain = f"{given.figure}-embedded" if given.models == "embedded" else given.figure
    as_packaged = given.models != "embedded-large" and study == study_of(given.figure, given.models)
    write_study(given.write, text_of(plain) if as_packaged else study.to_toml())
    say_written(given.write, json=given.json)


def _plan(study: Study, given: argparse.Namespace) -> None:
    from platonic_ray.cli.plan import cluster_of, print_forecast
    from platonic_ray.engine.planning import forecast_study
    from platonic_ray.plan.simulate import Losses
    from platonic_ray.studies.declared import forecast_declared, gated

    cluster, losses = cluster_of(given), Losses(given.spot)
    if given.models != "paper":
        told = forecast_study(changed_run(study, given), cluster, None, losses, given.price)
    else:
        told = forecast_declared(study, cluster, given.samples, losses, given.price)
        if asking := gated(study):
            print(f"Their terms are to be accepted on the hub first: {', '.join(asking)}.", file=sys.stderr)
    print_forecast(told, json=given.json)


def _run(study: Study, given: argparse.Namespace) -> None:
    import polars as pl

    from platonic_ray.api import align
    from platonic_ray.results import save_figure
    from platonic_ray.studies.figures import FIGURES as FACTS

    if given.models == "paper" and not given.quiet:
        _warn(study, given.figure)
    figure = FACTS[given.figure]
    result = align(changed_run(study, given), quiet=given.quiet)
    folder = result.save(given.out or Path(f"platonic-ray-{given.figure}"))
    frame = figure.frame(study, result)
    frame.write_csv(folder / f"{given.figure}.csv")
    picture = figure.picture(study, result, frame)
    drawn = [save_figure(picture, folder / f"{given.figure}.{kind}") for kind in ("png", "pdf")]
    if given.json:
        print_json(
            {
                "figure": given.figure,
                "title": figure.title,
                "rows": frame.to_dicts(),
                "pictures": list(map(str, drawn)),
            }
        )
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
    print(f"Figure: {', '.join(map(str, drawn))}\nNumbers: {folder}/{given.figure}.csv")
    print(f"Calibrated scores, and the rest: platonic-ray report {folder}")


def _warn(study: Study, figure: str) -> None:
    """Say what the paper's models ask for, before any of it is fetched."""
    from platonic_ray.studies.declared import gated, weight_bytes

    terms = f", {len(asking)} of them behind terms to accept" if (asking := gated(study)) else ""
    print(
        f"{figure}: {len(study.models)} models of the hub, {weight_bytes(study) / 1e9:,.0f} GB in their dtype{terms}. "
        f"`reproduce {figure} --plan` says what it takes; `--models embedded` needs no hub.",
        file=sys.stderr,
    )
