"""Features in: blocks of rows read back from the objects or the store that `embedding` has put them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from platonic_ray.engine.context import Context, MissingInputError
from platonic_ray.kernels import CLAMPED, clamp_bounds, prepare
from platonic_ray.plan import Clamp, Embed, Span
from platonic_ray.store import (
    CorruptArtifactError,
    Manifest,
    arrays_table,
    feature_array,
    table_arrays,
)

_PEEKED = 8  # shards of which a clamp is guessed before it is counted


class Blocks:
    """Rows of models as tasks need them: from the objects given, else from the store.

    :param given: tables of every layer of some shards, and clamps, handed over as Ray objects.
    :param layers: tables of some layers of some shards, for `layer`.
    """

    def __init__(
        self,
        context: Context,
        given: Mapping[Any, Sequence[pa.Table]] | None = None,
        layers: Mapping[Any, Mapping[int, pa.Table]] | None = None,
    ) -> None:
        self._context = context
        self._given = dict(given or {})
        self._layers = dict(layers or {})
        self._shards: dict[Embed, list[NDArray[np.float32]]] = {}
        self._bounds: dict[int, tuple[float, ...] | None] = {}
        self._bytes = {"bytes_from_objects": 0, "bytes_from_store": 0}

    def bytes_read(self) -> dict[str, int]:
        """Return how many bytes of features came from objects and from the store."""
        return dict(self._bytes)

    def forget(self) -> None:
        """Let the shards read so far go; they are read again when they are asked for."""
        self._shards.clear()

    def require(self, embeds: Sequence[Embed]) -> None:
        """Read shards now.

        :raises MissingInputError: naming all of them that cannot be had.
        """
        missing = [embed for embed in embeds if not self._read(embed)]
        if missing:
            raise MissingInputError(missing)

    def prepared(self, model: int, block: int) -> list[Tensor]:
        """Return the prepared rows of a block, `[rows, D_l]` float32 for every layer of a model.

        :raises MissingInputError: naming its shards, or the model's clamp, that cannot be had.
        """
        span = self._context.plan.blocks[block]
        return self.within(model, span.start, span.stop)

    def within(self, model: int, start: int, stop: int) -> list[Tensor]:
        """Return prepared rows `start` to `stop`, as `prepared` does."""
        plan = self._context.plan
        bounds = self.bounds(model)
        shards = plan.shards_within(Span(start, stop))
        self.require([Embed(model, shard) for shard in shards])
        pieces = [self._shards[Embed(model, shard)] for shard in shards]
        places = [plan.shards[shard] for shard in shards]
        layers = []
        for layer, bound in enumerate(bounds or [None] * len(pieces[0])):
            # Shard by shard into memory of numpy's, which asks the system for huge pages: pages that are new cost more
            # than what is done with them here, and a copy of all shards would be as many again.
            rows = np.empty((stop - start, pieces[0][layer].shape[1]), np.float32)
            for place, piece in zip(places, pieces, strict=True):
                low, high = max(place.start, start), min(place.stop, stop)
                part = rows[low - start : high - start]
                part[:] = piece[layer][low - place.start : high - place.start]
                part[:] = prepare(torch.from_numpy(part), plan.recipe, bound).numpy()
            layers.append(torch.from_numpy(rows))
        return layers

    def bounds(self, model: int) -> tuple[float, ...] | None:
        """Return what the recipe clamps each layer of a model to; None where it clamps none.

        :raises MissingInputError: if it is neither at hand nor in the store.
        """
        if self._context.plan.recipe in CLAMPED and model not in self._bounds:
            (table,) = self._given.get(Clamp(model), (None,))
            found = read_bounds(self._context, model) if table is None else _bounds_of(table)
            if found is None:
                raise MissingInputError([Clamp(model)])
            self._bounds[model] = found
        return self._bounds.get(model)

    def has(self, embed: Embed) -> bool:
        """Whether a shard can be had; it is read if it can."""
        return self._read(embed)

    def shard(self, embed: Embed) -> list[NDArray[np.float32]]:
        """Return the features of a shard that was required, `[rows, D_l]` a layer, read-only."""
        return self._shards[embed]

    def layer(self, model: int, layer: int) -> Tensor:
        """Return the prepared rows of one layer of a model, `[n, D] float32`.

        Reads that layer alone.

        :raises MissingInputError: naming all shards, or the clamp, that cannot be had.
        """
        bounds = self.bounds(model)
        embeds = [Embed(model, shard) for shard in range(len(self._context.plan.shards))]
        tables = {embed: self._layer_table(embed, layer) for embed in embeds}
        missing = [embed for embed, table in tables.items() if table is None]
        if missing:
            raise MissingInputError(missing)
        rows = np.concatenate([feature_array(table) for table in tables.values() if table is not None])
        return prepare(
            torch.from_numpy(rows), self._context.plan.recipe, None if bounds is None else bounds[layer]
        )

    def layers_of(self, model: int) -> int:
        """Return the number of layers of a model that is embedded.

        :raises MissingInputError: if its first shard is not there.
        """
        manifest = self._manifest(Embed(model, 0))
        if manifest is None:
            raise MissingInputError([Embed(model, 0)])
        return len(manifest.parts)

    def names(self, model: int) -> tuple[str, ...]:
        """Return the names of the layers of a model that is embedded.

        :raises MissingInputError: if its first shard is not there.
        """
        manifest = self._manifest(Embed(model, 0))
        if manifest is None:
            raise MissingInputError([Embed(model, 0)])
        return tuple(layer["name"] for layer in manifest.meta["layers"])

    def _layer_table(self, embed: Embed, layer: int) -> pa.Table | None:
        given = self._layers.get(embed, {}).get(layer)
        if given is not None:
            self._bytes["bytes_from_objects"] += given.nbytes
            return given
        manifest = self._manifest(embed)
        if manifest is None:
            return None
        try:
            table = self._context.store.read(manifest, sorted(manifest.parts)[layer])
        except CorruptArtifactError:
            self._context.store.discard(manifest.kind, manifest.key)
            return None
        self._bytes["bytes_from_store"] += table.nbytes
        return table

    def _manifest(self, embed: Embed) -> Manifest | None:
        key = self._context.plan.models[embed.model].shard_keys[embed.shard]
        return self._context.store.manifest("features", key)

    def _read(self, embed: Embed) -> bool:
        if embed in self._shards:
            return True
        tables = self._given.get(embed)
        source = "bytes_from_objects"
        if tables is None:
            source = "bytes_from_store"
            tables = self._from_store(embed)
            if tables is None:
                return False
        self._shards[embed] = [feature_array(table) for table in tables]
        self._bytes[source] += sum(table.nbytes for table in tables)
        return True

    def _from_store(self, embed: Embed) -> list[pa.Table] | None:
        manifest = self._manifest(embed)
        return None if manifest is None else read_parts(self._context, manifest)


def clamp(context: Context, task: Clamp) -> pa.Table:
    """Find what the recipe clamps a model's layers to, commit and return `bounds` `[L] float64`.

    Reads all its shards from the store, one at a time, where handing them over would hold them all.

    :raises MissingInputError: naming a shard that cannot be read.
    """
    plan = context.plan
    shards = range(len(plan.shards))

    def stacks(chosen: Sequence[int]) -> Iterator[list[Tensor]]:
        for shard in chosen:
            embed = Embed(task.model, shard)
            blocks = Blocks(context)
            blocks.require([embed])
            yield [torch.tensor(rows) for rows in blocks.shard(embed)]

    peeked = shards[:: -(-len(shards) // _PEEKED)]
    bounds = clamp_bounds(lambda: stacks(shards), plan.recipe, lambda: stacks(peeked))
    table = arrays_table({"bounds": np.array(bounds)})
    context.store.put("recipes", plan.clamp_key(task.model), {"bounds": table})
    return table


def read_bounds(context: Context, model: int) -> tuple[float, ...] | None:
    """Return what a model's layers are clamped to, from the store; None if it is not there."""
    manifest = context.store.manifest("recipes", context.plan.clamp_key(model))
    parts = None if manifest is None else read_parts(context, manifest)
    return _bounds_of(parts[0]) if parts else None


def _bounds_of(table: pa.Table) -> tuple[float, ...]:
    return tuple(table_arrays(table)["bounds"].tolist())


def read_parts(context: Context, manifest: Manifest) -> list[pa.Table] | None:
    """Read all parts of an artifact in the order of their names; None, and no artifact, if damaged."""
    try:
        return [context.store.read(manifest, part) for part in sorted(manifest.parts)]
    except CorruptArtifactError:
        context.store.discard(manifest.kind, manifest.key)
        return None
