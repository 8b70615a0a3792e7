"""What a study keeps of a model's states: which layers, pooled how, under which names.

A representation is a layer and a pooling. `read_out` lays out all of a model's in one list; `Rows`
collects their features while batches pass by.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from platonic_ray.errors import StudyError

POOLER = "pooler"
"""The pooling that is the output of a model's own head: a state by itself, named like this."""
CONCATENATED = "all layers"

Wanted = str | tuple[int | str, ...]
"""`"all"`, `"blocks"` (all but the embedding), `"every n"` (layers 0, n, 2n, …), or numbers (negative ones from
the end) and names."""


@dataclass(frozen=True)
class Layer:
    """One representation of a model: its place, its name, the width D of its features."""

    index: int
    name: str
    width: int


@dataclass(frozen=True)
class Readout:
    """What is kept of a model's states: for each representation the state's place and its pooling.

    `layers` names them, and after them, where the layers are concatenated too, one for each pooling:
    `concatenated` holds which of the others it is made of.
    """

    parts: tuple[tuple[int, str | None], ...]
    layers: tuple[Layer, ...]
    concatenated: tuple[tuple[int, ...], ...] = ()

    def rows(self, n: int) -> Rows:
        """Begin to collect the features of n items."""
        return Rows(self, n)


class Rows:
    """The features of n items in the making: one float32 `[n, D]` array a representation."""

    def __init__(self, readout: Readout, n: int) -> None:
        self._readout = readout
        self._arrays = [np.empty((n, layer.width), np.float32) for layer in readout.layers]

    def put(self, rows: Sequence[int] | slice, pooled: Callable[[int, str | None], Any]) -> None:
        """Fill in some rows, given what returns a state pooled: `pooled(place, pooling)`, `[rows, D]`.

        It is an array or a tensor; what a batch left on an accelerator comes from there in one transfer.
        """
        from platonic_ray.models.transfers import on_host  # torch, which describing a model can do without

        found = on_host([pooled(*part) for part in self._readout.parts])
        for array, some in zip(self._arrays, found, strict=False):
            array[rows] = some
        first = len(self._readout.parts)
        for array, of in zip(self._arrays[first:], self._readout.concatenated, strict=True):
            array[rows] = np.concatenate([_unit(self._arrays[part][rows]) for part in of], axis=1)

    def features(self) -> list[NDArray[np.float32]]:
        """Return all arrays, once every row was put."""
        return self._arrays


def read_out(
    named: Sequence[tuple[str, int]],
    where: str,
    *,
    layers: Wanted = "all",
    poolings: Sequence[str] = (),
    concatenate: bool = False,
) -> Readout:
    """Lay out a model's representations, from the (name, width) of each of its states.

    With several poolings a layer's name says which: "block 3 (last)". The output of the model's own
    head, which is no layer of the others, is the state named "pooler". With `concatenate` there is one
    representation more for each pooling, all its layers side by side, every one scaled to unit length
    first, so that none outweighs the others: inner products are sums of the layers' cosines.

    :raises StudyError: for a layer that does not exist.

    >>> read_out([("embedding", 8), ("block 1", 8)], "Model 'm'", poolings=["mean", "last"]).layers[-1]
    Layer(index=3, name='block 1 (last)', width=8)
    >>> read_out([("a", 8), ("b", 2)], "Model 'm'", concatenate=True).layers[-1]
    Layer(index=2, name='all layers', width=10)
    """
    hidden = [place for place, (name, _) in enumerate(named) if name != POOLER or POOLER not in poolings]
    heads = [place for place in range(len(named)) if place not in hidden]
    of = hidden or heads
    places = [of[at] for at in chosen_layers(layers, [named[place][0] for place in of], where)]
    parts: list[tuple[int, str | None]] = []
    made: list[tuple[str, int]] = []
    sums: list[tuple[int, ...]] = []
    summed: list[tuple[str, int]] = []
    for pooling in poolings or (None,):
        kept = (places if not hidden else heads) if pooling == POOLER else places
        label = f" ({pooling})" if len(poolings) > 1 and pooling != POOLER else ""
        if concatenate and pooling != POOLER:
            sums.append(tuple(range(len(parts), len(parts) + len(kept))))
            summed.append((CONCATENATED + label, sum(named[place][1] for place in kept)))
        parts += [(place, pooling) for place in kept]
        made += [(named[place][0] + label, named[place][1]) for place in kept]
    return Readout(
        tuple(parts),
        tuple(Layer(index, *each) for index, each in enumerate([*made, *summed])),
        tuple(sums),
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows scaled to unit length; a zero row stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths), np.float32)


def chosen_layers(wanted: Wanted, names: Sequence[str], where: str) -> list[int]:
    """Return the places of the wanted layers, ascending, each once.

    :param names: the names of all layers of the model, from the first to the last.
    :param where: what an error is about, for example `Model 'bert'`.
    :raises StudyError: for a layer that does not exist, with those that do.

    >>> chosen_layers((-1, "embedding", 3), ["embedding", "block 1", "block 2", "block 3"], "Model 'm'")
    [0, 3]
    >>> chosen_layers("every 2", ["embedding", "block 1", "block 2", "block 3"], "Model 'm'")
    [0, 2]
    """
    if wanted in ("all", "blocks"):
        return [place for place, name in enumerate(names) if wanted == "all" or name != "embedding"]
    if isinstance(wanted, str):
        return list(range(0, len(names), int(wanted.removeprefix("every "))))
    places = set()
    for layer in wanted:
        if isinstance(layer, int) and -len(names) <= layer < len(names):
            places.add(layer % len(names))
        elif layer in names:
            places.add(names.index(str(layer)))
        else:
            longer = [name for name in names if name.startswith(str(layer))]  # "block 5" of "block 5 + norm"
            near = longer or difflib.get_close_matches(str(layer), names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near and isinstance(layer, str) else ""
            raise StudyError(
                f"{where} has no layer {layer!r}.{hint} It has {len(names)}, by number 0 to {len(names) - 1} "
                f"(or -1 to -{len(names)}), by name: {_listed(names)}."
            )
    return sorted(places)


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:3], "…", *shown[-2:]])
