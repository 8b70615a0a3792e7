"""Every family of language models, tiny and random, saved as a hub's snapshot is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = ["a red dog", "x", "an apple on a table", "ab", "moon"]
WIDE = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 100}
DEEP = {**WIDE, "num_hidden_layers": 2, "max_position_embeddings": 40}
SMALL_T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SMALL_BART = {
    **{"vocab_size": 100, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 48},
    **{"decoder_ffn_dim": 48, "encoder_attention_heads": 4, "decoder_attention_heads": 4},
    **{"max_position_embeddings": 40, "pad_token_id": 1},
}
SMALL_EYE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
# Family: the class that is saved, what its configuration gets, whether its last state is normed.
FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("LlamaForCausalLM", DEEP, True),
    "mistral": ("MistralForCausalLM", {**DEEP, "num_key_value_heads": 2, "sliding_window": 4}, True),
    "mixtral": ("MixtralForCausalLM", {**DEEP, "num_key_value_heads": 2, "num_local_experts": 3}, True),
    "pythia": ("GPTNeoXForCausalLM", DEEP, True),
    "olmo": ("OlmoForCausalLM", DEEP, True),
    "qwen2": ("Qwen2ForCausalLM", {**DEEP, "num_key_value_heads": 2}, True),
    "bloom": ("BloomForCausalLM", {"vocab_size": 100, "hidden_size": 32, "n_layer": 2, "n_head": 4}, True),
    "gemma": ("GemmaForCausalLM", {**DEEP, "num_key_value_heads": 1, "head_dim": 8}, True),
    "gemma2": (
        *("Gemma2ForCausalLM", {**DEEP, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4}),
        True,
    ),
    "gemma3": (  # it sees images too
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {**DEEP, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
            "vision_config": {**SMALL_EYE, "patch_size": 8, "image_size": 16},
            **{
                "mm_tokens_per_image": 4,
                "image_token_index": 99,
                "boi_token_index": 97,
                "eoi_token_index": 98,
            },
        },
        True,
    ),
    "qwen3": ("Qwen3ForCausalLM", {**DEEP, "num_key_value_heads": 2, "head_dim": 8}, True),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
        True,
    ),
    "opt": (
        "OPTForCausalLM",
        {**DEEP, "ffn_dim": 48, "word_embed_proj_dim": 32},
        True,
    ),
    "bert": ("BertForMaskedLM", DEEP, False),
    "roberta": ("RobertaForMaskedLM", {**DEEP, "pad_token_id": 1}, False),
    "modernbert": ("ModernBertForMaskedLM", {**DEEP, "pad_token_id": 1, "local_attention": 4}, True),
    "t5": ("T5ForConditionalGeneration", SMALL_T5, True),
    "bart": ("BartForConditionalGeneration", SMALL_BART, False),
}


def save_family(folder: Path, family: str) -> Path:
    """Save a family's tiny model, with a tokenizer that has no pad token."""
    name, settings, _ = FAMILIES[family]
    network = getattr(transformers, name)
    torch.manual_seed(3)
    network(network.config_class(**settings)).save_pretrained(folder)
    save_tokenizer(folder, pad=False)
    return folder


def save_tokenizer(folder: Path, *, pad: bool, side: str = "right", bos: str = "none") -> None:
    """A token a letter, and one for the blank, as byte-level tokenizers spell it.

    :param bos: "none", "known" (the tokenizer has one and does not use it), or "added" to every text.
    """
    vocabulary = ["[BOS]", "[PAD]", "[EOS]", "[UNK]", "Ġ", *LETTERS]
    tokens = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(tokenizer_models.BPE(tokens, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if bos == "added":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[BOS] $A", special_tokens=[("[BOS]", 0)]
        )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        padding_side=side,
        **({"pad_token": "[PAD]"} if pad else {}),
        **({} if bos == "none" else {"bos_token": "[BOS]"}),
    ).save_pretrained(folder)
