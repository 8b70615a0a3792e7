"""Studies that come with the package, and the one that `platonic-ray init` writes to start from.

They are TOML files beside this module. A study file of a user's own says all that these say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from platonic_ray.datasets import LANGUAGES, open_dataset
from platonic_ray.errors import StudyError
from platonic_ray.study import DatasetEntry, Study

_OF_DEMO = ("en", "de")
_MODELS = {
    "text": (
        ("MiniLM", "minilm-l6", ""),
        ("MiniLM random", "minilm-l6", 'init = "random"     # a floor: the same network before training\n'),
        ("char TF-IDF", "char-tfidf", ""),
    ),
    "image": (
        ("EffNet-lite0", "efficientnet-lite0", ""),
        (
            "EffNet random",
            "efficientnet-lite0",
            'init = "random"     # a floor: the same network before training\n',
        ),
        ("pixels", "pixels", ""),
    ),
}


def text_of(name: str) -> str:
    """Return the text of a study of the package."""
    return (resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8")


def demo_text(languages: Sequence[str] = ()) -> str:
    """Return the text of the demo's study; MiniLM reads the names in some more languages too.

    :raises StudyError: for a language that the emoji have no names in, or that the demo has already.
    """
    there = [language for language in LANGUAGES if language not in _OF_DEMO]
    for language in languages:
        if language not in there or list(languages).count(language) > 1:
            raise StudyError(f"--languages: {language!r} is none of, or given twice: {', '.join(there)}.")
    more = (
        f'\n[[models]]\nname = "MiniLM {language}"\nuse = "minilm-l6"\nview = "name.{language}"\n'
        for language in languages
    )
    return text_of("demo") + "".join(more)


def packaged_study(name: str) -> Study:
    """Return a study of the package, validated."""
    with resources.as_file(resources.files(__package__) / f"{name}.toml") as path:
        return Study.from_toml(path)


def starting_study(source: str, folder: Path) -> tuple[str, Mapping[str, str]]:
    """Return the text of a study of the embedded models on some samples, and the views that these have.

    :param source: "emoji", or the path of a file or folder, which will be relative to the study's `folder`.
    :raises StudyError: if none of the views is of text or images.
    :raises DataError: if the samples cannot be read.
    """
    embedded = source == "emoji"
    opened = open_dataset(DatasetEntry(source=source), 0)
    views = {view: kind for view, kind in opened.views.items() if kind in _MODELS}
    if not views:
        raise StudyError(f"{source} has no view of text or images, which the embedded models read.")
    chosen = {"name.en": "text", "name.de": "text", "image": "image"} if embedded else views
    models, read = [], set[str]()
    for view, kind in chosen.items():
        for name, use, more in _MODELS[kind]:
            if kind in read and (more or name == "char TF-IDF" or name == "pixels"):
                continue  # floors of one view of a kind are enough
            label = name if kind not in read else f"{name} {view}"
            models.append(
                f"[[models]]\nname = {json.dumps(label, ensure_ascii=False)}\nuse = {json.dumps(use)}\n"
                f"{more}view = {json.dumps(view, ensure_ascii=False)}\n"
            )
        read.add(kind)
    where = source if embedded else _relative(source, folder)
    text = text_of("start").replace('"SOURCE"', json.dumps(where, ensure_ascii=False))
    listed = "\n".join(f"#   {view} ({kind})" for view, kind in opened.views.items())
    return text.replace("# VIEWS", listed).replace("# MODELS", "\n".join(models).rstrip()), dict(opened.views)


def _relative(source: str, folder: Path) -> str:
    path = Path(source).expanduser().resolve()
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive
        return str(path)
    return relative if os.sep in relative or "." in relative else f"./{relative}"
