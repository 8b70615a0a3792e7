"""Samples that a URI names are the same samples, fetched once a machine: from a real S3 server on loopback."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import ObjectStore
from test_selection import COLORS, TABLE, png
from test_webdataset import members, write_tar

from platonic_ray.datasets import Dataset, mapped, open_dataset
from platonic_ray.errors import DataError, StudyError
from platonic_ray.study import DatasetEntry


def opened(source: object) -> Dataset:
    return open_dataset(DatasetEntry(source=str(source)), seed=0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLATONIC_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets" / "fetched"


def upload(object_store: ObjectStore, local: Path, uri: str) -> None:
    root = uri.removeprefix("s3://")
    for path in [local] if local.is_file() else sorted(local.rglob("*")):
        if path.is_file():
            inside = root if local.is_file() else f"{root}/{path.relative_to(local)}"
            with object_store.files.open_output_stream(inside) as stream:
                stream.write(path.read_bytes())


def test_a_file_in_a_bucket_is_fetched_once_and_again_when_it_changed(
    object_store: ObjectStore, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = object_store.new_uri() + "/captions.parquet"
    pq.write_table(TABLE, tmp_path / "captions.parquet")
    upload(object_store, tmp_path / "captions.parquet", uri)
    assert opened(uri).fingerprint() == opened(tmp_path / "captions.parquet").fingerprint()
    assert opened(uri).name == uri
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:  # what is there is not fetched again
        patch.setattr(mapped.shutil, "copyfileobj", None)
        assert len(opened(uri)) == 5
    pq.write_table(TABLE.slice(1), tmp_path / "captions.parquet")
    upload(object_store, tmp_path / "captions.parquet", uri)
    assert opened(uri).ids == ("s1", "s2", "s3", "s4")


def test_an_image_folder_and_tars_in_a_bucket_are_read_as_on_a_disk(
    object_store: ObjectStore, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    lines = ["file_name,caption"]
    for row, color in enumerate(COLORS):
        (folder / "a" / f"{row}.png").write_bytes(png(color))
        lines.append(f"a/{row}.png,a {color} square")
    (folder / "metadata.csv").write_text("\n".join(lines))
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "000.tar", members(range(3)))
    write_tar(tmp_path / "tars" / "001.tar", members(range(3, 5)))
    for local in (folder, tmp_path / "tars"):
        uri = object_store.new_uri()
        upload(object_store, local, uri)
        assert opened(uri).fingerprint() == opened(local).fingerprint()
        assert not opened(uri).problems(list(opened(uri).views))


def test_a_fetch_that_fails_leaves_nothing_and_says_what_was_asked_for(
    object_store: ObjectStore, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = object_store.new_uri() + "/captions.parquet"
    with pytest.raises(DataError, match=f"There is nothing at {uri}"):
        opened(uri)
    pq.write_table(TABLE, tmp_path / "captions.parquet")
    upload(object_store, tmp_path / "captions.parquet", uri)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(mapped.shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=f"{uri} cannot be fetched: .*No space left"):
        opened(uri)
    assert not list(cache.iterdir())


def test_a_file_uri_is_the_file_itself_and_an_unknown_one_is_refused(cache: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "data.parquet")
    assert opened(f"file://{tmp_path}/data.parquet").read("text") == ["a", "b"]
    assert not cache.exists()
    with pytest.raises(StudyError, match="a URI that pyarrow knows"):
        opened("nosuch://bucket/data.parquet")
