"""The kinds of models there are: what each reads, which settings it takes, what else determines its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Modality = Literal["text", "image", "audio", "video"]


@dataclass(frozen=True)
class Kind:
    """A kind of model. `version` is raised whenever its code changes a feature.

    `settings` are the fields of a study's entry that it has, with their defaults; `poolings` are those
    that it takes, `poolings_of_some` those of them that only some of its networks have; `constants` are
    its other choices that determine features. `files` are those read below `weights` (globs); `trained`
    are those of them that random weights do not need. A kind that `fits` needs all items of its view.
    One `by_row` takes numbers of its file's rows as its items (`base.rows_of`), whatever the view holds
    (`modality` None); one `imported` is code, whose `weights` are an import path, and takes any view.
    """

    module: str
    version: int
    modality: Modality | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    fits: bool = False
    by_row: bool = False
    imported: bool = False
    poolings: tuple[str, ...] = ()
    poolings_of_some: tuple[str, ...] = ()


FEATURE_FILES = ("*.npy", "*.safetensors", "*.parquet", "*.arrow", "*.feather", "*.pt", "*.pth")
NEUTRAL: Mapping[str, Any] = {
    "layers": "all",
    "concatenate": False,
    "bits_per_byte": False,
    "bos": None,
    "attention": None,
    "trust_remote_code": False,
    "on_nan": "refuse",
    "quantization": None,
}
"""Settings that change nothing at these values, and then enter no key."""
_LAYERS = {"layers": "all", "concatenate": False}
_NETWORK = {"dtype": "float32", "attention": None, "trust_remote_code": False, "on_nan": "refuse"}
_TRAINED = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TEXT_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.*", "merges.txt", "*.model"),
)

KINDS: Mapping[str, Kind] = {
    "transformers-text": Kind(
        module="text",
        version=2,
        modality="text",
        settings={
            **{"pooling": "mean", "prompt": "{text}", "max_tokens": 512, "batch_tokens": 2048, **_LAYERS},
            **{"bos": None, "bits_per_byte": False},
            **_NETWORK,
            "quantization": None,
        },
        constants={"padding": "right", "batches": "by length, least padding"},
        files=(*_TEXT_FILES, "*.safetensors", "*.safetensors.index.json"),
        trained=_TRAINED,
        poolings=("mean", "last", "first", "max", "pooler", "model"),
        poolings_of_some=("pooler", "model"),
    ),
    "transformers-vision": Kind(
        module="vision",
        version=1,
        modality="image",
        settings={"pooling": "mean", "batch_images": 8, **_LAYERS, **_NETWORK},
        constants={"image_processor": "pil", "states": "before any final norm"},
        files=("config.json", *_PROCESSORS, "*.safetensors", "*.safetensors.index.json"),
        trained=_TRAINED,
        poolings=("mean", "first", "max", "pooler"),
        poolings_of_some=("first", "pooler"),
    ),
    "timm": Kind(
        module="timm_vision",
        version=1,
        modality="image",
        settings={"pooling": "mean", "batch_images": 8, **_LAYERS},
        constants={"dtype": "float32", "states": "before any final norm"},
        files=("config.json", "*.safetensors"),
        trained=("*.safetensors",),
        poolings=("mean", "first", "max"),
    ),
    "transformers-audio": Kind(
        module="audio",
        version=2,
        modality="audio",
        settings={"pooling": "mean", "max_seconds": 30.0, "batch_seconds": 60.0, **_LAYERS, **_NETWORK},
        constants={"channels": "averaged", "resampling": "polyphase"},
        files=("config.json", *_PROCESSORS, "*.safetensors", "*.safetensors.index.json"),
        trained=_TRAINED,
        poolings=("mean", "last", "first", "max"),
    ),
    "transformers-video": Kind(
        module="video",
        version=1,
        modality="video",
        settings={"pooling": "mean", "batch_clips": 1, **_LAYERS, **_NETWORK},
        constants={
            **{"image_processor": "pil", "states": "before any final norm"},
            "frames": "evenly, first and last among them",
        },
        files=("config.json", *_PROCESSORS, "*.safetensors", "*.safetensors.index.json"),
        trained=_TRAINED,
        poolings=("mean", "first", "max"),
        poolings_of_some=("first",),
    ),
    "module": Kind(
        module="hooked",
        version=1,
        modality=None,
        settings={"pooling": "mean", "batch_items": 32, **_LAYERS},
        constants={"features": "float32"},
        poolings=("mean", "first", "last", "max"),
        imported=True,
    ),
    "static-text": Kind(
        module="static",
        version=1,
        modality="text",
        settings={"prompt": "{text}"},
        constants={"dtype": "float32", "pooling": "mean", "special_tokens": False},
        files=("*.safetensors", "tokenizer.json"),
    ),
    "efficientnet-lite": Kind(
        module="efficientnet",
        version=1,
        modality="image",
        settings={"batch_images": 4, **_LAYERS},
        constants={
            **{"dtype": "float32", "pooling": "mean", "mean": 127, "std": 128},
            **{"resize": "largest center square, bicubic"},
        },
        files=("*.pth",),
        trained=("*.pth",),
    ),
    "features": Kind(
        module="stored",
        version=1,
        modality=None,
        settings={**_LAYERS},
        constants={"dtype": "float32"},
        files=FEATURE_FILES,
        by_row=True,
    ),
    "char-tfidf": Kind(
        module="floors",
        version=1,
        modality="text",
        constants={"analyzer": "char_wb", "ngrams": [1, 3], "features": 4096, "dtype": "float32"},
        fits=True,
    ),
    "pixels": Kind(
        module="floors",
        version=1,
        modality="image",
        constants={"size": 32, "resize": "bilinear", "dtype": "float32"},
    ),
}
IMAGE_SIZES: Mapping[str, int] = {
    f"efficientnet-lite{number}": size for number, size in enumerate((224, 240, 260, 280, 300))
}
