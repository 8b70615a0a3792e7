"""The store on an object store: the same promises over a network that fails."""

import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import ray
from processes import PATIENCE_S
from pyarrow import fs
from support import changed, committed, events_of, score_bytes

import platonic_ray as pr
from platonic_ray.errors import StoreError
from platonic_ray.store import CorruptArtifactError, Store, feature_array, feature_table
from platonic_ray.store.files import open_filesystem

KEY = "ab" * 32


def rows(n=50, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 40)).astype(np.float32)


def read(store, key=KEY):
    return feature_array(store.read(store.manifest("features", key), "layer.0000"))


def test_what_is_written_is_read_back_and_no_folder_is_marked(object_store):
    uri = object_store.new_uri()
    store = Store.open(uri)
    assert store.manifest("features", KEY) is None
    store.put("features", KEY, {"layer.0000": feature_table(rows())}, {"rows": 50})
    store.append_events("run", 0, ['{"event": "a"}'])
    again = Store.open(uri)
    np.testing.assert_array_equal(read(again), rows())
    assert again.keys("features") == [KEY]
    assert again.runs() == ["run"]
    assert [event["event"] for event in again.events("run")] == ["a"]
    folders = [info for info in object_store.objects(uri).values() if info.type == fs.FileType.File]
    assert all(info.size > 0 for info in folders)
    again.discard("features", KEY)
    assert again.manifest("features", KEY) is None


def test_an_upload_of_many_parts_is_whole_or_not_there_for_a_reader_while_writers_are_killed(object_store):
    uri = object_store.new_uri()
    Store.open(uri)
    writer = textwrap.dedent(
        """
        import sys, numpy as np
        from platonic_ray.store import Store, feature_table
        store, seed = Store(sys.argv[1]), int(sys.argv[2])
        print("ready", flush=True)
        while True:
            seed += 1
            table = feature_table(np.full((1000, 3000), seed, np.float32))
            store.put("features", "ab" * 32, {"layer.0000": table}, {"seed": seed})
        """
    )
    reader = Store(uri)
    seen = set()
    for life in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", writer, uri, str(100 * life)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        known = len(seen)
        until = time.monotonic() + PATIENCE_S
        while len(seen) == known and time.monotonic() < until:
            manifest = reader.manifest("features", KEY)
            if manifest is not None:
                assert (feature_array(reader.read(manifest, "layer.0000")) == manifest.meta["seed"]).all()
                seen.add(manifest.meta["seed"])
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert len(seen) == 2


@pytest.mark.parametrize("fault", ["500", "503", "reset", "truncate"])
def test_a_bad_moment_passes(object_store, faulty_proxy, fault):
    store = Store.open(object_store.new_uri(through=faulty_proxy))
    if fault != "truncate":  # an upload's answer has no body
        faulty_proxy.once(fault, "PUT", "layer.0000")
    store.put("features", KEY, {"layer.0000": feature_table(rows())})
    faulty_proxy.once(fault, "GET", "layer.0000")
    np.testing.assert_array_equal(read(store), rows())
    assert faulty_proxy.injected == [fault] * (1 if fault == "truncate" else 2)


@pytest.mark.slow
def test_a_server_that_does_not_answer_for_seconds_is_asked_again(object_store, faulty_proxy):
    store = Store.open(object_store.new_uri(through=faulty_proxy))
    store.put("features", KEY, {"layer.0000": feature_table(rows())})
    faulty_proxy.once("hang", "GET", "layer.0000")
    np.testing.assert_array_equal(read(store), rows())
    assert faulty_proxy.injected == ["hang"]


def test_content_that_is_damaged_on_its_way_is_read_again(object_store, faulty_proxy):
    store = Store.open(object_store.new_uri(through=faulty_proxy))
    store.put("features", KEY, {"layer.0000": feature_table(rows())})
    faulty_proxy.once("flip", "GET", "layer.0000")
    np.testing.assert_array_equal(read(store), rows())
    assert faulty_proxy.injected == ["flip"]


def test_a_store_that_stays_away_is_given_up_in_bounded_time(object_store, faulty_proxy, monkeypatch):
    monkeypatch.setenv("PLATONIC_RAY_STORE_PATIENCE_S", "3")
    store = Store.open(object_store.new_uri(through=faulty_proxy))
    faulty_proxy.fault = lambda method, path: "503"
    start = time.monotonic()
    with pytest.raises(StoreError, match="run again to resume"):
        store.put("features", KEY, {"layer.0000": feature_table(rows())})
    assert time.monotonic() - start < 50  # of the minute that it is patient where nothing is said
    assert len(faulty_proxy.injected) < 60


