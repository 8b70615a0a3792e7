"""Samples, views, draws and digests; files of users, good and bad."""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from platonic_ray.datasets import Dataset, Kind, Problem, base, check_samples, dataset_of, open_dataset
from platonic_ray.errors import DataError, StudyError
from platonic_ray.study import DatasetEntry, ViewEntry

texts = st.lists(st.text(max_size=5), min_size=1, max_size=30)


def png(color: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(out, "PNG")
    return out.getvalue()


def numbered(n: int) -> Dataset:
    return dataset_of(
        pa.table({"id": [f"s{i}" for i in range(n)], "text": [f"item {i}" for i in range(n)]}), "d"
    )


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., DatasetEntry]:
    """Write columns to data.parquet; return the entry that opens it."""

    def save(columns: dict[str, Any], **entry: Any) -> DatasetEntry:
        path = tmp_path / "data.parquet"
        pq.write_table(pa.table(columns), path)
        return DatasetEntry(source=str(path), **entry)

    return save


# --- reading and taking ---------------------------------------------------------------------------


@given(texts, st.data())
def test_take_and_read_agree_with_lists(items: list[str], data: st.DataObject) -> None:
    dataset = dataset_of(pa.table({"text": items}), "d")
    rows = data.draw(st.lists(st.integers(0, len(items) - 1), unique=True))
    start, stop = data.draw(st.integers(0, 35)), data.draw(st.integers(0, 35))
    taken = dataset.take(rows)
    assert taken.read("text") == [items[row] for row in rows]
    assert taken.ids == tuple(str(row) for row in rows)
    assert dataset.read("text", start, stop) == items[start:stop]
    assert taken.read("text", start, stop) == [items[row] for row in rows][start:stop]


def test_reading_crosses_chunks_of_the_table() -> None:
    table = pa.concat_tables([pa.table({"text": [f"{part}.{i}" for i in range(300)]}) for part in range(3)])
    items = table["text"].to_pylist()
    assert dataset_of(table, "d").read("text", 250, 701) == items[250:701]


def test_rows_that_are_not_there_or_given_twice_are_refused() -> None:
    with pytest.raises(StudyError, match="rows 0 to 4"):
        numbered(5).take([5])
    with pytest.raises(DataError, match="unique"):
        numbered(5).take([1, 1])


def test_a_dataset_survives_pickling_and_its_views_cannot_be_changed() -> None:
    dataset = numbered(5).take([3, 1])
    again = pickle.loads(pickle.dumps(dataset))
    assert (again.ids, again.fingerprint(), dict(again.views)) == (
        dataset.ids,
        dataset.fingerprint(),
        {"text": "text"},
    )
    with pytest.raises(TypeError):
        dataset.views["other"] = "text"  # type: ignore[index]
    with pytest.raises(AttributeError):
        dataset.name = "other"  # type: ignore[misc]


def test_an_unknown_view_is_answered_with_the_nearest_and_all_there_are() -> None:
    with pytest.raises(StudyError, match=r"no view 'txet'\. Did you mean 'text'\? It has: text\."):
        numbered(3).read("txet")


# --- drawing --------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 2**63 - 1))
def test_a_sample_starts_with_every_smaller_one_of_its_seed(m: int, n: int, seed: int) -> None:
    small, large = sorted((m, n))
    ids = numbered(40).sample(large, seed).ids
    assert len(set(ids)) == large
    assert numbered(40).sample(small, seed).ids == ids[:small]


def test_a_draw_depends_on_ids_alone_and_never_changes() -> None:
    dataset = numbered(100)
    drawn = dataset.sample(4, seed=7).ids
    assert dataset.take(range(99, -1, -1)).sample(4, seed=7).ids == drawn
    assert drawn == ("s86", "s64", "s28", "s16")  # by sha256 of "7:s0" … "7:s99"
    assert dataset.sample(4, seed=8).ids != drawn


def test_more_samples_than_there_are_is_refused(saved: Callable[..., DatasetEntry]) -> None:
    with pytest.raises(StudyError, match="has 3 samples; 4 cannot be drawn"):
        open_dataset(saved({"text": ["a", "b", "c"]}, samples=4), seed=0)


