"""Folders of sentence-transformers: how the model was trained to pool, and up to which length (`pooling = "model"`).

Only these are taken from there. Prompts are the study's, and a final normalization is the recipe's.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from platonic_ray.errors import StudyError
from platonic_ray.models.base import ModelSpec

OWN = "model"
LENGTH = "sentence_bert_config.json"
FILES = ("modules.json", "1_Pooling/config.json", LENGTH)
"""What says how sentence-transformers pools a model, and where it cuts a text; the last file may be missing."""
_POOLINGS = {
    **{"cls_token": "first", "mean_tokens": "mean", "max_tokens": "max", "lasttoken": "last"},
    **{"cls": "first", "mean": "mean", "max": "max"},
}
_HARMLESS = ("Transformer", "Pooling", "Normalize")


def as_its_folder_says(spec: ModelSpec, folder: Path) -> ModelSpec:
    """Return a specification whose pooling "model" is replaced by what the folder says, with its longest text.

    :raises StudyError: if the folder does not say it, or has it done in a way that is not known here.
    """
    if OWN not in spec.poolings:
        return spec
    own = _own_pooling(spec.name, folder)
    poolings = tuple(own if pooling == OWN else pooling for pooling in spec.poolings)
    if len(set(poolings)) < len(poolings):
        raise StudyError(f"Model {spec.name!r}: its own pooling is {own!r}, which is given too; remove one.")
    settings = dict(spec.settings) | {"pooling": poolings[0] if len(poolings) == 1 else poolings}
    if (folder / LENGTH).is_file():
        longest = json.loads((folder / LENGTH).read_text(encoding="utf-8")).get("max_seq_length")
        settings["max_tokens"] = min(settings["max_tokens"], longest or settings["max_tokens"])
    return replace(spec, settings=tuple(sorted(settings.items())))


def _own_pooling(name: str, folder: Path) -> str:
    where = f"Model {name!r}: pooling = {OWN!r}"
    for file in FILES[:2]:
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