def test_a_refusal_is_not_repeated_and_says_what_is_needed(object_store, faulty_proxy):
    store = Store.open(object_store.new_uri(through=faulty_proxy))
    faulty_proxy.fault = lambda method, path: "403"
    with pytest.raises(StoreError, match="credentials of this process may not do it") as caught:
        store.put("features", KEY, {"layer.0000": feature_table(rows())})
    assert len(faulty_proxy.injected) == 1
    assert "planted-secret" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_one_clear_error(object_store):
    with pytest.raises(StoreError, match="no such bucket"):
        Store.open("s3://no-bucket-of-ours/store")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIAXX:sEcReT@bucket/store",
        "gs://user:sEcReT@bucket/store",
        "abfs://container:sEcReT@account.dfs.core.windows.net/store",
        "abfss://:sEcReT@account.dfs.core.windows.net/container/store",
        "abfs://container@account.dfs.core.windows.net/store?client_secret=sEcReT",
        "abfs://container@account.dfs.core.windows.net/store?sv=2024&sig=sEcReT",
        "s3://bucket/store?secret_key=sEcReT",
        "s3://bucket/store?region=eu-west-1&access_key=sEcReT",
        "gs://bucket/store?access_token=sEcReT",
    ],
)
def test_a_uri_with_credentials_is_refused_and_not_repeated(uri):
    with pytest.raises(StoreError, match="holds credentials") as caught:
        Store.open(uri)
    assert "sEcReT" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3://bucket/store?regoin=sEcReT",
        "gs://bucket/store?nothing=sEcReT",
        "gopher://bucket/store?nothing=sEcReT",
        "abfs://container@account.dfs.core.windows.net/store?nothing=sEcReT",
    ],
)
def test_a_uri_that_cannot_be_is_one_clear_error_without_the_values_of_its_options(uri):
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        Store.open(uri)
    assert "sEcReT" not in str(caught.value)


def test_azures_own_form_of_a_uri_names_a_container_and_no_credentials():
    filesystem, path = open_filesystem("abfs://container@account.dfs.core.windows.net/a/store")
    assert (filesystem.type_name, path) == ("abfs", "container/a/store")


def test_the_segments_of_a_long_log_are_read_several_at_a_time(object_store, faulty_proxy):
    store = Store.open(object_store.new_uri(through=faulty_proxy))
    for segment in range(4):
        store.append_events("run", segment, [f'{{"event": "{segment}"}}'])
    asked, two, alone = set(), threading.Event(), []

    def wait_for_another(method, path):
        if method == "GET" and "events-" in path:
            asked.add(path.partition("?")[0])
            if len(asked) > 1:
                two.set()
            if not two.wait(120):
                alone.append(path)

    faulty_proxy.fault = wait_for_another
    assert [event["event"] for event in store.events("run")] == ["0", "1", "2", "3"]
    assert not alone


def test_a_flipped_byte_in_the_bucket_is_found_and_made_again(object_store, tiny_study, tiny_undisturbed):
    study = changed(tiny_study, store=object_store.new_uri())
    assert score_bytes(pr.align(study, quiet=True)) == tiny_undisturbed
    store = Store(study.run.store)
    shard = committed(study, "features").pop()
    manifest = store.manifest("features", shard)
    part = next(iter(manifest.parts))
    folder = store.folder("features", shard)
    object_store.flip(f"{folder}/{manifest.parts[part].file}")
    with pytest.raises(CorruptArtifactError, match="damaged"):
        store.read(manifest, part)
    for kind in ("results", "scores", "neighbors", "kernels"):
        for key in store.keys(kind):
            store.discard(kind, key)
    assert score_bytes(pr.align(study, quiet=True)) == tiny_undisturbed
    assert sum(event["event"] == "shard" for event in events_of(study)) == 1


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_study_runs_on_a_bucket_that_fails_now_and_then(
    object_store, faulty_proxy, tiny_study, tiny_undisturbed, engine
):
    requests = itertools.count(1)
    faulty_proxy.fault = lambda method, path: "503" if next(requests) % 10 == 0 else None
    study = changed(tiny_study, engine=engine, store=object_store.new_uri(through=faulty_proxy))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert score_bytes(pr.align(study, quiet=True)) == tiny_undisturbed
    finally:
        ray.shutdown()
    assert signal.getsignal(signal.SIGTERM) is handler  # Ray has its own, and a run has
    assert len(faulty_proxy.injected) >= 5
    assert not any(event["event"] == "lost" for event in events_of(study))
