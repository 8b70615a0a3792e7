"""What a study does with its samples: several items averaged, rows appended, bad ones found, texts cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import WORDS, committed, dense_features, events_of

import platonic_ray as pr
from platonic_ray.errors import DataError, StudyError
from platonic_ray.study import Study


def write_captions(path: Path, n: int, several: bool = False) -> Path:
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(WORDS), size=(n, 3, 4))
    captions = [[" ".join(WORDS[i] for i in pick) for pick in of_sample] for of_sample in picks]
    several_each = [of_sample[: 1 + row % 3] for row, of_sample in enumerate(captions)]
    first = [of_sample[0] for of_sample in captions]
    pq.write_table(pa.table({"text": several_each if several else first}), path)
    return path


def make_study(tmp_path: Path, source: Path, tiny_bert: Path, **more: Any) -> Study:
    return Study.from_dict(
        {
            "shard_rows": 16,
            "models": [
                {"name": "bert", "kind": "transformers-text", "weights": str(tiny_bert), "view": "text"},
                {"name": "words", "use": "char-tfidf", "view": "text"},
            ],
            "metrics": [{"name": "mutual_knn", "k": 3}],
            "null": {"permutations": 0},
            "run": {"engine": "local", "store": str(tmp_path / "store")},
            **more,
            "dataset": {"source": str(source), **more.get("dataset", {})},
        }
    )


def test_features_of_several_captions_are_averaged(tmp_path: Path, tiny_bert: Path) -> None:
    source = write_captions(tmp_path / "several.parquet", 40, several=True)
    mean = {"text": {"column": "text", "kind": "text", "items": "mean"}}
    study = make_study(tmp_path, source, tiny_bert, dataset={"views": mean})
    result = pr.align(study, quiet=True)
    assert 0 <= result.matrix("mutual_knn").at("bert", "words") <= 1
    averaged = dense_features(study)["bert"]

    lists = pq.read_table(source)["text"].to_pylist()
    flat = tmp_path / "flat.parquet"
    pq.write_table(pa.table({"text": [caption for captions in lists for caption in captions]}), flat)
    alone = make_study(tmp_path, flat, tiny_bert, models=[study.models[0].model_dump()])
    pr.align(alone, quiet=True)
    ends = np.cumsum([len(captions) for captions in lists])
    for ours, items in zip(averaged, dense_features(alone)["bert"], strict=True):
        expected = [part.astype(np.float64).mean(0) for part in np.split(items, ends[:-1])]
        np.testing.assert_allclose(ours, np.stack(expected), rtol=0, atol=2e-6)

    shown = result.samples.filter(pl.col("view") == "text").select("sample", "text").rows()
    assert shown
    assert all(text == " / ".join(lists[sample])[: len(text)] for sample, text in shown)


def test_a_function_is_not_given_lists_of_items_that_are_to_be_averaged(tmp_path: Path) -> None:
    source = write_captions(tmp_path / "several.parquet", 40, several=True)
    mean = {"text": {"column": "text", "kind": "text", "items": "mean"}}
    with pytest.raises(StudyError, match='items = "first"'):
        pr.extract(len, {"source": str(source), "views": mean}, lambda model, items: np.ones((len(items), 2)))


def test_appended_rows_are_embedded_and_full_shards_of_before_are_not(
    tmp_path: Path, tiny_bert: Path
) -> None:
    source = write_captions(tmp_path / "captions.parquet", 40)
    models = [{"name": "bert", "kind": "transformers-text", "weights": str(tiny_bert), "view": "text"}]
    study = make_study(tmp_path, source, tiny_bert, models=models)
    pr.align(study, quiet=True)
    before = committed(study, "features")
    assert len(before) == 3  # 16 + 16 + 8 rows
    old = dense_features(study)["bert"]

    pq.write_table(pa.concat_tables([pq.read_table(source), pa.table({"text": ["red cat"] * 10})]), source)
    pr.align(study, quiet=True)
    shards = [event for event in events_of(study) if event["event"] == "shard"]
    assert sorted(event["task"] for event in shards) == ["embed[bert, 2]", "embed[bert, 3]"]
    assert len(committed(study, "features") - before) == 2
    for now, then in zip(dense_features(study)["bert"], old, strict=True):
        assert now[:32].tobytes() == then[:32].tobytes()


@pytest.mark.parametrize("text", ["", "  ", None])
def test_a_text_that_is_none_is_found_before_any_model_runs(
    tmp_path: Path, tiny_bert: Path, text: str | None
) -> None:
    source = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"text": ["a cat", text, "a dog", "a fox", "a bird"]}), source)
    study = make_study(tmp_path, source, tiny_bert)
    with pytest.raises(DataError, match=r"row 1 \(id 1\), text: (empty|blank|missing)"):
        pr.align(study, quiet=True)
    assert not committed(study, "features")


def test_texts_longer_than_the_model_are_cut_and_counted_in_the_result(
    tmp_path: Path, tiny_bert: Path
) -> None:
    source = tmp_path / "captions.parquet"
    texts = [" ".join(WORDS[(row + at) % len(WORDS)] for at in range(3)) for row in range(8)]
    pq.write_table(pa.table({"text": [*texts, " ".join(WORDS * 9), " ".join(WORDS * 8)]}), source)
    result = pr.align(make_study(tmp_path, source, tiny_bert), quiet=True)
    cut = [note for note in result.provenance["notes"] if "were cut" in note]
    assert [note.partition(" texts")[0] for note in cut] == ["bert: 2 of 10"]
