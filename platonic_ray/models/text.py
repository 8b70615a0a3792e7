"""Kind "transformers-text": encoders and causal language models, every hidden state, pooled.

From a folder, a hub's snapshot or a GGUF file, by transformers' auto classes; safetensors or GGUF
only, no remote code. Of an encoder-decoder (T5) the encoder alone is loaded, of CLIP the tower of
texts; of a model that sees images too (Gemma 3) the states are those of its language model. With
`bits_per_byte` a causal language model is loaded with its head, and the pass that gives the features
gives the likelihood of the texts too.

Texts are padded on the right under an attention mask, whatever side the tokenizer would pad on: there
the models' own position ids are the right ones (tokens are counted from the first), which with padding
on the left they are not in models of absolute positions (GPT-2, BERT).

Layers are transformers' hidden states: "embedding" (what enters the first block), "block i" (the
residual stream after it; the last one after the final norm where the model has one, and then its
name says so). The pooling "pooler" is one layer, the output of the model's own pooling head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from platonic_ray.errors import StudyError
from platonic_ray.models.base import Description, Features, ModelSpec, configuration, described
from platonic_ray.models.batches import batches_by_length
from platonic_ray.models.gguf_files import describe_gguf, read_gguf
from platonic_ray.models.lanes import run_batches, runs_side_by_side
from platonic_ray.models.layers import POOLER
from platonic_ray.models.likelihood import Likelihood, bits_of_texts
from platonic_ray.models.pooling import pool_tokens
from platonic_ray.models.pretrained import (
    explained,
    load_network,
    quantized_bytes,
    random_network,
    refuse_unquantizable,
    states_of,
)
from platonic_ray.models.sentence import as_its_folder_says
from platonic_ray.models.spread import device_map, memory_for_weights
from platonic_ray.models.tokens import Tokenizer, Tokens
from platonic_ray.models.transfers import to_device
from platonic_ray.models.weights import locate

_FINAL_NORMS = {
    *("norm", "ln_f", "norm_f", "final_norm", "final_layer_norm", "final_layernorm", "layer_norm"),
}


class TextModel:
    """A transformer and its tokenizer.

    `network` is what runs; `body` is it or the part of it that gives the states, without a head.
    """

    def __init__(self, spec: ModelSpec, network: Any, tokenizer: Any, device: str) -> None:
        self._name = spec.name
        self._network = network.eval()
        if getattr(network, "hf_device_map", None) is None:  # else its parts are where they belong already
            network.to(device)
        body = _body(network)
        self._device = device
        self._poolings = spec.poolings
        self.budget: int = spec.setting("batch_tokens")
        self._measures = spec.setting("bits_per_byte") is True
        vocabulary = network.get_input_embeddings().weight.shape[0]
        self._tokens = Tokenizer(spec, tokenizer, vocabulary=vocabulary, positions=_positions(network))
        output, _ = self._run([[self._tokens.pad]], body)
        states = _named(output, body, spec)
        self._readout = spec.keep(states)
        self.layers = self._readout.layers
        self._last_alone = self._wants_last_alone(output, states)
        whole = spec.setting("quantization") is None and device == "cpu"
        self._side_by_side = whole and runs_side_by_side(network)
        self._held = sum(width for _, width in states) + (vocabulary if self._measures else 0)

    def embed(self, items: Sequence[str]) -> Features:
        """Return the pooled hidden states of n texts: one float32 `[n, D]` array a representation.

        :raises DataError: if a text has no token, or one that the network does not know.
        """
        tokens = self._tokens(items)
        rows = self._readout.rows(len(items))
        bits = [0.0] * len(items)

        def run(batch: list[int], some: list[list[int]]) -> None:
            output, mask = self._run(some, self._network, states=not self._last_alone)
            rows.put(batch, self._pooled(output, mask))
            if self._measures:
                for index, of_text in zip(batch, self._bits(output["logits"], some), strict=True):
                    bits[index] = of_text

        self._run_all(tokens, run)
        likelihood = self._likelihood(items, tokens, bits) if self._measures else None
        return Features(rows.features(), len(tokens.cut), likelihood)

    def likelihood(self, texts: Sequence[str]) -> Likelihood:
        """Return how well the network, a causal language model, predicts texts that need not be embedded.

        :raises DataError: as `embed`.
        """
        tokens = self._tokens(texts)
        bits = [0.0] * len(texts)

        def run(batch: list[int], some: list[list[int]]) -> None:
            output, _ = self._run(some, self._network, states=False)
            for index, of_text in zip(batch, self._bits(output["logits"], some), strict=True):
                bits[index] = of_text

        self._run_all(tokens, run)
        return self._likelihood(texts, tokens, bits)

    def _run_all(self, tokens: Tokens, run: Callable[[list[int], list[list[int]]], None]) -> None:
        """Run all batches, the longest texts first: what is left when a core has no more to do is short.

        Side by side those of the most tokens, padding included, come first.
        """
        longest = max((len(ids) for ids in tokens.ids), default=0)
        held = max(self.budget, longest) * self._held * self._network.dtype.itemsize
        run_batches(
            lambda batch: [tokens.ids[index] for index in batch],
            run,
            batches_by_length([len(ids) for ids in tokens.ids], self.budget)[::-1],
            self._device,
            held if self._side_by_side else None,
            lambda batch: len(batch) * max(len(tokens.ids[index]) for index in batch),
        )

    def _wants_last_alone(self, output: Any, states: Sequence[tuple[str, int]]) -> bool:
        """Whether only the last state is kept, and the network gives that one without the others.

        They then need not stay in memory until the batch ends.
        """
        last = output.get("last_hidden_state")
        if self._measures or last is None or {place for place, _ in self._readout.parts} != {len(states) - 1}:
            return False
        return states_of(output, self._network, self._poolings, f"Model {self._name!r}")[-1] is last

    def _pooled(self, output: Any, mask: torch.Tensor) -> Callable[[int, str | None], torch.Tensor]:
        """Return what gives one of the states in an output, pooled one way."""
        if self._last_alone:
            return lambda _, pooling: pool_tokens(output["last_hidden_state"], mask, pooling)
        states = states_of(output, self._network, self._poolings, f"Model {self._name!r}")
        return lambda place, pooling: pool_tokens(states[place], mask, pooling)

    def _bits(self, logits: torch.Tensor, tokens: list[list[int]]) -> list[float]:
        """Return the bits that each text of a batch took: those of its own tokens that have a context."""
        ids, _ = self._padded(tokens)
        counts = torch.zeros(ids.shape, dtype=torch.bool)
        for row, one in enumerate(tokens):
            counts[row, : len(one)] = torch.tensor(self._tokens.own(one))
        return bits_of_texts(logits, ids.to(logits.device), counts.to(logits.device))

    def _likelihood(self, texts: Sequence[str], tokens: Tokens, bits: list[float]) -> Likelihood:
        sizes = [
            self._tokens.covered_bytes(text, tokens.ids[row]) if row in tokens.cut else len(text.encode())
            for row, text in enumerate(texts)
        ]
        without_context = sum(self._tokens.own(ids)[0] for ids in tokens.ids)
        return Likelihood.of(bits, sizes, without_context)

    def _padded(self, tokens: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch padded on the right, and its mask, both `[batch, longest]`."""
        longest = max(len(ids) for ids in tokens)
        ids = torch.full((len(tokens), longest), self._tokens.pad)
        mask = torch.zeros((len(tokens), longest), dtype=torch.long)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = torch.tensor(one)
            mask[row, : len(one)] = 1
        return ids, mask

    def _run(self, tokens: list[list[int]], network: Any, *, states: bool = True) -> tuple[Any, torch.Tensor]:
        """Return a network's output for a batch, and the batch's mask."""
        ids, mask = (to_device(tensor, self._device) for tensor in self._padded(tokens))
        with torch.inference_mode():
            return network(input_ids=ids, attention_mask=mask, output_hidden_states=states), mask


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> TextModel:
    """Load a tokenizer and a network, trained or with seeded random weights.

    :raises WeightsError: if the files are not those of a text model, or lack some of its weights.
    """
    assert spec.weights is not None
    folder = locate(spec.weights)
    with explained(spec, folder / (spec.file or ""), "text"):
        network, tokenizer = _load(spec, folder, device)
        return TextModel(as_its_folder_says(spec, folder), network, tokenizer, device)


