"""Kind "transformers-text": encoders and causal language models, every hidden state, pooled.

From a folder, a hub's snapshot or a GGUF file, by transformers' auto classes; safetensors or GGUF
only, no remote code. Of an encoder-decoder (T5) the encoder alone is loaded, of CLIP the tower of
texts. Texts are padded on the
right under an attention mask, whatever side the tokenizer would pad on: there the models' own
position ids are the right ones (tokens are counted from the first), which with padding on the left
they are not in models of absolute positions (GPT-2, BERT).

Layers are transformers' hidden states: "embedding" (what enters the first block), "block i" (the
residual stream after it; the last one after the final norm where the model has one, and then its
name says so). With pooling "pooler" there is one layer, the output of the model's own pooling head.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from platonic_ray.errors import DataError
from platonic_ray.models.base import Description, Features, ModelSpec, configuration, described
from platonic_ray.models.pretrained import (
    explained,
    load_network,
    random_network,
    refuse_missing,
    states_of,
)
from platonic_ray.models.weights import cache_folder, file_sha256, locate

_FINAL_NORMS = {
    *("norm", "ln_f", "norm_f", "final_norm", "final_layer_norm", "final_layernorm", "layer_norm"),
}


class TextModel:
    """A transformer and its tokenizer."""

    def __init__(self, spec: ModelSpec, network: Any, tokenizer: Any, device: str) -> None:
        self._name = spec.name
        self._network = network.eval().to(device)
        self._tokenizer = tokenizer
        self._device = device
        self._pooling: str = spec.setting("pooling")
        self._prompt: str = spec.setting("prompt")
        self._batch_tokens: int = spec.setting("batch_tokens")
        self._vocabulary = network.get_input_embeddings().weight.shape[0]
        self._pad = _pad_id(tokenizer, self._vocabulary)
        longest = min(tokenizer.model_max_length, _positions(network))
        self._max_tokens = min(spec.setting("max_tokens"), longest)
        self._kept, self.layers = spec.keep(_named(self._run([[self._pad]])[0], network, spec))

    def embed(self, items: Sequence[str]) -> Features:
        """Return the pooled hidden states of n texts: one float32 `[n, D]` array a layer.

        :raises DataError: if a text has no token, or one that the network does not know.
        """
        tokens, truncated = self._tokenize(items)
        kept = [torch.empty((len(items), layer.width), dtype=torch.float32) for layer in self.layers]
        for batch in batches_by_length([len(ids) for ids in tokens], self._batch_tokens):
            output, mask = self._run([tokens[index] for index in batch])
            states = states_of(output, self._network, self._pooling, f"Model {self._name!r}")
            for layer, place in zip(kept, self._kept, strict=True):
                layer[batch] = _pool(states[place], mask, self._pooling).cpu()
        return Features([layer.numpy() for layer in kept], truncated)

    def _tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the token ids of each text, and how many texts were cut to `max_tokens`."""
        if not texts:
            return [], 0
        prompted = [self._prompt.replace("{text}", text) for text in texts]
        whole = self._tokenizer(prompted, truncation=False, verbose=False)["input_ids"]
        long = [index for index, ids in enumerate(whole) if len(ids) > self._max_tokens]
        for index in long:  # cut by the tokenizer, which keeps the special tokens at the end
            cut = self._tokenizer(prompted[index], truncation=True, max_length=self._max_tokens)
            whole[index] = cut["input_ids"]
        for text, ids in zip(texts, whole, strict=True):
            if not ids:
                raise DataError(
                    f"Model {self._name!r} finds no token in the text {text[:80]!r}; leave it out."
                )
            if max(ids) >= self._vocabulary:
                raise DataError(
                    f"Model {self._name!r} has {self._vocabulary} tokens, and its tokenizer gives the text "
                    f"{text[:80]!r} the token {max(ids)}: tokenizer and weights do not belong together."
                )
        return whole, len(long)

    def _run(self, tokens: list[list[int]]) -> tuple[Any, torch.Tensor]:
        """Return the network's output for a batch padded on the right, and the mask `[batch, longest]`."""
        longest = max(len(ids) for ids in tokens)
        ids = torch.full((len(tokens), longest), self._pad)
        mask = torch.zeros((len(tokens), longest), dtype=torch.long)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = torch.tensor(one)
            mask[row, : len(one)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            output = self._network(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return output, mask


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut items, shortest first, into batches of at most `budget` tokens once padded (one item at least).

    >>> batches_by_length([5, 1, 2, 2], budget=6)
    [[1, 2, 3], [0]]
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > budget:
            batches.append([])
        batches[-1].append(index)
    return batches


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> TextModel:
    """Load a tokenizer and a network, trained or with seeded random weights.

    :raises WeightsError: if the files are not those of a text model, or lack some of its weights.
    """
    assert spec.weights is not None
    folder = locate(spec.weights)
    with explained(spec, folder / (spec.file or ""), "text"):
        network, tokenizer = _load(spec, folder)
        return TextModel(spec, network, tokenizer, device)


def _load(spec: ModelSpec, folder: Path) -> tuple[Any, Any]:
    config, tokenizer = _configure(spec, folder)
    auto = _auto(config)
    if spec.file and spec.init == "pretrained":
        network = random_network(spec, config, auto)
        _read_gguf(folder / spec.file, network)
    else:
        network = load_network(spec, folder, config, auto)
    return _encoder(network), tokenizer


def _auto(config: Any) -> Any:
    """Return the auto class; some encoder-decoders have a class of their encoder alone, without a decoder."""
    alone = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    return transformers.AutoModelForTextEncoding if alone else transformers.AutoModel


def _encoder(network: Any) -> Any:
    """Return the part of a network that reads a text."""
    config = network.config
    whole = type(config) not in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    return network.get_encoder() if whole and getattr(config, "is_encoder_decoder", False) else network


def describe(spec: ModelSpec) -> Description:
    """Describe a text model from its configuration.

    :raises WeightsError: if it is not understood.
    """
    folder = locate(configuration(spec))
    with explained(spec, folder / (spec.file or ""), "text"):
        config, _ = _configure(spec, folder)
        with torch.device("meta"):
            auto = _auto(config)
            network = _encoder(auto.from_config(config, dtype=torch.float32, trust_remote_code=False))
            _, layers = spec.keep(_named(_trace(network), network, spec))
        return described(network, layers)


def _configure(spec: ModelSpec, folder: Path) -> tuple[Any, Any]:
    """Return the configuration and the tokenizer of a folder or of a GGUF file in it."""
    source = _describe_gguf(folder / spec.file) if spec.file else folder
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        source, local_files_only=True, trust_remote_code=False
    )
    config = transformers.AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    if config.model_type == "clip":
        config = config.text_config
    config.use_cache = False
    return config, tokenizer


def _trace(network: Any) -> Any:
    """Return a network's output for one token, as tensors without numbers.

    Which mask spares a family from looking into its numbers differs. Where none does, what the
    configuration says: how many states there are and how wide they are.
    """
    ids = torch.zeros((1, 1), dtype=torch.long)
    for mask in (None, torch.ones((1, 1, 1, 1), dtype=torch.bool), torch.ones_like(ids)):
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError), torch.inference_mode():
            return network(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    state = torch.empty((1, 1, network.config.hidden_size))
    return {"hidden_states": (state,) * (network.config.num_hidden_layers + 1), "last_hidden_state": state}


def _describe_gguf(file: Path) -> Path:
    """Return a folder with the tokenizer and configuration of a GGUF file, converted once and cached.

    Reading them out of the file takes several seconds each time (its vocabulary is parsed in Python).
    """
    folder = cache_folder() / "gguf" / f"{file_sha256(file)}-{transformers.__version__}"
    if not folder.is_dir():
        config = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".gguf-", dir=folder.parent))
        config.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        try:
            fresh.replace(folder)
        except OSError:  # another process was first
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _read_gguf(file: Path, network: Any) -> None:
    """Put a GGUF file's dequantized weights into a network.

    `from_pretrained(gguf_file=…)` is the same reader behind a requirement of accelerate.
    """
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be turned off
        tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=network)["tensors"]
    refuse_missing(network.load_state_dict(tensors, strict=False).missing_keys)


