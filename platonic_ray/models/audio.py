"""Kind "transformers-audio": encoders of sounds (Whisper, wav2vec2, HuBERT and kin), every hidden state, pooled.

From a folder or a hub's snapshot, by transformers' auto classes and the feature extractor saved with the
model. Of Whisper the encoder alone is kept. A sound is resampled to the model's rate, cut at
`max_seconds` (counted) or where the model's input ends, and pooled over the positions that it covers:

- Whisper reads a window of 30 s, whatever the sound's length; the silence that fills the window is seen
  by the network, as it was in training, and left out when pooling.
- wav2vec2, HuBERT and WavLM read waveforms of any length. They are padded on the right under a mask,
  except where the network normalizes over time ("group" norm, as in the base models): there padding
  would change the sound, so sounds share a batch only if they are equally long.

Layers are "embedding" (what enters the first block), then the residual stream after each block, before
any final norm but Whisper's, whose last state's name says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from platonic_ray.datasets import audio_length, decode_audio
from platonic_ray.errors import DataError, WeightsError
from platonic_ray.models.base import Description, Features, ModelSpec, configuration, described
from platonic_ray.models.batches import batches_by_length
from platonic_ray.models.lanes import run_batches, runs_side_by_side
from platonic_ray.models.pooling import pool_tokens
from platonic_ray.models.pretrained import explained, load_network, random_network, states_of
from platonic_ray.models.weights import locate

_CONVOLUTION_HOP = 2
"""Whisper's second convolution halves the frames of the spectrogram."""


