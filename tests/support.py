"""Small real studies, and what tests ask of one that has run: its bytes, its features, its log."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from platonic_ray.cli import main
from platonic_ray.digest import digest
from platonic_ray.engine.prepare import prepare
from platonic_ray.results import Result
from platonic_ray.store import Store, feature_array
from platonic_ray.study import Study

WORDS = [
    "red",
    "green",
    "blue",
    "round",
    "square",
    "small",
    "large",
    "cat",
    "dog",
    "bird",
    "tree",
    "house",
    "moon",
    "star",
]


def write_samples(path: Path, n: int = 600, seed: int = 0) -> Path:
    """Write n samples with the views `en`, `de`, `image`: three words, and their colors as pixels."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(WORDS), size=(n, 4))
    images = []
    for row, pick in enumerate(picks):
        pixels = rng.integers(0, 40, size=(8, 8, 3)) + 13 * pick[:3]
        stream = io.BytesIO()
        Image.fromarray(np.clip(pixels + row % 7, 0, 255).astype(np.uint8)).save(stream, "PNG")
        images.append(stream.getvalue())
    table = pa.table(
        {
            "id": [f"s{row}" for row in range(n)],
            "en": [" ".join(WORDS[i] for i in pick) for pick in picks],
            "de": [" ".join(WORDS[i][::-1] for i in pick) for pick in picks],
            "image": pa.array(images, pa.binary()),
        }
    )
    pq.write_table(table, path)
    return path