def _load(spec: ModelSpec, folder: Path, device: str) -> tuple[Any, Any]:
    refuse_unquantizable(spec)
    config, tokenizer = _configure(spec, folder)
    auto = _auto(spec, config)
    if _is_gguf(spec) and spec.init == "pretrained":
        network = random_network(spec, config, auto)
        read_gguf(folder / str(spec.file), network)
    else:
        placed = _placed(spec, config, auto) if device == "cuda" else None
        network = load_network(spec, folder, config, auto, device=device, placed=placed)
    return _encoder(network), tokenizer


def _placed(spec: ModelSpec, config: Any, auto: Any) -> dict[str, int] | None:
    """Return which part of a network goes to which GPU; None where one GPU, or one alone, holds it."""
    memory = memory_for_weights()
    if len(memory) < 2 or spec.init == "random" or spec.setting("quantization") is not None:
        return None
    with torch.device("meta"):
        placed = device_map(random_network(spec, config, auto), memory, f"Model {spec.name!r}")
    return placed if len(set(placed.values())) > 1 else None


def _auto(spec: ModelSpec, config: Any) -> Any:
    """Return the auto class; some encoder-decoders have a class of their encoder alone, without a decoder.

    :raises StudyError: if a likelihood is asked of what is no causal language model.
    """
    if spec.setting("bits_per_byte"):
        causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        both = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING or config.is_encoder_decoder
        if not causal or both:
            raise StudyError(
                f"Model {spec.name!r}: bits_per_byte is of causal language models; "
                f"{config.model_type} is none. Leave it out."
            )
        return transformers.AutoModelForCausalLM
    alone = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    return transformers.AutoModelForTextEncoding if alone else transformers.AutoModel


