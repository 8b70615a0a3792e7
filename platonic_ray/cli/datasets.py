"""`datasets`: the embedded samples and what a source can be; the views of a source."""

from __future__ import annotations

import argparse
import textwrap

from platonic_ray.cli.common import Commands, add_command, add_json, print_json


def add(commands: Commands) -> None:
    datasets = add_command(
        commands,
        "datasets",
        _datasets,
        summary="list the embedded samples and what a source can be; the views of one",
        examples=["platonic-ray datasets", "platonic-ray datasets captions.parquet"],
    )
    datasets.add_argument("source", nargs="?", help="a source to look at: its samples and views")
    add_json(datasets)


def _datasets(given: argparse.Namespace) -> None:
    from platonic_ray.datasets import open_dataset
    from platonic_ray.datasets.sources import EMBEDDED
    from platonic_ray.study import DatasetEntry

    sources = [given.source] if given.source else list(EMBEDDED)
    opened = {source: open_dataset(DatasetEntry(source=source), 0) for source in sources}
    if given.json:
        print_json(
            [{"source": source, "samples": len(of), "views": dict(of.views)} for source, of in opened.items()]
        )
        return
    for source, of in opened.items():
        print(f"{source}: {len(of):,} samples")
        for kind in dict.fromkeys(of.views.values()):
            views = ", ".join(view for view, held in of.views.items() if held == kind)
            print(textwrap.fill(views, 100, initial_indent=f"  {kind:<8}", subsequent_indent=" " * 10))
    if not given.source:
        print("\n" + _SOURCES)


_SOURCES = """A study's [dataset] source can also be
  a file        .parquet, .arrow, .csv, .jsonl: string columns are texts, binary columns encoded images
  a folder      of Parquet shards; what `datasets` saved; images with a metadata.csv, .jsonl or .parquet
Look at one:    platonic-ray datasets captions.parquet"""