class AudioModel:
    """An encoder of sounds and its feature extractor. A second of sound holds `held` numbers in all states."""

    def __init__(self, spec: ModelSpec, network: Any, extractor: Any, device: str) -> None:
        self._name = spec.name
        self._network = network.eval().to(device)
        self._side_by_side = runs_side_by_side(network)
        self._extractor = extractor
        self._device = device
        self._poolings = spec.poolings
        self._rate = int(extractor.sampling_rate)
        self.budget: float = spec.setting("batch_seconds")
        self._window = _is_windowed(network)
        self._most = int(spec.setting("max_seconds") * self._rate)
        if self._window:
            self._most = min(self._most, int(extractor.n_samples))
        self._pads = not self._window and getattr(network.config, "feat_extract_norm", "") == "layer"
        states = _named(network)
        self._readout = spec.keep(states)
        self.layers = self._readout.layers
        self.held = sum(width for _, width in states) * self._positions(self._rate)

    def embed(self, items: Sequence[bytes]) -> Features:
        """Return the pooled hidden states of n encoded sounds: one float32 `[n, D]` array a representation.

        :raises DataError: if a sound cannot be decoded, or is too short for the model.
        """
        lengths = [audio_length(item, self._rate) for item in items]
        for length in lengths:
            if self._positions(length) < 1:
                raise DataError(
                    f"Model {self._name!r} finds nothing in a sound of {length / self._rate:.4f} s; "
                    "it is too short. Leave it out."
                )
        truncated = sum(length > self._most for length in lengths)
        rows = self._readout.rows(len(items))
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        batches = self._batches([min(length, self._most) for length in lengths])
        held = int(self.budget * self.held) * self._network.dtype.itemsize if self._side_by_side else None
        with exact:
            run_batches(
                lambda batch: [decode_audio(items[index], self._rate)[: self._most] for index in batch],
                lambda batch, waves: rows.put(batch, self._pooled(waves)),
                batches[
                    ::-1
                ],  # the longest first: what is left at the end, when one core has no more, is short
                self._device,
                held,
            )
        return Features(rows.features(), truncated)

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Cut sounds into batches that do not change each other."""
        most = int(self.budget * self._rate)
        if self._window:
            return batches_by_length([int(self._extractor.n_samples)] * len(lengths), most)
        batches = batches_by_length(lengths, most)
        if self._pads:
            return batches
        same: list[list[int]] = []
        for batch in batches:
            for at, index in enumerate(batch):
                if at == 0 or lengths[index] != lengths[batch[at - 1]]:
                    same.append([])
                same[-1].append(index)
        return same

    def _pooled(self, waves: Sequence[np.ndarray]) -> Callable[[int, str | None], torch.Tensor]:
        """Run a batch; return what gives one of its states pooled one way."""
        inputs = self._extractor(
            list(waves),
            sampling_rate=self._rate,
            return_tensors="pt",
            return_attention_mask=self._pads,
            padding="max_length" if self._window else True,
        )
        with torch.inference_mode():
            output = self._network(**inputs.to(self._device, self._network.dtype), output_hidden_states=True)
        states = states_of(output, self._network, self._poolings, f"Model {self._name!r}")
        counts = torch.tensor([self._positions(len(wave)) for wave in waves], device=self._device)
        mask = (torch.arange(states[-1].shape[1], device=self._device) < counts.unsqueeze(1)).long()
        return lambda place, pooling: pool_tokens(states[place], mask, pooling)

    def _positions(self, samples: int) -> int:
        """Return how many of a state's positions a sound covers."""
        if self._window:
            hop = int(self._extractor.hop_length) * _CONVOLUTION_HOP
            return -(-min(samples, self._most) // hop)
        return int(self._network._get_feat_extract_output_lengths(min(samples, self._most)))


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> AudioModel:
    """Load a feature extractor and a network, trained or with seeded random weights.

    :raises WeightsError: if the files are not those of an encoder of sounds, or lack some of its weights.
    """
    assert spec.weights is not None
    folder = locate(spec.weights)
    with explained(spec, folder, "audio"):
        network = load_network(spec, folder, _configure(spec, folder))
        return AudioModel(spec, _encoder(network), _extractor(spec, folder), device)


def describe(spec: ModelSpec) -> Description:
    """Describe an audio model from its configuration and its feature extractor's.

    :raises WeightsError: if they are not understood.
    """
    folder = locate(configuration(spec))
    with explained(spec, folder, "audio"):
        config = _configure(spec, folder)
        with torch.device("meta"):
            network = _encoder(random_network(spec, config))
        model = AudioModel(spec, network, _extractor(spec, folder), "meta")
        return described(network, model.layers, model.held)


def _configure(spec: ModelSpec, folder: Path) -> Any:
    trusted = spec.setting("trust_remote_code")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trusted)
    network = transformers.MODEL_MAPPING.get(type(config), None)
    if network is None or not _reads_sounds(network):
        raise WeightsError(
            f"Model {spec.name!r}: {config.model_type} is no encoder of sounds that is known here "
            "(Whisper, wav2vec2, HuBERT, WavLM and their kin are)."
        )
    return config


def _reads_sounds(network: Any) -> bool:
    """Whether a class is Whisper's, or reads waveforms and says how many positions they give."""
    if network.__name__ == "WhisperModel":
        return True
    takes = inspect.signature(network.forward).parameters
    return "input_values" in takes and hasattr(network, "_get_feat_extract_output_lengths")


def _encoder(network: Any) -> Any:
    return network.get_encoder() if getattr(network.config, "is_encoder_decoder", False) else network


def _is_windowed(network: Any) -> bool:
    return hasattr(network.config, "max_source_positions")


def _extractor(spec: ModelSpec, folder: Path) -> Any:
    extractor = transformers.AutoFeatureExtractor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=spec.setting("trust_remote_code")
    )
    extractor.padding_side = "right"  # as the masks here have it, whatever the folder says
    return extractor


def _named(network: Any) -> list[tuple[str, int]]:
    """Return the name and width of each hidden state. Whisper gives its last after its final norm."""
    config, windowed = network.config, _is_windowed(network)
    blocks = config.encoder_layers if windowed else config.num_hidden_layers
    names = ["embedding", *(f"block {index}" for index in range(1, blocks + 1))]
    if windowed:
        names[-1] += " + norm"
    return [(name, int(config.hidden_size)) for name in names]
