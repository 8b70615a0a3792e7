"""Kind "module": any `torch.nn.Module`, given as an import path; its named submodules are the layers.

`weights = "my_package.my_module:build"` names a function without arguments. It returns the network, a
function that makes a batch of a list of items (texts; encoded bytes of anything else), and one item to try
it on. A batch is a tensor, a tuple of positional or a dictionary of named arguments. Layers are the
network's children, or the submodules that `layers` names ("blocks.3"). An output `[B, D]` is kept as it is,
`[B, tokens, D]` is pooled over tokens, maps `[B, D, h, w]` over positions.

What the model is, for keys, is the digest of the function's source file and of the network's state: a change
in what that file imports is not seen. Every worker must be able to import it.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from platonic_ray.digest import digest
from platonic_ray.errors import StudyError, WeightsError
from platonic_ray.models.base import Description, Features, ModelSpec, described
from platonic_ray.models.pooling import pool_tokens

_Batch = Callable[[list[Any]], Any]


class HookedModel:
    """A network, what makes its batches, and hooks on the submodules that are kept."""

    def __init__(
        self, spec: ModelSpec, network: torch.nn.Module, batch: _Batch, item: Any, device: str
    ) -> None:
        self._name = spec.name
        self._network = network.eval().to(device)
        self._batch = batch
        self._device = device
        self.budget: int = spec.setting("batch_items")
        wanted = spec.setting("layers")
        if isinstance(wanted, tuple) and any(isinstance(layer, str) for layer in wanted):
            names = [name for name, _ in network.named_modules() if name]
        else:
            names = [name for name, _ in network.named_children()]
        outputs = self._outputs([item], names)
        self._names = [name for name in names if name in outputs]
        if not self._names:
            raise StudyError(
                f"Model {spec.name!r}: none of its submodules gives a tensor with a row an item."
            )
        widths = [int(outputs[name].shape[1 if outputs[name].ndim == 4 else -1]) for name in self._names]
        self._readout = spec.keep(list(zip(self._names, widths, strict=True)))
        self.layers = self._readout.layers

    def embed(self, items: Sequence[Any]) -> Features:
        """Return the pooled outputs of n items: one float32 `[n, D]` array a representation.

        :raises StudyError: if a submodule gives no output for some items.
        """
        kept = self._readout.rows(len(items))
        wanted = sorted({self._names[place] for place, _ in self._readout.parts})
        for start in range(0, len(items), self.budget):
            rows = slice(start, start + self.budget)
            outputs = self._outputs(list(items[rows]), wanted)
            missing = [name for name in wanted if name not in outputs]
            if missing:
                raise StudyError(
                    f"Model {self._name!r}: its submodule {missing[0]!r} did not run for some items."
                )
            kept.put(rows, lambda place, pooling, of=outputs: self._pooled(of, place, pooling))  # type: ignore[misc]
        return Features(kept.features())

    def _pooled(self, outputs: dict[str, torch.Tensor], place: int, pooling: str | None) -> torch.Tensor:
        state = outputs[self._names[place]]
        if state.ndim == 4:
            state = state.flatten(2).mT
        mask = torch.ones(state.shape[:2], dtype=torch.long, device=state.device)
        return pool_tokens(state, mask, pooling)

    def _outputs(self, items: list[Any], names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Run a batch; return the output of each submodule that gives a tensor with a row an item.

        Of one that runs several times, the last.
        """
        outputs: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Callable[[Any, Any, Any], None]:
            def hook(_: Any, __: Any, output: Any) -> None:
                first = output[0] if isinstance(output, tuple | list) and output else output
                if isinstance(first, torch.Tensor) and first.ndim in (2, 3, 4) and len(first) == len(items):
                    outputs[name] = first.detach()

            return hook

        hooks = [self._network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
        try:
            with torch.inference_mode():
                _call(self._network, _to(self._batch(items), self._device))
        finally:
            for hook in hooks:
                hook.remove()
        return outputs


def identify(path: str, where: str) -> str:
    """Return what a module is, for keys: its import path and the digest of its source and of its state.

    :raises StudyError: if there is no such function, or it does not return what it should.
    """
    build = _imported(path, where)
    network, _, _ = _built(build, where)
    hasher = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        hasher.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    try:
        source = Path(inspect.getfile(build)).read_bytes()
    except (OSError, TypeError):
        raise StudyError(f"{where}: the source of {path} cannot be read; put it into a file.") from None
    return f"{path}#{digest([hashlib.sha256(source).hexdigest(), hasher.hexdigest()])}"


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> HookedModel:
    """Build the network in this process, and make sure that it is the one that was pinned.

    :raises StudyError: if it cannot be imported here.
    :raises WeightsError: if its source or weights are others here.
    """
    where, path = f"Model {spec.name!r}", str(spec.architecture).partition("#")[0]
    if identify(path, where) != spec.architecture:
        raise WeightsError(
            f"{where}: {path} has another source or other weights in this process than when the study was "
            "planned. Weights must not be drawn anew each time (set a seed, or load them), and every "
            "worker must import the same file."
        )
    return HookedModel(spec, *_built(_imported(path, where), where), device)


def describe(spec: ModelSpec) -> Description:
    """Describe a module by building it and running its one item.

    :raises StudyError: as `load`.
    """
    model = load(spec)
    return described(model._network, model.layers)


def _imported(path: str, where: str) -> Callable[[], Any]:
    module, colon, name = path.partition(":")
    if not colon:
        raise StudyError(
            f"{where}: give 'weights' as an import path, 'my_package.my_module:build' (given: {path!r})."
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise StudyError(
            f"{where}: {path} cannot be imported ({error}). It must be installed, or its folder be in PYTHONPATH, "
            "here and on every worker."
        ) from None
    if not callable(found):
        raise StudyError(f"{where}: {path} is {type(found).__name__}, no function.")
    return found


def _built(build: Callable[[], Any], where: str) -> tuple[torch.nn.Module, _Batch, Any]:
    made = build()
    if not (
        isinstance(made, tuple)
        and len(made) == 3
        and isinstance(made[0], torch.nn.Module)
        and callable(made[1])
    ):
        raise StudyError(
            f"{where}: {build.__name__}() must return a torch.nn.Module, a function from a list of items to a "
            "batch, and one item."
        )
    return made


def _to(batch: Any, device: str) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, tuple | list):
        return tuple(_to(part, device) for part in batch)
    if isinstance(batch, dict):
        return {name: _to(part, device) for name, part in batch.items()}
    return batch


def _call(network: torch.nn.Module, batch: Any) -> None:
    if isinstance(batch, dict):
        network(**batch)
    elif isinstance(batch, tuple):
        network(*batch)
    else:
        network(batch)
