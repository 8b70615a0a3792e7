"""What a model is to the rest of the library: a spec that pins it, and a loaded thing that embeds.

`resolve` (in its own module) turns a study's entry into a `ModelSpec`: everything that determines the
features, with a key. `load` makes a `Model` of it, on the machine that computes. Each kind of model is
one short module, imported when a model of that kind is loaded and not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from platonic_ray.digest import digest
from platonic_ray.errors import DataError
from platonic_ray.models.kinds import IMAGE_SIZES, KINDS, NEUTRAL, Modality
from platonic_ray.models.layers import POOLER, Layer, Readout, read_out
from platonic_ray.models.likelihood import Likelihood
from platonic_ray.models.weights import Weights, matches_any

if TYPE_CHECKING:  # importing models is cheap
    from platonic_ray.datasets import Dataset

RANDOM_INIT_SEED = 0
"""The seed of `init = "random"`. Fixed, so that a floor is the same in every study and enters its key."""


@dataclass(frozen=True)
class Features:
    """What a model says about n items: one float32 `[n, D_l]` array a layer, in the items' order.

    `truncated` counts the items of which the model read only the beginning. `likelihood` says how well a
    language model predicted the texts, where that was asked for. `fell_back` says that they were made in
    float32, where the model's dtype gave NaN or infinity.
    """

    layers: list[np.ndarray]
    truncated: int = 0
    likelihood: Likelihood | None = None
    fell_back: bool = False


class Model(Protocol):
    """A loaded model.

    One that cuts its items into batches has `budget`: the tokens, items or seconds of one.

    `embed` is a deterministic function of the items of the call: the batches it makes depend on
    nothing else. All layers come from one forward pass. Texts are `str`; images, sounds and videos
    are encoded `bytes`; stored features take row numbers, `int`.

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
    def modality(self) -> Modality | None:
        """What the model reads; None for what reads any view, or, as stored features do, none."""
        return KINDS[self.kind].modality

    @property
    def fits(self) -> bool:
        return KINDS[self.kind].fits

    @property
    def by_row(self) -> bool:
        """Whether the model's items are numbers of its file's rows: those of `rows_of`."""
        return KINDS[self.kind].by_row

    def setting(self, name: str) -> Any:
        """Return a setting or constant of the model by its name."""
        return {**KINDS[self.kind].constants, **dict(self.settings)}[name]

    @property
    def poolings(self) -> tuple[str, ...]:
        """How states are pooled, one way or several; none for a model that has nothing to pool."""
        given = dict(self.settings).get("pooling", ())
        return (given,) if isinstance(given, str) else tuple(given)

    @property
    def likelihood_view(self) -> str | None:
        """The view whose likelihood is measured, where that is another than the one that is embedded."""
        given = dict(self.settings).get("bits_per_byte")
        return given if isinstance(given, str) else None

    @property
    def takes_pooler(self) -> bool:
        """Whether the output of the model's own head is among what is kept."""
        return POOLER in self.poolings

    def in_float32(self) -> ModelSpec | None:
        """Return what runs a shard again where this model gives NaN; None where that is not asked for."""
        settings = dict(self.settings)
        if settings.get("on_nan", "refuse") == "refuse" or settings["dtype"] == "float32":
            return None
        return replace(self, settings=tuple(sorted((settings | {"dtype": "float32"}).items())))

    def in_smaller_batches(self, halvings: int) -> ModelSpec:
        """Return what runs on a part of the items at a time, for a device that has too little memory.

        Batches are cut in half so many times, down to one item; a kind that has none stays as it is.
        """
        if not halvings:
            return self
        whole = {**KINDS[self.kind].constants, **dict(self.settings)}
        halved = {
            name: max(1, value // 2**halvings) if isinstance(value, int) else value / 2**halvings
            for name, value in whole.items()
            if name.startswith("batch_")
        }
        return replace(self, settings=tuple(sorted((dict(self.settings) | halved).items())))

    def keep(self, states: Sequence[tuple[str, int]]) -> Readout:
        """Return what is kept of a model's states, given the (name, width) of each.

        :raises StudyError: for a layer that does not exist.
        """
        settings = dict(self.settings)
        return read_out(
            states,
            f"Model {self.name!r}",
            layers=settings.get("layers", "all"),
            poolings=self.poolings,
            concatenate=settings.get("concatenate", False),
        )

    def identity(self) -> dict[str, Any]:
        """Return, as JSON-able values, everything that determines the features.

        Neither the model's name in the study, nor the view, nor the place where the weights lie.
        """
        kind = KINDS[self.kind]
        image_size = IMAGE_SIZES.get(self.architecture or "")
        settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.settings
            if name not in NEUTRAL or value != NEUTRAL[name]
        }
        return {
            **{"kind": self.kind, "version": kind.version, "init": self.init},
            **kind.constants,
            **settings,
            **({"seed": self.seed} if self.init == "random" else {}),
            **({"weights": self.weights.identity()} if self.weights else {}),
            **({"architecture": self.architecture} if self.architecture else {}),
            **({"image_size": image_size} if image_size else {}),
        }

    @cached_property
    def key(self) -> str:
        """The digest of the identity: equal keys, equal features."""
        return digest(self.identity())


