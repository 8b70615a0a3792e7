"""Several captions an image, each a row: what neighbors, their null and features are then, against plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support import WORDS, committed, dense_features, events_of

import platonic_ray as pr
from platonic_ray.datasets import open_dataset
from platonic_ray.errors import DataError, StudyError
from platonic_ray.statistics import Groups
from platonic_ray.study import DatasetEntry, Study

N, K = 40, 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    captions = [[" ".join(rng.choice(WORDS, 4)) for _ in range(1 + row % 3)] for row in range(N)]
    path = tmp_path_factory.mktemp("expanded") / "samples.parquet"
    topics = [" ".join(rng.choice(WORDS, 5)) for _ in range(N)]
    pq.write_table(
        pa.table({"captions": captions, "topic": topics, "half": [row % 2 for row in range(N)]}), path
    )
    return path


def make_study(source: Path, store: Path, tiny_bert: Path, **more: Any) -> Study:
    bert = {"kind": "transformers-text", "weights": str(tiny_bert)}
    return Study.from_dict(
        {
            "shard_rows": 16,
            "dataset": {
                "source": str(source),
                "views": {"captions": {"column": "captions", "kind": "text", "items": "expand"}},
            },
            "models": [
                {"name": "captions", "view": "captions", **bert},
                {"name": "topics", "view": "topic", **bert},
            ],
            "metrics": [{"name": "mutual_knn", "k": K}, {"name": "lcs_knn", "k": 2}, {"name": "cka"}],
            "null": {"permutations": 30, "groups": "half"},
            "run": {"engine": "local", "store": str(store)},
            **more,
        }
    )


@pytest.fixture(scope="module")
def ran(source: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Any]:
    study = make_study(source, tmp_path_factory.mktemp("store"), tiny_bert)
    return study, pr.align(study, quiet=True)


def lists_of(rows: np.ndarray, owners: list[int], k: int) -> list[list[int]]:
    """For every row the k nearest other samples, each by its nearest row, once."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    lists = []
    for row in range(len(unit)):
        order = np.argsort(-(unit @ unit[row]), kind="stable")
        others = dict.fromkeys(owners[near] for near in order if owners[near] != owners[row])
        lists.append(list(others)[:k])
    return lists


def test_scores_count_the_nearest_other_samples_that_both_models_have(ran: tuple[Study, Any]) -> None:
    study, result = ran
    owners = [row for row in range(N) for _ in range(1 + row % 3)]
    features = dense_features(study)
    assert [len(layers[0]) for layers in features.values()] == [len(owners)] * 2
    expected = np.array(
        [
            [
                np.mean([len(set(a) & set(b)) / K for a, b in zip(x, y, strict=True)])
                for y in (lists_of(layer, owners, K) for layer in features["topics"])
            ]
            for x in (lists_of(layer, owners, K) for layer in features["captions"])
        ]
    )
    scores = result.scores.filter(
        (pl.col("metric") == "mutual_knn") & (pl.col("model_x") != pl.col("model_y"))
    ).sort("layer_x", "layer_y")
    found = np.array(scores["score"]).reshape(expected.shape)
    if scores["model_x"][0] == "topics":
        found = found.T
    np.testing.assert_allclose(found, expected, atol=1e-12)
    chance = result.models.filter(pl.col("metric") == "mutual_knn")["chance"].unique()
    assert chance.to_list() == [K / (N - 1)]
    own = result.scores.filter(
        (pl.col("model_x") == pl.col("model_y")) & (pl.col("layer_x") == pl.col("layer_y"))
    )
    np.testing.assert_allclose(own["score"], 1.0, atol=1e-12)


