"""Folders of sentence-transformers: which pooling the model was trained with (`pooling = "model"`).

Only the pooling is taken from there. Prompts are the study's, and a final normalization is the recipe's.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from platonic_ray.errors import StudyError
from platonic_ray.models.base import ModelSpec

OWN = "model"
FILES = ("modules.json", "1_Pooling/config.json")
"""What says how sentence-transformers pools a model."""
_POOLINGS = {
    **{"cls_token": "first", "mean_tokens": "mean", "max_tokens": "max", "lasttoken": "last"},
    **{"cls": "first", "mean": "mean", "max": "max"},
}
_HARMLESS = ("Transformer", "Pooling", "Normalize")


def with_own_pooling(spec: ModelSpec, folder: Path) -> ModelSpec:
    """Return a specification whose pooling "model" is replaced by what the folder says.

    :raises StudyError: if the folder does not say it, or has it done in a way that is not known here.
    """
    if OWN not in spec.poolings:
        return spec
    own = _own_pooling(spec.name, folder)
    poolings = tuple(own if pooling == OWN else pooling for pooling in spec.poolings)
    if len(set(poolings)) < len(poolings):
        raise StudyError(f"Model {spec.name!r}: its own pooling is {own!r}, which is given too; remove one.")
    settings = dict(spec.settings) | {"pooling": poolings[0] if len(poolings) == 1 else poolings}
    return replace(spec, settings=tuple(sorted(settings.items())))


def _own_pooling(name: str, folder: Path) -> str:
    where = f"Model {name!r}: pooling = {OWN!r}"
    for file in FILES:
        if not (folder / file).is_file():
            raise StudyError(
                f"{where} needs a sentence-transformers folder; {file} is not there. Name a pooling instead."
            )
    modules = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    for module in modules:
        kind = str(module["type"]).rsplit(".", 1)[-1]
        if kind not in _HARMLESS:
            raise StudyError(
                f"{where}: its module {kind!r} after the pooling is not applied here; name a pooling."
            )
    said = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
    prefix = "pooling_mode_"
    modes = [key.removeprefix(prefix) for key, on in said.items() if key.startswith(prefix) and on is True]
    modes = modes or [str(said.get("pooling_mode"))]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise StudyError(
            f"{where}: its pooling is {' and '.join(modes)}, which is not known here; name one that is."
        )
    return _POOLINGS[modes[0]]
