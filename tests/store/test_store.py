"""The store: an artifact is whole or not there, and what is read is what was written."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from processes import PATIENCE_S

from platonic_ray.errors import StoreError
from platonic_ray.store import (
    CorruptArtifactError,
    Store,
    arrays_table,
    feature_array,
    feature_table,
    table_arrays,
)

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def features(seed=0, n=5, width=3):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def test_what_is_written_is_read_back_bit_for_bit(store):
    rows = features()
    store.put("features", KEY, {"layer.0000": feature_table(rows)}, {"rows": 5})
    manifest = store.manifest("features", KEY)
    assert manifest.meta == {"rows": 5}
    np.testing.assert_array_equal(feature_array(store.read(manifest, "layer.0000")), rows)


def test_an_artifact_does_not_exist_before_it_is_committed(store):
    draft = store.draft("features", KEY)
    draft.add("layer.0000", feature_table(features()))
    assert store.manifest("features", KEY) is None
    draft.commit()
    assert store.manifest("features", KEY) is not None


def test_a_flipped_byte_is_found(store, tmp_path):
    store.put("features", KEY, {"layer.0000": feature_table(features())})
    (path,) = tmp_path.rglob("*.arrow")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError, match="damaged"):
        store.read(store.manifest("features", KEY), "layer.0000")


def test_a_missing_part_is_found(store, tmp_path):
    store.put("features", KEY, {"layer.0000": feature_table(features())})
    next(tmp_path.rglob("*.arrow")).unlink()
    with pytest.raises(CorruptArtifactError, match="missing"):
        store.read(store.manifest("features", KEY), "layer.0000")


def test_a_manifest_cannot_point_out_of_its_folder(store, tmp_path):
    store.put("features", KEY, {"layer.0000": feature_table(features())})
    (path,) = tmp_path.rglob("manifest.json")
    body = json.loads(path.read_text())
    body["parts"]["layer.0000"]["file"] = "../../../../../etc/passwd"
    path.write_text(json.dumps(body))
    manifest = store.manifest("features", KEY)
    np.testing.assert_array_equal(feature_array(store.read(manifest, "layer.0000")), features())


def test_a_damaged_manifest_counts_as_no_artifact(store, tmp_path):
    store.put("features", KEY, {"layer.0000": feature_table(features())})
    next(tmp_path.rglob("manifest.json")).write_text('{"parts": ')
    assert store.manifest("features", KEY) is None


@pytest.mark.parametrize(
    ("name", "sha256"), [("../../../../x", "0" * 64), ("layer.0000", "../../../../../x" + "0" * 48)]
)
def test_a_manifest_whose_names_lead_elsewhere_counts_as_no_artifact(store, tmp_path, name, sha256):
    store.put("features", KEY, {"layer.0000": feature_table(features())})
    (path,) = tmp_path.rglob("manifest.json")
    body = json.loads(path.read_text())
    body["parts"] = {name: {"file": "x", "sha256": sha256, "size_bytes": 1}}
    path.write_text(json.dumps(body))
    assert store.manifest("features", KEY) is None


@pytest.mark.parametrize("version", [2, "2", 1.5, None, [1]])
def test_a_manifest_of_another_version_is_refused_and_kept(store, tmp_path, version):
    store.put("features", KEY, {"layer.0000": feature_table(features())})
    (path,) = tmp_path.rglob("manifest.json")
    newer = json.dumps({"format": version, "something": "else"})
    path.write_text(newer)
    with pytest.raises(StoreError, match="another version of platonic_ray"):
        store.manifest("features", KEY)
    assert path.read_text() == newer


def test_what_a_killed_writer_leaves_is_removed_when_it_is_a_day_old(tmp_path):
    killed = textwrap.dedent(
        """
        import os, sys
        from platonic_ray.store import Store

        store = Store.open(sys.argv[1])
        store.append_events("run", 0, ["{}"])
        os.fsync = lambda file: os.kill(os.getpid(), 9)
        store.append_events("run", 1, ["{}"])
        """
    )

    def left():
        """Kill a writer in the midst of a file; return what it leaves."""
        before = set(tmp_path.rglob(".*.tmp"))
        assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False).returncode == -9
        (path,) = {*tmp_path.rglob(".*.tmp")} - before
        return path

    def age(path, hours):
        os.utime(path, (time.time() - hours * 3600,) * 2)

    old, young = left(), left()
    age(old, 25)
    Store.open(str(tmp_path))
    assert old.exists()  # it was swept when the second writer opened it
    age(tmp_path / ".swept", 25)
    store = Store.open(str(tmp_path))
    assert not old.exists()
    assert young.exists()
    assert store.events("run") == [{}]


def test_a_filesystem_that_is_no_object_store_is_written_by_renaming():
    store = Store.open("mock:///store")
    store.put("features", KEY, {"layer.0000": feature_table(features())})
    np.testing.assert_array_equal(
        feature_array(store.read(store.manifest("features", KEY), "layer.0000")), features()
    )
    assert store.keys("features") == [KEY]


def test_two_writers_of_one_key_leave_one_whole_artifact(store):
    for seed in (0, 1):
        store.put("features", KEY, {"layer.0000": feature_table(features(seed))})
    manifest = store.manifest("features", KEY)
    np.testing.assert_array_equal(feature_array(store.read(manifest, "layer.0000")), features(1))


def test_a_discarded_artifact_is_gone(store):
    store.put("features", KEY, {})
    store.discard("features", KEY)
    store.discard("features", KEY)
    assert store.manifest("features", KEY) is None


def test_a_store_of_another_format_is_refused(tmp_path):
    Store.open(str(tmp_path))
    (tmp_path / "platonic-ray.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="format 99"):
        Store.open(str(tmp_path))


def test_a_folder_of_other_things_is_not_taken_for_a_store(tmp_path):
    (tmp_path / "thesis.tex").write_text("hello")
    with pytest.raises(StoreError, match="not empty"):
        Store.open(str(tmp_path))


def test_a_store_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Choose a store"):
        Store.open(str(tmp_path / "file" / "store"))


def test_an_unknown_scheme_is_one_clear_error():
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open("gopher://somewhere/store")


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_there(tmp_path):
    """A real full file system: a tmpfs of 256 KiB, in a mount namespace of its own."""
    script = textwrap.dedent(
        """
        import numpy as np, sys
        from platonic_ray.errors import StoreError
        from platonic_ray.store import Store, feature_array, feature_table
        store = Store.open(sys.argv[1])
        small = np.ones((10, 10), np.float32)
        store.put("features", "a" * 64, {"layer.0000": feature_table(small)})
        try:
            store.put("features", "b" * 64, {"layer.0000": feature_table(np.ones((1000, 1000), np.float32))})
        except StoreError as error:
            print(error)
        assert store.manifest("features", "b" * 64) is None
        assert (feature_array(store.read(store.manifest("features", "a" * 64), "layer.0000")) == small).all()
        """
    )
    folder = tmp_path / "small"
    folder.mkdir()
    command = f'mount -t tmpfs -o size=256k tmpfs "{folder}" && exec "{sys.executable}" -c "$SCRIPT" "{folder}/store"'
    ran = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", command],
        env={**os.environ, "SCRIPT": script},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"no mount namespace here: {ran.stderr.strip()[:80]}")
    assert ran.returncode == 0, ran.stderr
    assert "No space left" in ran.stdout
    assert "Free some space" in ran.stdout


@pytest.mark.chaos
def test_a_reader_never_sees_a_half_written_artifact_while_writers_are_killed(tmp_path):
    Store.open(str(tmp_path / "store"))
    writer = textwrap.dedent(
        """
        import sys, numpy as np
        from platonic_ray.store import Store, feature_table
        store, seed = Store(sys.argv[1]), int(sys.argv[2])
        print("ready", flush=True)
        while True:
            seed += 1
            rows = np.full((200, 200), seed, np.float32)
            store.put("features", "ab" * 32, {f"layer.{i:04d}": feature_table(rows) for i in range(3)}, {"seed": seed})
        """
    )
    reader = Store(str(tmp_path / "store"))
    seen = set()
    for turn, delay in enumerate((0.05, 0.1, 0.2, 0.3)):
        process = subprocess.Popen(
            [sys.executable, "-c", writer, str(tmp_path / "store"), str(turn * 10**6)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        # However busy the machine: a writer has written before it is killed, at some moment of its work.
        before, end = len(seen), time.monotonic() + PATIENCE_S
        until = None
        while until is None or time.monotonic() < until:
            assert time.monotonic() < end
            manifest = reader.manifest("features", KEY)
            if manifest is not None:
                for part in manifest.parts:
                    values = feature_array(reader.read(manifest, part))
                    assert (values == manifest.meta["seed"]).all()
                seen.add(manifest.meta["seed"])
            if until is None and len(seen) > before:
                until = time.monotonic() + delay
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert len(seen) > 3


def test_events_come_back_in_order(store):
    store.append_events("run", 0, ['{"event": "a"}'])
    store.append_events("run", 1, ['{"event": "b"}', '{"event": "c"}'])
    assert [event["event"] for event in store.events("run")] == ["a", "b", "c"]
    assert store.runs() == ["run"]


@pytest.mark.parametrize(
    ("kind", "key"), [("../etc", KEY), ("features", "../" * 21 + "x"), ("features", "AB" * 32)]
)
def test_an_address_that_is_none_is_refused(store, kind, key):
    with pytest.raises(ValueError, match="address"):
        store.manifest(kind, key)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    )
)
def test_named_arrays_of_any_shape_come_back_with_the_same_bits(array):
    found = table_arrays(arrays_table({"a": array, "b": array}))
    for name in ("a", "b"):
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_an_array_of_objects_is_never_read():
    table = arrays_table({"a": np.zeros(2)})
    forged = table.set_column(1, "dtype", [["|O"]])
    with pytest.raises(StoreError, match="plain numbers"):
        table_arrays(forged)


def test_a_store_can_be_sent_to_another_process(store):
    store.put("features", KEY, {})
    assert pickle.loads(pickle.dumps(store)).manifest("features", KEY) is not None


def test_no_temporary_file_is_left(store, tmp_path):
    store.put("features", KEY, {"layer.0000": feature_table(features())})
    assert not list(Path(tmp_path).rglob("*.tmp"))


def test_runs_that_start_together_on_a_new_folder_share_the_store(tmp_path):
    """Six at once, thirty new folders: none is told that the store of the others is no store."""
    with ThreadPoolExecutor(6) as pool:
        for attempt in range(30):
            opened = [pool.submit(Store.open, str(tmp_path / str(attempt))) for _ in range(6)]
            assert {future.result().uri for future in opened} == {str(tmp_path / str(attempt))}


def test_a_store_named_by_a_relative_path_is_the_same_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store.open("store")
    store.put("features", KEY, {})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickle.dumps(store)).manifest("features", KEY) is not None


def test_a_store_without_a_name_is_refused():
    with pytest.raises(StoreError, match="empty name"):
        Store.open("")
