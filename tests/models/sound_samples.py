"""Sounds, clips, and tiny random models of them, saved as a hub's snapshot is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from PIL import Image

RATE = 16000
# Two groups: torch 2.13's convolution of groups of eight channels in bfloat16 is wrong on CPUs with AMX.
_SMALL_WAVES = {
    **{"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 48, "conv_dim": (16, 16), "conv_stride": (10, 8), "conv_kernel": (20, 8)},
    **{"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
_GROUP = {"do_stable_layer_norm": False, "feat_extract_norm": "group"}
_LAYER = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
_WHISPER = {
    **{"vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "num_mel_bins": 80},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48},
    **{"decoder_ffn_dim": 48, "max_source_positions": 50, "pad_token_id": 1, "bos_token_id": 2},
    **{"eos_token_id": 3, "decoder_start_token_id": 2},
}
# Family: the class that is saved, and what its configuration gets. Whisper's window is one second here.
AUDIO: dict[str, tuple[str, dict[str, Any]]] = {
    "whisper": ("WhisperForConditionalGeneration", _WHISPER),
    "wav2vec2": ("Wav2Vec2Model", _SMALL_WAVES | _GROUP),
    "wav2vec2-layer": ("Wav2Vec2ForCTC", _SMALL_WAVES | _LAYER),
    "hubert": ("HubertModel", _SMALL_WAVES | _GROUP),
    "hubert-layer": ("HubertModel", _SMALL_WAVES | _LAYER),
    "wavlm-layer": ("WavLMModel", _SMALL_WAVES | _LAYER),
}


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> bytes:
    """Return a WAV file of a few tones and noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * rng.uniform(100, 2000) * time + rng.uniform(0, 6)) for _ in range(3))
    out = io.BytesIO()
    soundfile.write(out, (wave + rng.normal(size=len(time)) / 4) / 8, rate, format="WAV", subtype="FLOAT")
    return out.getvalue()


def clip(seed: int, frames: int = 6, size: tuple[int, int] = (40, 48)) -> bytes:
    """Return an animation of smooth random colors, lossless."""
    rng = np.random.default_rng(seed)
    images = [
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        for _ in range(frames)
    ]
    out = io.BytesIO()
    images[0].save(out, "WEBP", save_all=True, append_images=images[1:], lossless=True)
    return out.getvalue()


def save_audio(folder: Path, family: str) -> Path:
    """Save a family's tiny encoder of sounds."""
    name, settings = AUDIO[family]
    network = getattr(transformers, name)
    torch.manual_seed(7)
    network(network.config_class(**settings)).save_pretrained(folder)
    if family == "whisper":
        transformers.WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder)
    else:
        transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def save_video(folder: Path) -> Path:
    """Save a tiny VideoMAE of four frames in two tubelets."""
    torch.manual_seed(8)
    config = transformers.VideoMAEConfig(
        **{"image_size": 32, "patch_size": 8, "num_frames": 4, "tubelet_size": 2, "hidden_size": 32},
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
        decoder_num_hidden_layers=1,
    )
    transformers.VideoMAEModel(config).save_pretrained(folder)
    processor = {
        **{"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 36}, "resample": 2},
        **{"crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "do_resize": True},
        **{"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True},
        **{"image_mean": [0.5] * 3, "image_std": [0.3] * 3},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
