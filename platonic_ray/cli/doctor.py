"""`doctor`: whether this machine can run studies, and what to mend."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from platonic_ray.cli.common import Commands, add_command, add_json, print_json
from platonic_ray.errors import PlatonicRayError


def add(commands: Commands) -> None:
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        summary="check Python, torch, Ray, GPU, store and hub, and say what to fix",
        examples=["platonic-ray doctor", "platonic-ray doctor --store s3://bucket/store"],
    )
    doctor.add_argument("--store", help="the store to check (default: the one in ~/.cache)")
    add_json(doctor)


def _doctor(given: argparse.Namespace) -> None:
    from platonic_ray.engine.doctor import check_machine
    from platonic_ray.engine.run import default_store

    checks = check_machine(given.store or default_store())
    if given.json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            print(f"{check.state:<6} {check.name:<10} {check.found}")
            if check.fix and check.state != "ok":
                print(f"{'':<17} → {check.fix}")
    faults = [check.name for check in checks if check.state == "fault"]
    if faults:
        raise PlatonicRayError(f"To be mended first: {', '.join(faults)}.")