# --- digests --------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 9))
def test_appending_keeps_the_digests_of_full_shards(n: int, more: int, shard_rows: int) -> None:
    old, new = (numbered(size).shard_digests("text", shard_rows) for size in (n, n + more))
    assert new[: n // shard_rows] == old[: n // shard_rows]
    assert len(old) == -(-n // shard_rows)


def test_a_changed_item_changes_its_own_shard_and_no_other() -> None:
    items = [f"item {i}" for i in range(10)]
    old = dataset_of(pa.table({"text": items}), "d").shard_digests("text", 3)
    items[4] += "!"
    new = dataset_of(pa.table({"text": items}), "d").shard_digests("text", 3)
    assert [a == b for a, b in zip(old, new, strict=True)] == [True, False, True, True]
    with pytest.raises(StudyError, match="shard_rows"):
        numbered(3).shard_digests("text", 0)


def test_the_fingerprint_is_of_content_not_of_storage(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    inside = dataset_of(pa.table({"image": [png()]}), "inside")
    struct = dataset_of(pa.table({"image": [{"bytes": png(), "path": "elsewhere.png"}]}), "struct")
    entry = {"image": ViewEntry(column="image", kind="image")}
    path = dataset_of(pa.table({"image": ["a.png"]}), "paths", views=entry, folder=tmp_path)
    assert inside.fingerprint() == struct.fingerprint() == path.fingerprint()
    assert inside.shard_digests("image", 1) == path.shard_digests("image", 1)
    assert inside.fingerprint() != dataset_of(pa.table({"image": [png("blue")]}), "other").fingerprint()


def test_the_fingerprint_sees_ids_views_order_and_what_is_missing() -> None:
    def of(**columns: list[Any]) -> str:
        return dataset_of(
            pa.table({name: pa.array(v, pa.string()) for name, v in columns.items()}), "d"
        ).fingerprint()

    prints = [
        of(text=["a", "b"]),
        of(text=["b", "a"]),
        of(text=["ab", ""]),
        of(text=["a", None]),
        of(text=["a", ""]),
        of(other=["a", "b"]),
        of(id=["x", "y"], text=["a", "b"]),
    ]
    assert len(set(prints)) == len(prints)
    both = dataset_of(pa.table({"text": ["a", "b"], "more": ["c", "d"]}), "d")
    assert both.fingerprint(["text"]) == prints[0]
    assert both.fingerprint(["text", "more"]) == both.fingerprint(["more", "text"]) == both.fingerprint()


# --- files of users -------------------------------------------------------------------------------


def test_columns_become_views_by_their_type(saved: Callable[..., DatasetEntry]) -> None:
    columns = {
        "id": pa.array([10, 20]),
        "caption": pa.array(["a cat", "a dog"]),
        "label": pa.array(["x", "x"]).dictionary_encode(),
        "image": pa.array([png(), png("blue")]),
        "hub": pa.array([{"bytes": png(), "path": "x.png"}, {"bytes": png("blue"), "path": None}]),
        "height": pa.array([1.5, 2.5]),
        "tags": pa.array([["a"], ["b"]]),
    }
    dataset = open_dataset(saved(columns), seed=0)
    kinds = {"caption": "text", "label": "text", "image": "image", "hub": "image", "tags": "text"}
    assert dict(dataset.views) == kinds
    assert dataset.ids == ("10", "20")
    assert dataset.read("label") == ["x", "x"]
    assert dataset.read("hub") == dataset.read("image") == [png(), png("blue")]


def test_paths_are_read_beside_the_file_when_asked_for(
    saved: Callable[..., DatasetEntry], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    entry = saved(
        {"file": ["photos/a.png", str(tmp_path / "b.png")]},
        views={"photo": {"column": "file", "kind": "image"}},
    )
    dataset = open_dataset(entry, seed=0)  # there are no images yet
    (tmp_path / "photos" / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(png("blue"))
    assert dict(dataset.views) == {"file": "text", "photo": "image"}
    assert dataset.read("photo") == [png(), png("blue")]


def test_structs_without_bytes_are_read_from_their_paths(
    saved: Callable[..., DatasetEntry], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    mixed = [{"bytes": None, "path": "a.png"}, {"bytes": png("blue"), "path": "nowhere.png"}, None]
    dataset = open_dataset(saved({"image": pa.array(mixed, struct)}), seed=0)
    assert dataset.read("image", 0, 2) == [png(), png("blue")]
    assert dataset.problems(["image"]) == [Problem(2, "2", "image", "missing (null)")]
    only_paths = open_dataset(saved({"image": pa.array(mixed[:1], struct)}), seed=0)
    assert only_paths.read("image") == [png()]


def test_text_in_a_binary_column_can_be_declared(saved: Callable[..., DatasetEntry]) -> None:
    views = {"raw": {"column": "raw", "kind": "text"}}
    assert open_dataset(saved({"raw": [b"caf\xc3\xa9"]}, views=views), seed=0).read("raw") == ["café"]
    with pytest.raises(DataError, match="column 'raw' cannot be read as text"):
        open_dataset(saved({"raw": [b"caf\xe9"]}, views=views), seed=0)


@pytest.mark.parametrize(
    ("columns", "entry", "error", "message"),
    [
        ({"size": [1, 2]}, {}, DataError, r"no column that a model could read\. Its columns: size \(int64\)"),
        ({"text": pa.array([], pa.string())}, {}, DataError, "has no rows"),
        ({"id": ["a", "a"], "text": ["x", "y"]}, {}, DataError, "'a' is there more than once"),
        ({"id": ["a", None], "text": ["x", "y"]}, {}, DataError, r"1 ids are missing \(null\)"),
        ({"id": [["a"], ["b"]], "text": ["x", "y"]}, {}, DataError, "ids are strings or integers"),
        (
            {"text": ["x"]},
            {"views": {"v": {"column": "tekst", "kind": "text"}}},
            StudyError,
            r"no column 'tekst'\. Did you mean 'text'\?",
        ),
        (
            {"text": ["x"], "size": [1]},
            {"views": {"v": {"column": "size", "kind": "image"}}},
            StudyError,
            "is int64, not image",
        ),
    ],
)
def test_unusable_columns_are_one_clear_error(
    saved: Callable[..., DatasetEntry],
    columns: dict[str, Any],
    entry: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        open_dataset(saved(columns, **entry), seed=0)


def test_files_that_are_no_parquet_are_one_clear_error(tmp_path: Path) -> None:
    def refused(source: str | Path) -> str:
        with pytest.raises((DataError, StudyError)) as raised:
            open_dataset(DatasetEntry(source=str(source)), seed=0)
        return str(raised.value)

    good = tmp_path / "good.parquet"
    pq.write_table(pa.table({"text": ["a"] * 100}), good)
    content = good.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-50])
    (tmp_path / "hollow.parquet").write_bytes(content[:4] + content[-8:])
    (tmp_path / "text.parquet").write_text("name,size\n")
    (tmp_path / "empty.parquet").touch()
    assert "There is no dataset file at" in refused(tmp_path / "gone.parquet")
    assert "cut off" in refused(tmp_path / "cut.parquet")
    assert "cannot be read as Parquet" in refused(tmp_path / "hollow.parquet")
    assert "is not a Parquet file" in refused(tmp_path / "text.parquet")
    assert "is not a Parquet file" in refused(tmp_path / "empty.parquet")
    (tmp_path / "bare").mkdir()
    assert "is a folder without samples" in refused(tmp_path / "bare")
    assert "Did you mean 'emoji'?" in refused("emojis")
    assert "a URI that pyarrow knows" in refused("nosuch://bucket/data.parquet")


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    with pytest.raises(DataError, match="several columns of one name"):
        open_dataset(DatasetEntry(source=str(path)), seed=0)


# --- bad samples ----------------------------------------------------------------------------------


def broken(tmp_path: Path) -> Dataset:
    """Return eight samples of which one is good."""
    (tmp_path / "ok.png").write_bytes(png())
    (tmp_path / "folder.png").mkdir()
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "PNG")
    table = pa.table(
        {
            "text": ["fine", None, "", " \n", "ok", "ok", "ok", "ok"],
            "image": [png(), png(), png(), png(), b"", out.getvalue()[:900], b"GIF?", None],
            "file": ["ok.png", "ok.png", "ok.png", "gone.png", "ok.png", "folder.png", "", "ok.png"],
        }
    )
    views = {"file": ViewEntry(column="file", kind="image")}
    return dataset_of(table, "data.parquet", views=views, folder=tmp_path)


def test_every_bad_sample_is_found_with_its_reason(tmp_path: Path) -> None:
    reasons = {(p.row, p.view): p.reason for p in broken(tmp_path).problems(["text", "image", "file"])}
    expected = {
        (1, "text"): "missing (null)",
        (2, "text"): "empty text",
        (3, "text"): "blank text (only white space)",
        (3, "file"): f"image file {tmp_path / 'gone.png'} does not exist",
        (4, "image"): "empty image (0 bytes)",
        (5, "image"): "unreadable image",
        (5, "file"): f"image file {tmp_path / 'folder.png'} cannot be read",
        (6, "image"): "not an image in a format that Pillow reads",
        (6, "file"): "empty path of an image file",
        (7, "image"): "missing (null)",
    }
    assert list(reasons) == list(expected)
    assert all(reasons[at].startswith(reason) for at, reason in expected.items())


def test_a_file_names_items_by_sample_and_those_of_an_expanded_view_by_row() -> None:
    table = pa.table({"id": ["a#b", "c"], "text": [["x", "y"], ["z"]], "other": ["one", "two"]})
    views = {"text": ViewEntry(column="text", kind="text", items="expand")}
    dataset = dataset_of(table, "d", views=views)
    assert dataset.names("text") == ("a#b", "c")
    expanded = dataset.expanded("text")
    assert expanded.names("text") == ("a#b#0", "a#b#1", "c#0")
    assert expanded.names("other") == ("a#b", "a#b", "c")


def test_files_are_decoded_side_by_side_and_problems_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [b"broken" if row % 7 == 3 else png() for row in range(48)]
    texts = ["" if row == 17 else "a" for row in range(48)]
    dataset = dataset_of(pa.table({"image": images, "text": texts}), "d")
    expected = [(row, "image") for row in range(3, 48, 7)]
    expected.insert(expected.index((17, "image")), (17, "text"))
    monkeypatch.setattr(base, "cores", lambda: 2)
    both, fault_of = threading.Barrier(2), base.fault_of

    def fault_of_two_at_a_time(item: object, kind: Kind) -> str:
        if kind == "image":
            both.wait(120)  # breaks unless another thread decodes meanwhile
        return fault_of(item, kind)

    monkeypatch.setattr(base, "fault_of", fault_of_two_at_a_time)
    assert [(problem.row, problem.view) for problem in dataset.problems(["text", "image"])] == expected


def test_reading_a_missing_item_names_row_id_and_view(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.parquet: row 1 \(id 1\), text: missing \(null\)\."):
        broken(tmp_path).read("text")


def test_bad_samples_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        check_samples(broken(tmp_path), ["text"], "refuse")
    message = str(raised.value)
    assert message.startswith("3 of 8 samples of data.parquet cannot be used")
    assert "row 2 (id 2), text: empty text" in message
    assert 'on_bad_sample = "drop"' in message


def test_twenty_problems_are_listed_and_the_others_counted() -> None:
    dataset = dataset_of(pa.table({"text": ["good", *[""] * 30]}), "d")
    with pytest.raises(DataError) as raised:
        check_samples(dataset, ["text"])
    assert str(raised.value).count("empty text") == 20
    assert "and 10 more" in str(raised.value)


def test_dropping_removes_bad_samples_from_every_view_and_tells_which(tmp_path: Path) -> None:
    dataset, dropped = check_samples(broken(tmp_path), ["text", "image"], "drop")
    assert [problem.row for problem in dropped] == [1, 2, 3, 4, 5, 6, 7]
    assert (dataset.ids, dataset.read("text"), dataset.read("file")) == (("0",), ["fine"], [png()])
    assert check_samples(dataset, ["text", "image", "file"]) == (dataset, [])


def test_only_the_views_that_are_read_are_checked(tmp_path: Path) -> None:
    dropped = check_samples(broken(tmp_path), ["text"], "drop")[1]
    assert {(problem.row, problem.view) for problem in dropped} == {(1, "text"), (2, "text"), (3, "text")}


def test_dropping_everything_is_refused() -> None:
    with pytest.raises(DataError, match="none is left"):
        check_samples(dataset_of(pa.table({"text": ["", " "]}), "d"), ["text"], "drop")


def test_strings_and_integers_label_the_samples_and_follow_them() -> None:
    table = pa.table(
        {"text": ["a", "b", "c"], "family": [2, 1, 2], "weight": [0.1, 0.2, 0.3], "id": [5, 6, 7]}
    )
    dataset = dataset_of(table, "made")
    assert dict(dataset.views) == {"text": "text"}
    taken = dataset.take([2, 1])
    assert (taken.labels("family"), taken.labels("text")) == ([2, 1], ["c", "b"])
    assert dataset.fingerprint() == dataset_of(table.drop(["family"]), "made").fingerprint()
    for unusable in ("weight", "id", "familie"):
        with pytest.raises(StudyError, match=f"no column of labels '{unusable}'.*: text, family"):
            dataset.labels(unusable)
    with pytest.raises(DataError, match=r"row 1 \(id 1\) has no label in 'family'"):
        dataset_of(pa.table({"text": ["a", "b"], "family": [1, None]}), "made").labels("family")
