"""Kind "static-text": one vector a token, and a text is the mean of its tokens' vectors. No context.

A safetensors file with one table `[tokens, D]` and a tokenizer's JSON. It shows how much of an
alignment the words alone carry, without any network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from platonic_ray.errors import WeightsError
from platonic_ray.models.base import Description, Features, Layer, ModelSpec
from platonic_ray.models.weights import locate


class StaticModel:
    """A table of token vectors."""

    def __init__(self, table: np.ndarray, tokenizer: Tokenizer, prompt: str) -> None:
        self.table = table
        self._tokenizer = tokenizer
        self._prompt = prompt
        self.layers = (Layer(0, "mean token vector", int(table.shape[1])),)

    def embed(self, items: Sequence[str]) -> Features:
        """Return the mean token vectors, float32 `[n, D]`. A text without any token gets a zero row."""
        means = np.zeros((len(items), self.table.shape[1]), np.float32)
        texts = [self._prompt.replace("{text}", text) for text in items]
        for row, encoded in enumerate(self._tokenizer.encode_batch(texts, add_special_tokens=False)):
            if encoded.ids:
                means[row] = self.table[encoded.ids].mean(axis=0, dtype=np.float32)
        return Features([means])


def describe(spec: ModelSpec) -> Description:
    """Describe a table by reading it: it has no configuration.

    :raises WeightsError: as `load`.
    """
    model = load(spec)
    return Description(model.layers, model.table.size, model.table.nbytes)


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> StaticModel:
    """Load a table and its tokenizer; with `init = "random"` a Gaussian table of the same shape.

    It computes on the CPU whatever the device: there is next to nothing to compute.

    :raises WeightsError: if the files are not one table and the tokenizer that goes with it.
    """
    assert spec.weights is not None
    folder = locate(spec.weights)
    names = [name for name, _ in spec.weights.files] or [path.name for path in folder.iterdir()]
    tables = [spec.file] if spec.file else [name for name in names if name.endswith(".safetensors")]
    tokenizers = [name for name in names if name.endswith(".json")]
    if len(tables) != 1 or len(tokenizers) != 1:
        raise WeightsError(
            f"Model {spec.name!r}: expected one .safetensors file and one tokenizer's .json in "
            f"{folder}, found {', '.join(sorted(names)) or 'nothing'}. Name the first by 'file'."
        )
    try:
        tensors = load_file(folder / tables[0])
        tokenizer = Tokenizer.from_file(str(folder / tokenizers[0]))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"Model {spec.name!r}: {folder / tables[0]} cannot be read: {error}.") from None
    except Exception as error:  # tokenizers raises bare Exceptions
        raise WeightsError(
            f"Model {spec.name!r}: {folder / tokenizers[0]} is not a tokenizer: {error}."
        ) from None
    shapes = {key: list(value.shape) for key, value in tensors.items()}
    if len(shapes) != 1 or len(next(iter(shapes.values()))) != 2:
        raise WeightsError(
            f"Model {spec.name!r}: {tables[0]} must hold one table [tokens, D]; it holds {shapes}."
        )
    table = next(iter(tensors.values())).astype(np.float32)
    if tokenizer.get_vocab_size() > len(table):
        raise WeightsError(
            f"Model {spec.name!r}: the tokenizer has {tokenizer.get_vocab_size()} tokens and the table "
            f"{len(table)} rows: they do not belong together."
        )
    if spec.init == "random":
        table = np.random.default_rng(spec.seed).standard_normal(table.shape, dtype=np.float32)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return StaticModel(table, tokenizer, spec.setting("prompt"))