@dataclass(frozen=True)
class Description:
    """What a model is, known without running it: the layers it keeps, and how large it is.

    `parameters` counts the numbers in its weights, `weight_bytes` what they take in memory, in the dtype or the
    quantization that the model runs in. `held` counts the numbers in all hidden states of one token, image, clip or
    second of sound, which a batch holds at once; 0 where it is not known.
    """

    layers: tuple[Layer, ...]
    parameters: int
    weight_bytes: int
    held: int = 0


def describe(spec: ModelSpec) -> Description:
    """Describe a model from its configuration: trained weights are not read.

    Networks are built on torch's meta device, which holds shapes and no numbers. (A table of
    `static-text` and the configuration inside a GGUF file are read from the weights' own file.)

    :raises StudyError: for a layer or pooling that the model does not have.
    :raises WeightsError: if the configuration cannot be had or is not understood.

    >>> from platonic_ray.models import resolve
    >>> from platonic_ray.study import ModelEntry
    >>> describe(resolve(ModelEntry(name="floor", view="image", use="pixels"))).layers
    (Layer(index=0, name='pixels', width=3072),)
    """
    description: Description = _module(spec).describe(spec)
    return description


def described(network: Any, layers: tuple[Layer, ...], held: int = 0) -> Description:
    """Describe a torch network of which these layers are kept, and whose states hold so many numbers."""
    sizes = [(tensor.numel(), tensor.element_size()) for tensor in network.parameters()]
    total = sum(count for count, _ in sizes)
    return Description(layers, total, sum(count * size for count, size in sizes), held)


def load(spec: ModelSpec, *, corpus: Iterable[Any] | None = None, device: str = "cpu") -> Model:
    """Load a model. Downloads what is missing, checks every hash, changes no global state of torch.

    :param corpus: all items of the view, for a model that `fits`; others take none.
    :raises WeightsError: if the weights cannot be had, do not fit the architecture, or not the device.
    :raises DataError: if a model that fits is given no corpus.
    """
    if spec.fits and corpus is None:
        raise DataError(
            f"Model {spec.name!r} ({spec.kind}) is fitted: load(spec, corpus=…) needs all items of its view."
        )
    from platonic_ray.models.fit import refuse_too_large

    refuse_too_large(spec, device)
    model: Model = _module(spec).load(spec, corpus=corpus, device=device)
    return model


def check_rows(spec: ModelSpec, dataset: Dataset, view: str) -> None:
    """Make sure that a model whose items are rows of a file, paired by position, has as many as a dataset's source.

    Where they are paired by id, `rows_of` looks for those of the samples that are left.

    :raises DataError: if it has not, or if its file cannot be read.
    """
    found, rows = _module(spec).count_rows(spec), dataset.source_items(view)
    if _module(spec).ids(spec) is None and found != rows:
        raise DataError(
            f"Model {spec.name!r}: {spec.file} has features of {found} samples; the dataset has {rows} rows. "
            "Rows are paired by position, so both need the same number, in the same order. (A table with a column "
            "'id' is paired by it.)"
        )


def rows_of(spec: ModelSpec, dataset: Dataset, view: str) -> tuple[int, ...]:
    """Return which row of a model's file belongs to each sample of a dataset.

    By the samples' ids where the file names its rows, else by position in the dataset's source.

    :raises DataError: naming samples that the file does not have.
    """
    ids = _module(spec).ids(spec)
    if ids is None:
        return dataset.numbers(view)
    places = {name: row for row, name in enumerate(ids)}
    names = dataset.names(view)
    missing = [name for name in names if name not in places]
    if missing:
        raise DataError(
            f"Model {spec.name!r}: {spec.file} has no features of {len(missing)} of the {len(names)} samples: "
            f"{_some(missing)}. Rows are paired by its column 'id' (there: {_some(ids)}); the ids have to be "
            "those of the dataset."
        )
    return tuple(places[name] for name in names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")


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
