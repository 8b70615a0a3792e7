"""GGUF files: one file with a tokenizer, a configuration and quantized weights, read by transformers."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import transformers

from platonic_ray.models.pretrained import refuse_missing
from platonic_ray.models.weights import cache_folder, file_sha256


def describe_gguf(file: Path) -> Path:
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


def read_gguf(file: Path, network: Any) -> None:
    """Put a GGUF file's dequantized weights into a network.

    `from_pretrained(gguf_file=…)` is the same reader behind a requirement of accelerate.
    """
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be turned off
        tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=network)["tensors"]
    missing = network.load_state_dict(tensors, strict=False).missing_keys
    tied = getattr(network, "all_tied_weights_keys", None) or {}  # a head that is the embedding, say
    network.tie_weights()
    refuse_missing([key for key in missing if key not in tied])
