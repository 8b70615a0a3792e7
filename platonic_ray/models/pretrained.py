"""What text and vision models share in loading: transformers' checkpoints, whole, quiet, and without code.

Weights come from safetensors, or from `pytorch_model.bin` where a study names it (opened as tensors alone,
never run as code). A tensor that the network needs and the files lack is an error here,
where transformers would fill it with noise and say so in a log.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from platonic_ray.errors import PlatonicRayError, StudyError, WeightsError
from platonic_ray.models.base import ModelSpec
from platonic_ray.models.layers import POOLER


def load_network(spec: ModelSpec, folder: Path, config: Any, auto: Any = transformers.AutoModel) -> Any:
    """Return the network of a configuration in the study's dtype: a folder's weights, or seeded random ones.

    :param auto: the auto class that knows which network goes with the configuration.
    :raises ValueError: if the files lack some of the network's weights.
    """
    if spec.init == "random":
        return random_network(spec, config, auto)
    network, report = auto.from_pretrained(
        folder,
        config=config,
        dtype=dtype_of(spec),
        use_safetensors=not (spec.file or "").endswith(".bin"),
        local_files_only=True,
        output_loading_info=True,
        **_options(spec),
    )
    refuse_missing(report["missing_keys"], pooler=spec.takes_pooler)
    return network


def random_network(spec: ModelSpec, config: Any, auto: Any = transformers.AutoModel) -> Any:
    """Return the network of a configuration with weights drawn by the specification's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return auto.from_config(config, dtype=dtype_of(spec), **_options(spec))


def dtype_of(spec: ModelSpec) -> torch.dtype:
    """Return the dtype that a model's network runs in."""
    found: torch.dtype = getattr(torch, spec.setting("dtype"))
    return found


def _options(spec: ModelSpec) -> dict[str, Any]:
    """Return what a study may ask of transformers beside the weights."""
    attention = spec.setting("attention")
    return {
        "trust_remote_code": spec.setting("trust_remote_code"),
        **({"attn_implementation": attention} if attention else {}),
    }


def refuse_missing(keys: Sequence[str], *, pooler: bool = False) -> None:
    """Refuse weights without some of the network's: they would be random. A pooler's only if it is read.

    :raises ValueError: naming the first of them.
    """
    missing = sorted(key for key in keys if pooler or "pooler" not in key)
    if missing:
        raise ValueError(f"weights are missing: {', '.join(missing[:3])} ({len(missing)} in all)")


def states_of(output: Any, network: Any, poolings: Sequence[str], where: str) -> tuple[torch.Tensor, ...]:
    """Return the hidden states in a network's output; with the pooling "pooler" what its head gives, last.

    :raises StudyError: if the network does not give them.
    """
    heads: tuple[torch.Tensor, ...] = ()
    if POOLER in poolings:
        pooled = output.get("pooler_output")
        if pooled is None:
            raise StudyError(f"{where}: {type(network).__name__} has no pooler; choose another pooling.")
        heads = (pooled.flatten(1),)
    if tuple(poolings) == (POOLER,):
        return heads
    states = output.get("reshaped_hidden_states") or output.get("hidden_states")
    if not states:
        raise StudyError(f"{where}: {type(network).__name__} does not give its hidden states.")
    return (*states, *heads)


_DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError),
    pickle.UnpicklingError,
)


@contextlib.contextmanager
def explained(spec: ModelSpec, place: Path, what: str) -> Iterator[None]:
    """Turn what a damaged or foreign folder makes transformers raise into one clear error.

    :param what: what the model was to read: "text" or "vision".
    """
    with quiet():
        try:
            yield
        except PlatonicRayError:
            raise
        except _DAMAGED as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise WeightsError(
                f"Model {spec.name!r}: {place} cannot be loaded as a {what} model by "
                f"transformers {transformers.__version__}: {reason}"
            ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings and progress bars for a while."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