def test_an_item_that_rows_share_is_embedded_once_a_shard(ran: tuple[Study, Any]) -> None:
    study, _ = ran
    topics = dense_features(study)["topics"][0]
    first = 0
    for row in range(N):
        count = 1 + row % 3
        assert np.allclose(topics[first : first + count], topics[first], atol=1e-6)
        first += count
    shards = [event for event in events_of(study) if event["event"] == "shard"]
    assert len(shards) == 2 * -(-first // 16)


def test_a_null_moves_samples_with_as_many_rows_within_their_groups(ran: tuple[Study, Any]) -> None:
    owners = torch.tensor([0, 0, 2, 2, 4, 5, 5, 7])
    groups = Groups.of_owners(owners, "halves", [0, 0, 0, 0, 1, 1, 1, 1])
    moved = groups.permutations(50, seed=0)
    assert moved.shape == (50, 8)
    assert {tuple(row) for row in moved[:, :4].tolist()} == {(0, 1, 2, 3), (2, 3, 0, 1)}
    assert {tuple(row) for row in moved[:, 5:7].tolist()} == {(5, 6)}  # the only pair of its half
    assert {tuple(row) for row in moved[:, [4, 7]].tolist()} == {(4, 7), (7, 4)}
    _, result = ran
    notes = result.provenance["notes"]
    assert any("40 samples have 79 rows" in note for note in notes)
    pair = result.models.filter((pl.col("model_x") != pl.col("model_y")) & (pl.col("metric") == "mutual_knn"))
    assert 1 / 31 <= pair["p"][0] <= 1


def test_examples_are_of_other_samples_each_once(ran: tuple[Study, Any]) -> None:
    _, result = ran
    owners = [row for row in range(N) for _ in range(1 + row % 3)]
    assert result.examples.height
    for sample, near in result.examples.select("sample", "neighbors").rows():
        named = [owners[row] for row in near]
        assert owners[sample] not in named
        assert len(set(named)) == len(named) == K


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"metrics": ["cknna"]}, "cknna is not defined"),
        ({"metrics": ["cycle_knn"]}, "cycle_knn is not defined"),
        ({"metrics": ["information_imbalance"]}, "information_imbalance is not defined"),
        ({"growth": {}}, r"\[growth\] is not defined"),
        ({"choose_layers": "held-out"}, "held-out. is not defined"),
        ({"intervals": {"target": "queries"}}, r"\[intervals\] is not defined"),
        ({"metrics": [{"name": "mutual_knn", "k": N}]}, f"there are {N}"),
    ],
)
def test_what_would_take_rows_for_samples_is_refused(
    source: Path, tiny_bert: Path, tmp_path: Path, more: dict[str, Any], complaint: str
) -> None:
    study = make_study(source, tmp_path, tiny_bert, **more)
    with pytest.raises(StudyError, match=complaint):
        pr.align(study, quiet=True)
    assert not committed(study, "features")


def test_rows_are_named_and_selected_by_their_samples(source: Path, tmp_path: Path) -> None:
    views = {"c": {"column": "captions", "kind": "text", "items": "expand"}}
    entry = DatasetEntry(source=str(source), views=views, rows=(1, 4))
    data = open_dataset(entry, 0)
    assert data.ids == ("1#0", "1#1", "2#0", "2#1", "2#2", "3#0")
    assert data.owners == (0, 0, 2, 2, 2, 5)
    assert data.numbers("c") == (1, 2, 3, 4, 5, 6)
    assert data.numbers("topic") == (1, 1, 2, 2, 2, 3)
    assert data.source_items("c") == sum(1 + row % 3 for row in range(N))
    lists = pq.read_table(source)["captions"].to_pylist()
    assert data.read("c") == [caption for row in (1, 2, 3) for caption in lists[row]]
    shard = data.shard("topic", 1, 4)
    assert (len(shard.items), shard.counts) == (2, (1, 2))
    kept = data.take([1, 2, 4])
    assert kept.read("c") == [lists[1][1], lists[2][0], lists[2][2]]
    assert kept.owners == (0, 1, 1)
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"captions": [["a cat"], [], ["a dog", " "]]}), empty)
    bad = open_dataset(DatasetEntry(source=str(empty), views=views), 0).problems(["c"])
    assert [str(problem).partition(":")[0] for problem in bad] == ["row 1 (id 1#0), c", "row 3 (id 2#1), c"]
    with pytest.raises(DataError, match="empty list"):
        open_dataset(DatasetEntry(source=str(empty), views=views), 0).read("c")
    two = {**views, "d": views["c"]}
    with pytest.raises(StudyError, match="one view can be expanded"):
        open_dataset(DatasetEntry(source=str(source), views=two), 0)
