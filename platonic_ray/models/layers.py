"""Which of a model's layers a study keeps: all, every n-th, or some by number or name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from platonic_ray.errors import StudyError

Wanted = str | tuple[int | str, ...]
"""`"all"`, `"every n"` (layers 0, n, 2n, …), or numbers (negative ones from the end) and names."""


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
    if wanted == "all":
        return list(range(len(names)))
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
