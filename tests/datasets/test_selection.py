"""Which samples of a source, which item of a sample, and which rows of two sources belong together."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from platonic_ray.datasets import Dataset, check_samples, dataset_of, items_digest, open_dataset
from platonic_ray.errors import DataError, StudyError
from platonic_ray.study import DatasetEntry, Study, ViewEntry


def png(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(stream, "PNG")
    return stream.getvalue()


COLORS = ["red", "green", "blue", "white", "black"]
TABLE = pa.table(
    {"id": [f"s{row}" for row in range(5)], "caption": [f"a {color} square" for color in COLORS]}
)
PICTURES = pa.table(
    {
        "id": ["s4", "s2", "s0", "s1", "s3", "s9"],
        "picture": [png(COLORS[row]) for row in (4, 2, 0, 1, 3, 0)],
    }
)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(table: pa.Table, name: str = "data") -> str:
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path)
        return str(path)

    return write


def opened(**entry: Any) -> Dataset:
    return open_dataset(DatasetEntry.model_validate(entry), seed=0)


# --- rows -----------------------------------------------------------------------------------------


def test_rows_are_selected_by_range_by_ids_and_then_drawn(write: Any) -> None:
    source = write(TABLE)
    assert opened(source=source, rows=[1, 4]).ids == ("s1", "s2", "s3")
    chosen = opened(source=source, ids=["s4", "s0", "s2"])
    assert (chosen.ids, chosen.rows, chosen.source_rows) == (("s4", "s0", "s2"), (4, 0, 2), 5)
    assert chosen.read("caption") == ["a black square", "a red square", "a blue square"]
    drawn = opened(source=source, rows=[1, 4], samples=2).ids
    assert set(drawn) < {"s1", "s2", "s3"}
    assert drawn == open_dataset(DatasetEntry(source=source), 0).take([1, 2, 3]).sample(2, 0).ids


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"rows": [2, 9]}, "has 5 rows"),
        ({"ids": ["s0", "s7"]}, "no sample of 1 of the ids given: 's7'"),
        ({"ids": ["s0", "s0"]}, "unique"),
        ({"rows": [3, 4]}, "two rows at least"),
        ({"rows": [0, 2], "ids": ["s0", "s1"]}, "either 'rows' or 'ids'"),
        ({"on": "key"}, "there is no 'join'"),
        ({"config": "en"}, "is for a dataset of the hub"),
        ({"split": "train"}, "it has no splits"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(write: Any, given: dict[str, Any], reason: str) -> None:
    with pytest.raises((StudyError, DataError, ValueError), match=reason):
        opened(source=write(TABLE), **given)


# --- pairing --------------------------------------------------------------------------------------


def test_tables_are_paired_by_id_whatever_their_order(write: Any) -> None:
    data = opened(source=write(TABLE), join=[write(PICTURES, "pictures")])
    assert data.ids == tuple(f"s{row}" for row in range(5))
    assert data.read("picture") == [png(color) for color in COLORS]
    assert data.read("caption") == TABLE["caption"].to_pylist()


def test_pairing_takes_any_column_of_ids_and_paths_of_either_folder(tmp_path: Path, write: Any) -> None:
    left = TABLE.rename_columns(["key", "caption"])
    write(left, "left/data")
    write(pa.table({"key": ["s1", "s0"], "file": ["1.png", "0.png"]}), "right/data")
    for row in (0, 1):
        (tmp_path / "right" / f"{row}.png").write_bytes(png(COLORS[row]))
    data = opened(
        source=str(tmp_path / "left" / "data.parquet"), join=[str(tmp_path / "right" / "data.parquet")], on="key",
        rows=[0, 2], views={"photo": {"column": "file", "kind": "image"}},
    )  # fmt: skip
    assert data.ids == ("s0", "s1")
    assert data.read("photo") == [png("red"), png("green")]


def test_a_view_that_is_missing_on_some_rows_is_found_before_any_model_runs(write: Any) -> None:
    data = opened(source=write(TABLE), join=[write(PICTURES.slice(1), "pictures")])
    with pytest.raises(DataError, match=r"1 of 5 samples .*\n  row 4 \(id s4\), picture: missing \(null\)"):
        check_samples(data, ["caption", "picture"])
    kept, problems = check_samples(data, ["caption", "picture"], "drop")
    assert kept.ids == ("s0", "s1", "s2", "s3")
    assert [problem.id for problem in problems] == ["s4"]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (pa.concat_tables([PICTURES, PICTURES.slice(0, 1)]), "1 ids in 'id' are there more than once.*'s4'"),
        (PICTURES.append_column("caption", [["x"] * 6]), "both have the column 'caption'"),
        (PICTURES.rename_columns(["key", "picture"]), "has no column 'id'; it has: key, picture"),
        (PICTURES.slice(5), "No 'id' of .* is in"),
        (PICTURES.set_column(0, "id", [[None, *"abcde"]]), "1 ids are missing"),
    ],
)
def test_tables_that_cannot_be_paired_are_refused(write: Any, other: pa.Table, reason: str) -> None:
    with pytest.raises((StudyError, DataError), match=reason):
        opened(source=write(TABLE), join=[write(other, "other")])


def test_paths_of_a_study_are_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        """
        models = [{ name = "m", use = "pixels", view = "image" }]
        [dataset]
        source = "hub:org/name@main"
        join = ["more/images.parquet", "s3://bucket/x.parquet"]
        """
    )
    dataset = Study.from_toml(tmp_path / "study.toml").dataset
    assert dataset.source == "hub:org/name@main"
    assert dataset.join == (str(tmp_path / "more" / "images.parquet"), "s3://bucket/x.parquet")


# --- several items a sample -----------------------------------------------------------------------

SEVERAL = pa.table(
    {
        "text": [["a cat", "a pet"], ["a dog", "a pet", "an animal"], ["a fox"]],
        "image": [
            [{"bytes": png("red"), "path": "a.png"}] * 2,
            [{"bytes": png("blue"), "path": "b.png"}],
            None,
        ],
        "empty": pa.array([["x"], [], None], pa.list_(pa.string())),
    }
)


def view(column: str, **given: Any) -> Dataset:
    kind = "image" if column == "image" else "text"
    return dataset_of(SEVERAL, "d", views={"view": ViewEntry(column=column, kind=kind, **given)})


def test_of_a_list_the_first_item_is_taken_or_the_one_that_is_named() -> None:
    data = dataset_of(SEVERAL, "d")
    assert dict(data.views) == {"text": "text", "image": "image", "empty": "text"}
    assert data.read("text") == view("text", items="first").read("view") == ["a cat", "a dog", "a fox"]
    assert data.read("image", 0, 2) == [png("red"), png("blue")]
    assert view("text", items=1).read("view", 0, 2) == ["a pet", "a pet"]
    assert [str(problem) for problem in view("text", items=1).problems(["view"])] == [
        "row 2 (id 2), view: missing (null)"
    ]
    assert view("text", items=0).take([2, 0]).read("view") == ["a fox", "a cat"]
    assert dataset_of(SEVERAL.slice(1), "d").read("text") == ["a dog", "a fox"]


def test_all_items_are_kept_where_their_features_are_averaged() -> None:
    data = view("text", items="mean")
    assert data.several("view")
    assert not data.several("text")
    assert data.read("view", 1, 3) == [["a dog", "a pet", "an animal"], ["a fox"]]
    assert items_digest(data.read("view", 2, 3)) != items_digest(["a fox"])
    assert items_digest([["a", "b"]]) != items_digest([["a"], ["b"]]) != items_digest([["ab"]])
    problems = view("empty", items="mean").problems(["view"])
    assert [problem.reason for problem in problems] == ["an empty list of items", "missing (null)"]
    broken = dataset_of(
        pa.table({"image": [[png("red"), b"no image"]]}), "d",
        views={"view": ViewEntry(column="image", kind="image", items="mean")},
    )  # fmt: skip
    assert broken.problems(["view"])[0].reason.startswith("item 2 of 2: not an image")


def test_items_are_not_chosen_where_there_is_one() -> None:
    with pytest.raises(StudyError, match="one item a sample"):
        dataset_of(TABLE, "d", views={"view": ViewEntry(column="caption", kind="text", items="mean")})