def _encoder(network: Any) -> Any:
    """Return the part of a network that reads a text."""
    config = network.config
    whole = type(config) not in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    return network.get_encoder() if whole and getattr(config, "is_encoder_decoder", False) else network


def _body(network: Any) -> Any:
    """Return the part of a network that gives the hidden states: without the head of a language model."""
    # Asked by its configuration: to look through the classes of all language models would import every one of them.
    causal = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(network.config), None)
    return network.base_model if type(network) is causal else network


def describe(spec: ModelSpec) -> Description:
    """Describe a text model from its configuration.

    :raises WeightsError: if it is not understood.
    """
    refuse_unquantizable(spec)
    folder = locate(configuration(spec))
    with explained(spec, folder / (spec.file or ""), "text"):
        config, _ = _configure(spec, folder)
        with torch.device("meta"):
            auto = _auto(spec, config)
            network = _encoder(random_network(spec, config, auto))
            body = _body(network)
            spec = as_its_folder_says(spec, folder)
            states = _named(_trace(body), body, spec)
        vocabulary = (
            config.get_text_config().vocab_size if spec.setting("bits_per_byte") else 0
        )  # a logit for each
        found = described(network, spec.keep(states).layers, sum(width for _, width in states) + vocabulary)
        how = spec.setting("quantization")
        return found if how is None else replace(found, weight_bytes=quantized_bytes(network, how))


def _configure(spec: ModelSpec, folder: Path) -> tuple[Any, Any]:
    """Return the configuration and the tokenizer of a folder or of a GGUF file in it."""
    source = describe_gguf(folder / str(spec.file)) if _is_gguf(spec) else folder
    trusted = spec.setting("trust_remote_code")
    given = {"local_files_only": True, "trust_remote_code": trusted}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **given)
    config = transformers.AutoConfig.from_pretrained(source, **given)
    if config.model_type == "clip":
        config = config.text_config
    config.use_cache = False
    return config, tokenizer


def _is_gguf(spec: ModelSpec) -> bool:
    return (spec.file or "").endswith(".gguf")


def _trace(network: Any) -> Any:
    """Return a network's output for one token, as tensors without numbers.

    Which mask spares a family from looking into its numbers differs. Where none does, what the
    configuration says: how many states there are and how wide they are.
    """
    ids = torch.zeros((1, 1), dtype=torch.long)
    for mask in (None, torch.ones((1, 1, 1, 1), dtype=torch.bool), torch.ones_like(ids)):
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError), torch.inference_mode():
            return network(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    config = network.config.get_text_config()
    state = torch.empty((1, 1, config.hidden_size))
    return {"hidden_states": (state,) * (config.num_hidden_layers + 1), "last_hidden_state": state}


def _positions(network: Any) -> int:
    """Return how many tokens the network has positions for."""
    most = getattr(network.config.get_text_config(), "max_position_embeddings", None) or 10**9
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
    states = states_of(output, network, spec.poolings, f"Model {spec.name!r}")
    names = ["embedding", *(f"block {index}" for index in range(1, len(states)))]
    last = len(states) - 1 - spec.takes_pooler
    if last >= 0 and _has_final_norm(network) and states[last] is output.get("last_hidden_state"):
        names[last] += " + norm"
    if spec.takes_pooler:
        names[-1] = POOLER
    return [(name, int(state.shape[-1])) for name, state in zip(names, states, strict=True)]


def _has_final_norm(network: Any) -> bool:
    stacks = [network, *(getattr(network, name, None) for name in ("decoder", "encoder", "language_model"))]
    children = {name for stack in stacks if stack is not None for name, _ in stack.named_children()}
    return bool(_FINAL_NORMS & children)
