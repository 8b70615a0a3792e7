"""Features of several models over one dataset in one file that can be passed on: what a `Scorer` scores against.

A safetensors file: a tensor `[N, D]` a layer, and in its metadata a JSON description with the digest
of every tensor. Reading it runs no code; what was changed since is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from platonic_ray.digest import digest
from platonic_ray.engine.extract import Representations, ids_of
from platonic_ray.errors import DataError
from platonic_ray.metrics import as_layers, rows_digest

_KEY, _VERSION = "platonic_ray.references", 1


@dataclass(frozen=True)
class References:
    """The layers of models over the same samples, `[N, D_l] float32` each, and which samples these are.

    `samples` is the digest of the samples' ids, `content` that of ids and items in the models' `views`;
    both are None where features came without a dataset. `scored` says how a scorer that was saved scores:
    its `recipe`, and `metrics` by name with their options.
    """

    models: Mapping[str, tuple[Tensor, ...]]
    names: Mapping[str, tuple[str, ...]]
    dataset: str | None = None
    views: tuple[str, ...] = ()
    samples: str | None = None
    content: str | None = None
    scored: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_features(cls, features: Mapping[str, Any]) -> References:
        """Take features that are at hand: for each model `[N, D]`, `[N, L, D]` or a list of `[N, D_l]`.

        :raises DataError: if features are no finite matrices, or of different samples where these are known.
        """
        models = {
            name: tuple(rows.cpu() for rows in as_layers(value, f"model {name!r}"))
            for name, value in features.items()
        }
        known = {value.samples for value in features.values() if isinstance(value, Representations)}
        if len(known) > 1:
            raise DataError("The features are of different samples, or of the same in another order.")
        names = {
            name: value.names
            if isinstance(value, Representations)
            else tuple(f"layer {index}" for index in range(len(models[name])))
            for name, value in features.items()
        }
        return cls(models, names, samples=next(iter(known), None))

    @classmethod
    def of_representations(cls, found: Sequence[Representations], source: Any, seed: int) -> References:
        """Take what was extracted of one dataset."""
        views = tuple(sorted({of.view for of in found}))
        samples, content = ids_of(source, seed, views)
        whole = {of.samples for of in found} == {samples}  # else bad samples were dropped
        return cls(
            {of.model: of.layers for of in found},
            {of.model: of.names for of in found},
            found[0].dataset,
            views,
            found[0].samples,
            content if whole else None,
        )

    def require(self, source: Any, seed: int) -> None:
        """Make sure that a dataset holds the samples that the references were made of.

        :raises DataError: if its ids, their order, or the content of the references' views is another.
        """
        if self.samples is None:
            raise DataError(
                "These references do not say of which samples they are, so they cannot be checked against a dataset."
            )
        samples, content = ids_of(source, seed, self.views)
        if samples != self.samples or (self.content is not None and content != self.content):
            what = (
                "samples or their order" if samples != self.samples else f"content of {', '.join(self.views)}"
            )
            raise DataError(
                f"The references were made of {self.dataset!r} with other {what}. Make them anew, or give the "
                "dataset, the number of samples and the seed that they were made with."
            )

    def save(self, path: str | Path) -> Path:
        """Write the references to one safetensors file, and return its path.

        :raises DataError: if it cannot be written.
        """
        from safetensors.torch import save_file

        path = Path(path)
        tensors = {
            _tensor(m, layer): rows
            for m, of in enumerate(self.models.values())
            for layer, rows in enumerate(of)
        }
        facts = {
            "version": _VERSION,
            "models": [{"name": name, "layers": list(self.names[name])} for name in self.models],
            "dataset": self.dataset,
            "views": list(self.views),
            "samples": self.samples,
            "content": self.content,
            "scored": self.scored,
            "digests": {name: rows_digest(rows) for name, rows in tensors.items()},
        }
        text = json.dumps({**facts, "digest": digest(facts)})
        part = path.with_name(f".{path.name}.part")
        try:
            save_file(
                {name: rows.contiguous() for name, rows in tensors.items()}, part, metadata={_KEY: text}
            )
            part.replace(path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    @classmethod
    def load(cls, path: str | Path) -> References:
        """Read a file that `save` wrote, and check every number in it.

        :raises DataError: if it is missing, damaged, changed, or another kind of file.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path).expanduser()
        if not path.is_file():
            raise DataError(f"There is no file of references at {path}.")
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get(_KEY)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise DataError(f"{path} cannot be read: {error}.") from None
        if text is None:
            raise DataError(
                f"{path} holds no references. `Scorer.save` writes them; features go in as "
                "against={name: features}."
            )
        facts = json.loads(text)
        if facts.get("version") != _VERSION:
            raise DataError(f"{path} has version {facts.get('version')}; this platonic_ray reads {_VERSION}.")
        stated = facts.pop("digest")
        found = {name: rows_digest(rows) for name, rows in tensors.items()}
        if digest(facts) != stated or found != facts["digests"]:
            raise DataError(f"{path} was damaged or changed after it was written. Take another copy.")
        models = {model["name"]: tuple(model["layers"]) for model in facts["models"]}
        return cls(
            {
                name: tuple(tensors[_tensor(at, layer)] for layer in range(len(layers)))
                for at, (name, layers) in enumerate(models.items())
            },
            models,
            facts["dataset"],
            tuple(facts["views"]),
            facts["samples"],
            facts["content"],
            facts.get("scored", {}),
        )


def _tensor(model: int, layer: int) -> str:
    return f"{model:04d}.{layer:04d}"
