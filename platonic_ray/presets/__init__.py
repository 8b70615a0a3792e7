"""Sets of models that a study can name at once: `models = "prh-val"`, or an entry `preset = "prh-val"`.

A preset is a TOML file beside this one: for each side (`text`, `image`) the fields that its models share and
the models' own. Expanding it gives plain entries of a study, so nothing below knows of presets. What a preset
declares of its models beside that (`shape`, `gated`) is for planning where no hub is reached.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

SIDES = ("text", "image")
_DECLARED = ("shape", "gated")


def names() -> list[str]:
    """Return the presets there are."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def describe(name: str) -> dict[str, Any]:
    """Return what a preset is: `description`, `source`, and of each side its models' names."""
    found = _read(name)
    return {
        **{"description": found["description"], "source": found["source"]},
        **{side: [model["name"] for model in found[side]["models"]] for side in SIDES if side in found},
    }


def declared(name: str) -> dict[str, dict[str, Any]]:
    """Return what a preset declares of its models, by the address of their weights.

    `shape` has the number of `blocks`, their `width`, the `parameters` (rounded, of vision models), and of vision
    models the `tokens` of an image; `gated` is true where the hub asks to accept terms first.
    """
    preset = _read(_known("preset", name, names()))
    return {
        model["weights"]: {"side": side, **{key: model[key] for key in _DECLARED if key in model}}
        for side in SIDES
        if side in preset
        for model in preset[side]["models"]
    }


def expand(models: Any) -> Any:
    """Return a study's `models` with every preset in it replaced by its models' entries.

    A preset's entry has `preset`, and for each side the view that its models read, `image = "photo"`, or a
    table with it and with fields that change for all of them, `text = { view = "caption", dtype =
    "bfloat16" }`; `false` leaves a side out, `only` keeps models by name. Anything else is left as it is,
    for the study to judge.

    :raises ValueError: for a preset, side or model that does not exist.

    >>> [entry["name"] for entry in expand({"preset": "prh-val", "image": False, "only": ["llama-7b"]})]
    ['llama-7b']
    """
    if isinstance(models, str | Mapping):
        models = [models]
    if not isinstance(models, list | tuple):
        return models
    entries: list[Any] = []
    for given in models:
        one = {"preset": given} if isinstance(given, str) else given
        entries += _entries(one) if isinstance(one, Mapping) and "preset" in one else [one]
    return entries


def _entries(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    preset = _read(_known("preset", str(given["preset"]), names()))
    sides = [side for side in SIDES if side in preset]
    for key in given.keys() - {"preset", "only"}:
        _known("key of a preset", key, ["preset", "only", *sides])
    entries = []
    for side in sides:
        wanted = given.get(side, True)
        if wanted is False:
            continue
        changed = {"view": wanted} if isinstance(wanted, str) else {} if wanted is True else dict(wanted)
        shared = {key: value for key, value in preset[side].items() if key != "models"}
        entries += [
            {**shared, **{key: value for key, value in model.items() if key not in _DECLARED}, **changed}
            for model in preset[side]["models"]
        ]
    only = given.get("only")
    if only is None:
        return entries
    for name in only:
        _known(f"model of {given['preset']!r}", name, [entry["name"] for entry in entries])
    return [entry for entry in entries if entry["name"] in only]


def _known(what: str, name: str, there: list[str]) -> str:
    if name in there:
        return name
    near = difflib.get_close_matches(name, there, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"there is no {what} {name!r}.{hint} There are: {', '.join(there)}")


@cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))
