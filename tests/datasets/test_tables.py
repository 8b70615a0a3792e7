"""Samples in any common file or folder are the same samples; what is none of them is one clear error."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import platonic_ray as pr
from platonic_ray.datasets import Dataset, open_dataset
from platonic_ray.errors import DataError
from platonic_ray.study import DatasetEntry

IDS = ["a", "b", "007"]
CAPTIONS = ['a "red", dog', "two\nlines", "夏 grüße"]
TABLE = pa.table({"id": IDS, "caption": CAPTIONS})


def opened(source: Path, **given: object) -> Dataset:
    return open_dataset(DatasetEntry.model_validate({"source": str(source), **given}), seed=0)


def png(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(stream, "PNG")
    return stream.getvalue()


def write(folder: Path, form: str) -> Path:
    """Write the same samples as a file or a folder of some form."""
    path = folder / f"data.{form}"
    if form == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([TABLE.column_names, *zip(IDS, CAPTIONS, strict=True)])
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in TABLE.to_pylist()))
    elif form == "parquet":
        pq.write_table(TABLE, path)
    elif form == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
            writer.write_table(TABLE)
    elif form == "shards":
        path.mkdir()
        pq.write_table(TABLE[:2], path / "part-0000.parquet")
        pq.write_table(TABLE[2:], path / "part-0001.parquet")
    else:
        assert form == "saved"
        datasets.Dataset(TABLE).save_to_disk(path, num_shards=2)
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "arrow", "shards", "saved"])
def test_every_form_holds_the_samples_that_parquet_holds(tmp_path, form) -> None:
    data, wanted = opened(write(tmp_path, form)), opened(write(tmp_path, "parquet"))
    assert data.ids == tuple(IDS)
    assert data.read("caption") == CAPTIONS
    assert data.views == {"caption": "text"}
    assert data.fingerprint() == wanted.fingerprint()


def test_images_and_splits_that_datasets_saved_are_read(tmp_path) -> None:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    splits = {
        split: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": png(color), "path": None} for color in colors],
                "caption": [f"a {color} square" for color in colors],
            },
            features=features,
        )
        for split, colors in {"train": ["red", "blue"], "test": ["green", "red", "white"]}.items()
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "both", num_shards={"train": 1, "test": 3})
    data = opened(tmp_path / "both", split="test")
    assert data.views == {"image": "image", "caption": "text"}
    assert data.read("image") == [png("green"), png("red"), png("white")]
    assert data.read("caption")[2] == "a white square"
    with pytest.raises(DataError, match="give one of: test, train"):
        opened(tmp_path / "both")
    splits["test"].select([2, 0]).save_to_disk(tmp_path / "chosen")
    assert opened(tmp_path / "chosen").read("caption") == ["a white square", "a green square"]


@pytest.mark.parametrize("metadata", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_an_image_folder_pairs_its_images_with_their_captions(tmp_path, metadata) -> None:
    (tmp_path / "deep").mkdir()
    names = ["one.png", "deep/two.png"]
    for name, color in zip(names, ("red", "blue"), strict=True):
        (tmp_path / name).write_bytes(png(color))
    table = pa.table({"file_name": names[::-1], "caption": ["a blue square", "a red square"]})
    rows = [table.column_names, *(row.values() for row in table.to_pylist())]
    if metadata.endswith("csv"):
        with (tmp_path / metadata).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    elif metadata.endswith("jsonl"):
        (tmp_path / metadata).write_text("\n".join(map(json.dumps, table.to_pylist())))
    else:
        pq.write_table(table, tmp_path / metadata)
    data = opened(tmp_path)
    assert data.kind("image") == "image"
    assert data.read("image") == [png("blue"), png("red")]
    assert data.read("caption") == ["a blue square", "a red square"]
    assert data.problems(["image", "caption"]) == []
    (tmp_path / "one.png").unlink()
    assert "one.png does not exist" in str(data.problems(["image"])[0])


def test_a_study_runs_over_an_image_folder(tmp_path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number in range(12):
        (folder / f"{number}.png").write_bytes(png(f"#{number * 20:02x}80{255 - number * 7:02x}"))
        lines.append(json.dumps({"file_name": f"{number}.png", "caption": f"picture number {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (tmp_path / "study.toml").write_text(
        """
        dataset = { source = "./pictures" }
        metrics = [{ name = "mutual_knn", k = 3 }]
        null = { permutations = 0 }
        run = { engine = "local", store = "store" }
        models = [
          { name = "pixels", use = "pixels", view = "image" },
          { name = "words", use = "char-tfidf", view = "caption" },
        ]
        """
    )
    result = pr.align(tmp_path / "study.toml", quiet=True)
    assert 0 <= result.matrix("mutual_knn").at("pixels", "words") <= 1


def test_what_cannot_be_read_is_one_clear_error(tmp_path) -> None:
    def refused(source: Path) -> str:
        with pytest.raises(DataError) as raised:
            opened(source)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    (tmp_path / "ragged.csv").write_text("id,caption\n1,a\n2,b,c\n")
    assert "cannot be read as csv" in refused(tmp_path / "ragged.csv")
    (tmp_path / "empty.csv").touch()
    assert "is empty" in refused(tmp_path / "empty.csv")
    (tmp_path / "latin.csv").write_bytes("caption\nGrüße\n".encode("latin-1"))
    assert "cannot be read as csv" in refused(tmp_path / "latin.csv")
    (tmp_path / "bad.jsonl").write_text('{"caption": "a"}\n{"caption": ')
    assert "cannot be read as jsonl" in refused(tmp_path / "bad.jsonl")
    whole = write(tmp_path, "arrow").read_bytes()
    (tmp_path / "cut.arrow").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as arrow" in refused(tmp_path / "cut.arrow")

    shards = write(tmp_path, "shards")
    pq.write_table(TABLE.drop_columns(["id"]), shards / "part-0002.parquet")
    assert "has other columns than part-0000.parquet" in refused(shards)
    saved = write(tmp_path, "saved")
    (saved / "data-00001-of-00002.arrow").unlink()
    assert "lacks its shard data-00001-of-00002.arrow" in refused(saved)
    (saved / "state.json").write_text("{}")
    assert "is not what `datasets.save_to_disk` writes" in refused(saved)
    state = {"_data_files": [{"filename": "data.arrow"}], "_indices_files": [{"filename": "i.arrow"}]}
    (saved / "state.json").write_text(json.dumps(state))
    assert "flatten_indices" in refused(saved)

    images = tmp_path / "images"
    images.mkdir()
    (images / "metadata.csv").write_text("name,caption\na.png,a\n")
    assert "has no column 'file_name'" in refused(images)
    (images / "metadata.jsonl").write_text('{"file_name": "a.png"}')
    assert "keep one of them" in refused(images)