def write_tiny_bert(folder: Path, seed: int = 0, layers: int = 3) -> Path:
    """Save a tiny random BERT and its tokenizer in the format of a hub snapshot."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = sorted({letter for word in WORDS for letter in word})
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *WORDS,
        *letters,
        *("##" + letter for letter in letters),
    ]
    tokenizer = Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_tiny_vit(folder: Path) -> Path:
    """Save a tiny random ViT and its image processor in the format of a hub snapshot."""
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=16,
        patch_size=8,
    )
    ViTModel(config).save_pretrained(folder)
    processor = {
        **{"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}},
        **{"do_resize": True, "do_rescale": True, "do_normalize": True},
        **{"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "resample": 2},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def make_mixed_study(samples: Path, tiny_bert: Path, folder: Path, **run: object) -> Study:
    """90 samples in 6 shards; a chosen layer of a BERT, a ViT, and features that exist, of three widths."""
    import torch

    rows = pq.read_metadata(samples).num_rows
    layers = [torch.randn(rows, width, generator=torch.Generator().manual_seed(width)) for width in (4, 6, 9)]
    torch.save({"feats": layers}, folder / "features.pt")
    vit = write_tiny_vit(folder / "vit")
    return Study.from_dict(
        {
            "name": "mixed",
            "shard_rows": 16,
            "dataset": {"source": str(samples), "samples": 90},
            "models": [
                {
                    **{"name": "bert", "kind": "transformers-text", "weights": str(tiny_bert), "view": "en"},
                    "layers": ["embedding", -1],
                },
                {"name": "vit", "kind": "transformers-vision", "weights": str(vit), "view": "image"},
                {
                    **{"name": "stored", "kind": "features", "view": "image"},
                    "weights": str(folder / "features.pt"),
                },
            ],
            "null": {"permutations": 0},
            "run": dict(run),
        }
    )


def write_broken_bert(folder: Path) -> Path:
    """Save a tiny BERT whose second block turns a word into NaN."""
    import torch
    from safetensors.torch import load_file, save_file

    write_tiny_bert(folder)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][4 + WORDS.index("cat")] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_small_study(samples: Path, tiny_bert: Path, **run: object) -> Study:
    """600 samples in 10 shards and 3 blocks; 4 models: two views of one BERT, TF-IDF, pixels."""
    return Study.from_dict(
        {
            "name": "small",
            "shard_rows": 64,
            "dataset": {"source": str(samples)},
            "models": [
                {"name": "bert-en", "kind": "transformers-text", "weights": str(tiny_bert), "view": "en"},
                {"name": "bert-de", "kind": "transformers-text", "weights": str(tiny_bert), "view": "de"},
                {"name": "tfidf", "use": "char-tfidf", "view": "en"},
                {"name": "pixels", "use": "pixels", "view": "image"},
            ],
            "metrics": [
                {"name": "mutual_knn", "k": 7},
                {"name": "cka"},
                {"name": "unbiased_cka"},
                {"name": "cycle_knn", "k": 5},
                {"name": "rank_knn", "k": 7},
                {"name": "procrustes"},
                {"name": "angular_procrustes", "layers": "best:mutual_knn"},
            ],
            "null": {"permutations": 19},
            "run": {"block_rows": 256, **run},
        }
    )


def make_light_study(samples: Path, **run: object) -> Study:
    """The small study with plain networks in place of BERT, whose library takes a process seconds to import.

    For runs that start many processes. (The networks are those of `faulty`, which no sample here tells anything.)
    """
    own = {"kind": "module", "weights": "faulty:build", "layers": ["table"]}
    small = make_small_study(samples, samples, **run)
    models = [{**own, "name": f"net-{view}", "view": view} for view in ("en", "de")]
    return small.replace(models=[*models, *(model.model_dump() for model in small.models[2:])])


def make_tiny_study(samples: Path, **run: object) -> Study:
    """200 samples in 4 shards and one block; two floors: TF-IDF and pixels. A second or two of work."""
    return Study.from_dict(
        {
            "name": "tiny",
            "shard_rows": 50,
            "dataset": {"source": str(samples), "samples": 200},
            "models": [
                {"name": "tfidf", "use": "char-tfidf", "view": "en"},
                {"name": "pixels", "use": "pixels", "view": "image"},
            ],
            "metrics": [{"name": "mutual_knn", "k": 5}, {"name": "cka"}],
            "null": {"permutations": 0},
            "run": run,
        }
    )


def changed(study: Study, **run: Any) -> Study:
    """The same study, run elsewhere or otherwise."""
    return study.replace(run=study.run.model_dump() | run)


def score_bytes(result: Result) -> bytes:
    """Every score and its place, floats by their bits: two results are equal if these are."""
    cells = (
        value.hex() if isinstance(value, float) else repr(value)
        for frame in (result.scores, result.models, result.layers, result.growth)
        for row in frame.iter_rows()
        for value in row
    )
    return "\n".join(cells).encode()


def dense_features(study: Study) -> dict[str, list[np.ndarray]]:
    """The features of a study that has run, read from its store: `[N, D_l]` a layer."""
    store = Store(study.run.store)
    plan = prepare(study, store).context.plan
    features = {}
    for model in plan.models:
        shards = []
        for key in model.shard_keys:
            manifest = store.manifest("features", key)
            shards.append([feature_array(store.read(manifest, part)) for part in sorted(manifest.parts)])
        features[model.name] = [np.concatenate(layer) for layer in zip(*shards, strict=True)]
    return features


def events_of(study: Study, run: int = -1) -> list[dict[str, Any]]:
    """The events of a run of a study, by default the last."""
    store = Store(study.run.store)
    return store.events(store.runs()[run])


def committed(study: Study, kind: str) -> set[str]:
    """The keys of the artifacts of a kind that exist."""
    return set(Store(study.run.store).keys(kind))


def tie_digests(study: Study) -> dict[str, list[str]]:
    """The digests that seed the tie rule of each layer of each model of a study."""
    plan = prepare(study, Store(study.run.store)).context.plan
    layers = {name: len(stack) for name, stack in dense_features(study).items()}
    return {
        model.name: [digest([model.tie_digest, layer]) for layer in range(layers[model.name])]
        for model in plan.models
    }


def run(*arguments: object) -> int:
    """Run the command line in this process and return its exit status."""
    return main([str(argument) for argument in arguments])


def make_owned_study(folder: Path, **run: object) -> Study:
    """60 samples of one's own: a table that names images beside it, one joined to it, a network and a metric.

    Beside them lies what is nobody's business: a hidden file, and a file that nothing names.
    """
    code, data = folder / "code", folder / "data"
    (data / "photos").mkdir(parents=True)
    (data / ".secret").write_text("planted")
    (data / "unnamed.bin").write_bytes(bytes(1000))
    rows = pq.read_table(write_samples(folder / "all.parquet", 60))
    photos = [f"photos/{row}.png" for row in range(60)]
    for name, content in zip(photos, rows["image"].to_pylist(), strict=True):
        (data / name).write_bytes(content)
    pq.write_table(
        pa.table({"id": rows["id"], "en": rows["en"], "photo": photos, "photos": photos}), data / "a.parquet"
    )
    pq.write_table(pa.table({"id": rows["id"].to_pylist()[::-1], "de": rows["de"]}), folder / "b.parquet")
    (code / "own_things").mkdir(parents=True)
    tests = Path(__file__).parent
    (code / "own_things" / "__init__.py").write_text("import own_network\nbuild = own_network.build\n")
    (code / "own_things" / "score.py").write_text((tests / "own_metrics.py").read_text())
    (code / "own_things" / ".env").write_text("TOKEN=planted")
    (code / "own_network.py").write_text((tests / "faulty.py").read_text())
    return Study.from_dict(
        {
            "name": "owned",
            "shard_rows": 30,
            "dataset": {
                "source": str(data / "a.parquet"),
                "join": [str(folder / "b.parquet")],
                "views": {"photo": {"column": "photo", "kind": "image"}},
            },
            "models": [
                {"name": "own", "kind": "module", "weights": "own_things:build", "view": "en"},
                {"name": "tfidf", "use": "char-tfidf", "view": "de"},
                {"name": "pixels", "use": "pixels", "view": "photo"},
            ],
            "metrics": [{"name": "cka"}, {"name": "own_things.score:UNSHARED", "k": 5}],
            "null": {"permutations": 0},
            "run": run,
        }
    )
