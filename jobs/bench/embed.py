"""How features are made, timed against what others do: from texts, from images, and with shards written."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from bench.images import time_images
from bench.language import time_language
from bench.shards import time_writing
from bench.texts import time_encode, time_recipe
from platonic_ray.models.allocator import keep_freed_memory

PARTS = {
    "recipe": "all layers over texts of the lengths of captions, against the recipe of Huh et al. (2024)",
    "encode": "the last layer, against `encode` of sentence_transformers, which has to be installed",
    "images": "from encoded images, against a DataLoader loop",
    "writing": "with shards written, against without",
    "lm": "all layers of a language model of 10⁹ parameters, against the speed of large products; for a GPU",
}


ROWS = {
    "recipe-minilm": "--part recipe --texts 4096 --recipe-texts 64 --repetitions 2",
    "recipe-smollm2": "--part recipe --model smollm2-135m --texts 96 --recipe-texts 4 --repetitions 2",
    "encode": "--part encode --texts 512",
    "efficientnet": "--part images --images 192",
    "vit-b": "--part images --model vit-b --images 64 --repetitions 2",
    "writing-minilm": "--part writing --texts 1024",
    "writing-smollm2": "--part writing --model smollm2-135m --texts 256",
}
"""One row of what is measured, at a size that takes less than three minutes on two quiet cores."""


def time_embedding(arguments: list[str]) -> dict[str, Any]:
    """Parse, time, return the report; for people the same as lines on standard error."""
    parser = argparse.ArgumentParser(prog="benchmark.py embed", description=__doc__)
    parts = "; ".join(f"{part}: {what}" for part, what in PARTS.items())
    parser.add_argument("--part", choices=PARTS, default="recipe", help=parts)
    parser.add_argument("--model", help="of the catalog; or vit-b, with random weights")
    parser.add_argument("--texts", type=int, default=4096)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--recipe-texts", type=int, default=64, help="that the recipe is timed on each time")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of torch, for all sides"
    )
    parser.add_argument("--width", type=int, default=2048, help="of the states of lm")
    parser.add_argument("--depth", type=int, default=22, help="blocks of lm")
    parser.add_argument("--tokens", type=int, default=512, help="of each text of lm")
    parser.add_argument(
        "--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"), help="of lm"
    )
    parser.add_argument("--batch-tokens", type=int, default=16384, help="of lm")
    parser.add_argument("--only", choices=ROWS, help="a row at a size of minutes; other options change it")
    only = parser.parse_known_args(arguments)[0].only
    given = parser.parse_args([*ROWS.get(only, "").split(), *arguments])
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as a run does; all sides are in this process and have the good of it
    of_texts = given.model or "minilm-l6"
    if given.part == "recipe":
        report = time_recipe(of_texts, given.texts, given.repetitions, given.recipe_texts)
    elif given.part == "encode":
        report = time_encode(of_texts, given.texts, given.repetitions)
    elif given.part == "images":
        report = time_images(given.model or "efficientnet-lite0", given.images, given.repetitions)
    elif given.part == "lm":
        report = time_language(
            width=given.width,
            depth=given.depth,
            texts=given.texts,
            tokens=given.tokens,
            dtype=given.dtype,
            batch_tokens=given.batch_tokens,
            repetitions=given.repetitions,
        )
    else:
        report = time_writing(of_texts, given.texts, given.threads)
    for name, value in report.items():
        print(f"{name:<28} {value}", file=sys.stderr)
    return report
