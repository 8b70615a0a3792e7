"""Saving and loading: the same table comes back, or an error that says what is wrong."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from platonic_ray.errors import StoreError, StudyError
from platonic_ray.results import LayerInfo, PairScores, Result, load_result

FILES = [
    *("capability.parquet", "examples.parquet", "growth.parquet", "layers.parquet", "models.parquet"),
    *("result.json", "samples.parquet", "scores.parquet"),
]


def test_a_saved_result_comes_back_equal_with_nan_and_status(make, tmp_path):
    result = make(["a", "b", "c"])
    folder = result.save(tmp_path / "new" / "result")
    again = load_result(folder)
    assert again.equals(result)
    assert again.models["status"].to_list().count("constant representation") == 1
    assert again.scores["score"].is_nan().sum() == 5
    assert sorted(os.listdir(folder)) == FILES


def test_polars_alone_reads_the_frames(make, tmp_path):
    result = make(["a", "b"])
    result.save(tmp_path)
    for name in ("scores", "models", "layers"):
        assert pl.read_parquet(tmp_path / f"{name}.parquet").equals(getattr(result, name))


def test_hostile_names_survive(make, hostile, tmp_path):
    result = make(hostile)
    result.save(tmp_path)
    again = load_result(tmp_path)
    assert again.equals(result)
    assert again.matrix().rows == tuple(hostile)


def test_equal_frames_are_saved_as_equal_bytes_however_they_came_about(make, tmp_path):
    result = make(["a", "b", "c"])
    pieces = pl.concat([result.scores[:5], result.scores[5:]], rechunk=False)
    other = Result(pieces, result.models, result.layers, result.provenance)
    result.save(tmp_path / "1")
    other.save(tmp_path / "2")
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_every_nan_is_saved_as_the_same_bytes(tmp_path):
    layers = [LayerInfo("a", 0, "last", width=4)]
    for at, nan in enumerate((np.nan, -np.nan)):
        pair = PairScores("cka", "a", "a", np.copysign([[np.nan]], nan if at == 0 else -1.0), n=9)
        Result.from_pairs([pair], layers).save(tmp_path / str(at))
    assert (tmp_path / "0" / "scores.parquet").read_bytes() == (
        tmp_path / "1" / "scores.parquet"
    ).read_bytes()


def test_an_empty_result_can_be_saved(tmp_path):
    empty = Result.from_pairs([], [])
    assert load_result(empty.save(tmp_path)).equals(empty)


def test_provenance_is_kept_as_json_has_it(make, tmp_path):
    base = make(["a"])
    odd = {
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "at": Path("x"),
        "t": (1, np.int64(2)),
        "nan": float("nan"),
    }
    result = Result(base.scores, base.models, base.layers, odd)
    assert result.provenance == {"when": "2026-01-02 00:00:00+00:00", "at": "x", "t": [1, 2], "nan": None}
    assert load_result(result.save(tmp_path)).equals(result)


def test_a_missing_folder_a_file_and_an_unfinished_result_are_told_apart(make, tmp_path):
    with pytest.raises(StoreError, match="There is no folder"):
        load_result(tmp_path / "nowhere")
    make(["a"]).save(tmp_path)
    with pytest.raises(StoreError, match="is a file; give the folder"):
        load_result(tmp_path / "scores.parquet")
    (tmp_path / "result.json").unlink()
    with pytest.raises(StoreError, match="no finished result"):
        load_result(tmp_path)
    with pytest.raises(StudyError, match="folders of this machine"):
        load_result("s3://bucket/result")


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("parquet")])
def test_a_truncated_or_missing_frame_is_an_error_that_names_it(make, tmp_path, name):
    make(["a", "b"]).save(tmp_path)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StoreError, match=rf"{name} is not the file .* cut short"):
        load_result(tmp_path)
    file.unlink()
    with pytest.raises(StoreError, match=rf"{name} is missing"):
        load_result(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 3, "fil', "cut short or is not JSON"),
        ("", "cut short or is not JSON"),
        ("[]", "names no schema version"),
        ('{"schema": 1}', "written with schema 1; this version of platonic-ray reads schema 2, 3, 4"),
        ('{"schema": 2, "files": 3}', "is damaged"),
        ('{"schema": 2, "files": {"scores.parquet": 3}}', "is damaged"),
    ],
)
def test_a_damaged_or_foreign_index_is_an_error(make, tmp_path, text, said):
    make(["a"]).save(tmp_path)
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(StoreError, match=said):
        load_result(tmp_path)


def test_an_interrupted_replacement_is_never_read_as_either_result(make, tmp_path, monkeypatch):
    make(["a", "b"]).save(tmp_path)
    replace, done = os.replace, []

    def crash(source, target):
        if done:
            raise OSError(errno.EIO, "crash")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(StoreError, match="cannot be saved"):
        make(["c", "d"]).save(tmp_path)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == FILES  # and no temporary file is left
    with pytest.raises(StoreError, match="saving was interrupted"):
        load_result(tmp_path)
    result = make(["c", "d"])
    assert load_result(result.save(tmp_path)).equals(result)


def test_a_full_disk_leaves_the_old_result_as_it_was(make, tmp_path, monkeypatch):
    old = make(["a", "b"])
    old.save(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        make(["c", "d"]).save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == FILES
    assert load_result(tmp_path).equals(old)


def test_a_file_where_the_folder_should_be_is_an_error(make, tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StoreError, match="cannot be saved"):
        make(["a"]).save(tmp_path / "taken")


def test_the_index_says_what_the_files_are(make, tmp_path):
    result = make(["a", "b"])
    result.save(tmp_path)
    index = json.loads((tmp_path / "result.json").read_text())
    assert index["schema"] == 5
    assert index["files"]["scores.parquet"]["rows"] == result.scores.height
    assert index["provenance"] == result.provenance


def test_a_result_without_halves_of_its_intervals_is_read(make, tmp_path):
    result = make(["a", "b"])
    folder = result.save(tmp_path / "old")
    older = result.models.drop("interval_halves")
    older.write_parquet(folder / "models.parquet")
    index = json.loads((folder / "result.json").read_text())
    index["schema"] = 4
    index["files"]["models.parquet"]["sha256"] = sha256((folder / "models.parquet").read_bytes()).hexdigest()
    (folder / "result.json").write_text(json.dumps(index))
    assert load_result(folder).equals(result)


def test_a_result_of_the_version_before_is_read_without_what_it_did_not_have(make, tmp_path):
    result = make(["a", "b"])
    folder = result.save(tmp_path / "old")
    for name in ("examples", "samples", "capability"):
        (folder / f"{name}.parquet").unlink()
    index = json.loads((folder / "result.json").read_text())
    index["schema"] = 2
    (folder / "result.json").write_text(json.dumps(index))
    again = load_result(folder)
    assert again.equals(result)
    assert again.examples.is_empty()
