"""What text and vision models share in loading: transformers' checkpoints, whole, quiet, and without code.

Weights come from safetensors, or from `pytorch_model.bin` where a study names it (opened as tensors alone,
never run as code). A tensor that the network needs and the files lack is an error here,
where transformers would fill it with noise and say so in a log.
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from platonic_ray.errors import PlatonicRayError, StudyError, WeightsError
from platonic_ray.models.base import ModelSpec
from platonic_ray.models.layers import POOLER


def load_network(
    spec: ModelSpec,
    folder: Path,
    config: Any,
    auto: Any = transformers.AutoModel,
    *,
    device: str = "cpu",
    placed: Mapping[str, Any] | None = None,
) -> Any:
    """Return the network of a configuration in the study's dtype: a folder's weights, or seeded random ones.

    :param auto: the auto class that knows which network goes with the configuration.
    :param device: where quantized weights are put; others stay on the CPU.
    :param placed: the device of each part, of a network that is spread over several (`spread.device_map`).
    :raises ValueError: if the files lack some of the network's weights.
    """
    if spec.init == "random":
        return random_network(spec, config, auto)
    quantized = dict(spec.settings).get("quantization")
    more = {} if placed is None else {"device_map": dict(placed)}
    if quantized is not None:
        more = _quantized(spec, quantized, device)
    network, report = auto.from_pretrained(
        folder,
        config=config,
        dtype=dtype_of(spec),
        use_safetensors=not (spec.file or "").endswith(".bin"),
        local_files_only=True,
        output_loading_info=True,
        **_options(spec),
        **more,
    )
    refuse_missing(report["missing_keys"], pooler=spec.takes_pooler)
    return network


def random_network(spec: ModelSpec, config: Any, auto: Any = transformers.AutoModel) -> Any:
    """Return the network of a configuration with weights drawn by the specification's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return auto.from_config(config, dtype=dtype_of(spec), **_options(spec))


def refuse_unquantizable(spec: ModelSpec) -> None:
    """Refuse quantization where it cannot be had.

    :raises StudyError: saying what to install, or which weights it is not for.
    """
    if dict(spec.settings).get("quantization") is None:
        return
    lacking = [name for name in ("bitsandbytes", "accelerate") if importlib.util.find_spec(name) is None]
    if lacking:
        raise StudyError(
            f"Model {spec.name!r}: quantization needs {' and '.join(lacking)}; pip install 'platonic-ray[quantized]'."
        )
    if (spec.file or "").endswith(".gguf") or spec.init == "random":
        raise StudyError(f"Model {spec.name!r}: quantization is of trained weights that are no GGUF file's.")


def _quantized(spec: ModelSpec, how: str, device: str) -> dict[str, Any]:
    """Return what transformers is told to hold a network's linear maps in 8 bits (LLM.int8) or 4 (NF4)."""
    bits = (
        {"load_in_8bit": True}
        if how == "8bit"
        else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype_of(spec)}
    )
    return {"quantization_config": transformers.BitsAndBytesConfig(**bits), "device_map": {"": device}}


def quantized_bytes(network: Any, how: str) -> int:
    """Return what a network's weights take once bitsandbytes holds its linear maps in 8 or 4 bits.

    Embeddings, norms, the head and what comes last stay as they are. Of 8 bits every row has a float32 scale, of 4
    bits every 64 numbers.
    """
    *_, (last, _) = network.named_parameters()
    kept = {network.get_output_embeddings(), network.get_submodule(last.rpartition(".")[0])}
    maps = [
        module.weight
        for module in network.modules()
        if isinstance(module, torch.nn.Linear) and module not in kept
    ]
    held = sum(
        tensor.numel() + 4 * len(tensor) if how == "8bit" else tensor.numel() // 2 + 4 * tensor.numel() // 64
        for tensor in maps
    )
    narrow = set(maps)
    others = (tensor for tensor in network.parameters() if tensor not in narrow)
    return held + sum(tensor.numel() * tensor.element_size() for tensor in others)


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