def _pad_id(tokenizer: Any, vocabulary: int) -> int:
    """Return the id that fills up a batch. It is masked, so any id that the network knows will do."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None and 0 <= token < vocabulary:
            return int(token)
    return 0


def _positions(network: Any) -> int:
    """Return how many tokens the network has positions for."""
    most = getattr(network.config, "max_position_embeddings", None) or 10**9
    for name, module in network.named_modules():
        # RoBERTa and its kin count positions from after the padding's
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            most = min(most, module.num_embeddings - module.padding_idx - 1)
    return int(most)


def _named(output: Any, network: Any, spec: ModelSpec) -> list[tuple[str, int]]:
    """Return the name and width of each state in a network's output.

    Decoders give the last state after their final norm; its name says so.

    :raises StudyError: if the network does not give such states.
    """
    pooling = spec.setting("pooling")
    states = states_of(output, network, pooling, f"Model {spec.name!r}")
    names = ["embedding", *(f"block {index}" for index in range(1, len(states)))]
    if pooling == "pooler":
        names = ["pooler"]
    elif _has_final_norm(network) and states[-1] is output.get("last_hidden_state"):
        names[-1] += " + norm"
    return [(name, int(state.shape[-1])) for name, state in zip(names, states, strict=True)]


def _has_final_norm(network: Any) -> bool:
    stacks = [network, *(getattr(network, name, None) for name in ("decoder", "encoder"))]
    children = {name for stack in stacks if stack is not None for name, _ in stack.named_children()}
    return bool(_FINAL_NORMS & children)


def _pool(state: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Reduce `[batch, tokens, D]` to float32 `[batch, D]` over the tokens that are not padding."""
    state = state.float()
    if pooling == "pooler":
        return state
    if pooling == "first":
        return state[:, 0]
    count = mask.sum(1)
    if pooling == "last":
        return state[torch.arange(len(state), device=state.device), count - 1]
    if pooling == "max":
        return state.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)
    weight = mask.unsqueeze(-1).float()
    return (state * weight).sum(1) / count.unsqueeze(-1)
