"""Models that several tests share: real ones loaded once, tiny random ones saved to a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_samples import entry
from text_families import save_family

from platonic_ray.models import Model, load, resolve


@pytest.fixture(scope="session")
def loaded() -> Any:
    """Return a function that loads a model of the catalog, each once a session."""
    models: dict[str, Model] = {}

    def get(use: str, init: str = "pretrained") -> Model:
        key = f"{use}/{init}"
        if key not in models:
            models[key] = load(resolve(entry(use=use, init=init)))
        return models[key]

    return get


@pytest.fixture(scope="session")
def saved_text(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that saves a family's tiny language model once."""
    folders: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family not in folders:
            folders[family] = save_family(tmp_path_factory.mktemp(family), family)
        return folders[family]

    return save


def _tokenizer(folder: Path, **special: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "[EOS]", "a", "b", "red", "apple", "dog", "face", "with", "hat"]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[EOS]", padding_side="left", **special
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=10,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
    )
    torch.manual_seed(1)
    BertModel(config).save_pretrained(folder)
    _tokenizer(folder, pad_token="[UNK]")
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model saved with its head, whose tokenizer has no pad token and pads on the left."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    torch.manual_seed(2)
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(folder)
    return folder
