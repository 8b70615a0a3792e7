"""`completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

import argparse

from platonic_ray.cli.common import Commands, add_command, add_json, print_json


def add(commands: Commands) -> None:
    completion = add_command(
        commands,
        "completion",
        _completion,
        summary="print the script that completes commands in a shell",
        examples=[
            'eval "$(platonic-ray completion bash)"',
            "platonic-ray completion zsh > ~/.zfunc/_platonic-ray",
        ],
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    add_json(completion)


def _completion(given: argparse.Namespace) -> None:
    import shtab

    from platonic_ray.cli import parser

    script = shtab.complete(parser(), given.shell)
    if given.json:
        print_json({"shell": given.shell, "script": script})
    else:
        print(script)
