"""WebDataset shards hold the samples that were put into them, one file or many, in memory or mapped."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from platonic_ray.datasets import Dataset, dataset_of, mapped, open_dataset, tables, webdataset
from platonic_ray.errors import DataError
from platonic_ray.study import DatasetEntry


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 40, 90)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members(rows: range) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for row in rows:
        found[f"./part/{row:04d}.png"] = png(row)
        found[f"./part/{row:04d}.txt"] = f"picture {row}".encode()
        found[f"./part/{row:04d}.json"] = json.dumps(
            {"source": "a" if row % 2 else "b", "tags": ["x"]}
        ).encode()
        found[f"./part/{row:04d}.cls"] = str(row % 3).encode()
    return found


def opened(path: Path) -> Dataset:
    return open_dataset(DatasetEntry(source=str(path)), seed=0)


def test_members_of_one_name_are_a_sample_and_its_json_gives_columns(tmp_path: Path) -> None:
    data = opened(write_tar(tmp_path / "shard.tar", members(range(5))))
    assert data.ids == tuple(f"part/{row:04d}" for row in range(5))
    assert dict(data.views) == {"png": "image", "txt": "text", "source": "text"}
    assert data.read("txt") == [f"picture {row}" for row in range(5)]
    assert data.read("png") == [png(row) for row in range(5)]
    assert data.labels("source") == ["b", "a", "b", "a", "b"]
    assert data.labels("cls") == [0, 1, 2, 0, 1]
    assert not data.problems(["png", "txt"])


def test_films_which_nothing_decodes_are_no_view_and_are_not_read(tmp_path: Path) -> None:
    films = {f"./part/{row:04d}.mp4": b"\0\0\0\x20ftypisom" for row in range(3)}
    both = dict(sorted({**members(range(3)), **films}.items()))
    data = opened(write_tar(tmp_path / "shard.tar", both))
    assert dict(data.views) == {"png": "image", "txt": "text", "source": "text"}
    assert data.fingerprint() == opened(write_tar(tmp_path / "other.tar", members(range(3)))).fingerprint()
    with pytest.raises(DataError, match=r"holds no samples: .*endings that are read"):
        opened(write_tar(tmp_path / "films.tar", films))


def test_a_folder_of_shards_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", members(range(3, 5)))
    write_tar(tmp_path / "a.tar", members(range(3)))
    whole = write_tar(tmp_path / "whole" / "one.tar", members(range(5)))
    assert opened(tmp_path).fingerprint() == opened(whole).fingerprint()


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_a_large_table_is_mapped_from_a_copy_that_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("PLATONIC_RAY_CACHE", str(tmp_path / "cache"))
    path = write_tar(tmp_path / "shard.tar", members(range(600)))
    if form == "parquet":
        pq.write_table(tables.read_table(path), path := tmp_path / "data.parquet")
    small = opened(path)
    monkeypatch.setattr(webdataset, "LARGE_BYTES", 1)
    monkeypatch.setattr(tables, "LARGE_BYTES", 1)
    before = pa.total_allocated_bytes()
    large = tables.read_table(path)
    drawn = dataset_of(large, "drawn").sample(500, seed=0)
    assert drawn.read("txt", 0, 2) == small.sample(500, seed=0).read("txt", 0, 2)
    assert pa.total_allocated_bytes() - before < large.nbytes / 4  # a choice of rows stays mapped too
    assert opened(path).fingerprint() == small.fingerprint()
    copies = list((tmp_path / "cache" / "datasets" / "tables").iterdir())
    stamps = [copy.stat().st_mtime_ns for copy in copies]
    assert opened(path).fingerprint() == small.fingerprint()
    assert [copy.stat().st_mtime_ns for copy in copies] == stamps
    assert len(copies) == 1
    if form == "tar":  # another file in its place is another table
        write_tar(path, members(range(7)))
        assert len(opened(path)) == 7


def test_a_copy_that_broke_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATONIC_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(webdataset, "LARGE_BYTES", 1)
    whole = write_tar(tmp_path / "shard.tar", members(range(400))).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) * 3 // 4 + 100])
    with pytest.raises(DataError, match="cannot be read as a tar file"):
        opened(tmp_path / "cut.tar")
    assert not list((tmp_path / "cache" / "datasets" / "tables").iterdir())
    assert mapped.LARGE_BYTES > 1


class _Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def test_pickles_are_left_out_and_never_opened(tmp_path: Path) -> None:
    bomb = {"part/0000.pyd": pickle.dumps(_Bomb()), "part/0000.pkl": pickle.dumps(_Bomb())}
    data = opened(
        write_tar(tmp_path / "shard.tar", members(range(1)) | {f"./{name}": b for name, b in bomb.items()})
    )
    assert set(data.views) == {"png", "txt", "source"}


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ({"a.txt": b"x", "b.txt": b"y", "a.png": b"z"}, "'a' do not stand together"),
        ({"a.txt": b"x", "a.json": b"{"}, "a.json cannot be read as json"),
        ({"a.txt": b"\xff"}, "a.txt cannot be read as txt"),
        ({"a.txt": b"x", "a.json": b'{"txt": "y"}'}, "has 'txt' twice"),
        ({"a.pkl": b"x"}, "holds no samples"),
        ({}, "holds no samples"),
        ({f"{row:03d}.txt": b"x" for row in range(300)} | {"299.png": png(1)}, "'299' has 'png', which the first"),
    ],
)  # fmt: skip
def test_a_shard_that_is_none_is_one_clear_error(tmp_path: Path, held: dict[str, bytes], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        opened(write_tar(tmp_path / "shard.tar", held))
