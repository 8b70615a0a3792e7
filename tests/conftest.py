"""Fixtures of many tests: samples, a tiny model on disk, and a small study of both."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from object_store import FaultyProxy, ObjectStore
from support import (
    make_light_study,
    make_small_study,
    make_tiny_study,
    score_bytes,
    write_samples,
    write_tiny_bert,
)

import platonic_ray as pr
from platonic_ray.engine.follow import fetch_result
from platonic_ray.store import Store
from platonic_ray.study import Study

# A machine that is busy with other work makes no test fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Clusters of the tests keep idle workers, as a run's own Ray does: to start one takes seconds of CPU. What Ray gives
# its own processes to begin in is meant for machines that do nothing else.
for name, value in {
    "idle_worker_killing_time_threshold_ms": "60000",
    "agent_register_timeout_ms": "180000",
    "worker_register_timeout_seconds": "180",
    "raylet_start_wait_time_s": "180",
    "gcs_server_port_wait_time_s": "180",
}.items():
    os.environ.setdefault(f"RAY_{name}", value)


# Folders whose tests share clusters: each folder is for one worker, of the two that there are.
TOGETHER = ("tests/chaos/", "tests/cluster/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests on one worker, for its fixtures, and a folder's that start Ray, for the cores.

    By paths: what xdist 3.8 does by groups, pytest 9.2 no longer lets it do, and neither says so.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return next((folder for folder in TOGETHER if path.startswith(folder)), path)

    return ByFile(config, log)


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> Path:
    return write_samples(tmp_path_factory.mktemp("data") / "samples.parquet")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def small_study(samples, tiny_bert, tmp_path) -> Study:
    """The small study, to be run in this process into a store of its own."""
    return make_small_study(samples, tiny_bert, engine="local", store=str(tmp_path / "store"))


@pytest.fixture
def finished_study(finished_store, small_study) -> Study:
    """The small study, in a store of its own that has all of it: for tests of what comes after that."""
    shutil.copytree(finished_store, str(small_study.run.store))
    return small_study


@pytest.fixture
def light_study(samples, tmp_path) -> Study:
    """The light study, to be run in this process into a store of its own."""
    return make_light_study(samples, engine="local", store=str(tmp_path / "store"))


@pytest.fixture
def tiny_study(samples, tmp_path) -> Study:
    """A study of a second, to be run in this process into a store of its own."""
    return make_tiny_study(samples, engine="local", store=str(tmp_path / "store"))


@pytest.fixture(scope="session")
def tiny_undisturbed(samples, tmp_path_factory) -> bytes:
    """The bytes of the tiny study's scores, from a run in this process that nothing disturbs."""
    store = str(tmp_path_factory.mktemp("undisturbed") / "store")
    return score_bytes(pr.align(make_tiny_study(samples, engine="local", store=store), quiet=True))


@pytest.fixture(scope="session")
def light_undisturbed(samples, tmp_path_factory) -> bytes:
    """The bytes of the light study's scores, from a run in this process that nothing disturbs."""
    store = str(tmp_path_factory.mktemp("undisturbed") / "store")
    return score_bytes(pr.align(make_light_study(samples, engine="local", store=store), quiet=True))


@pytest.fixture(scope="session")
def finished_store(samples, tiny_bert, tmp_path_factory) -> str:
    """The store of a run of the small study in this process, which nothing disturbs; nobody writes to it."""
    store = str(tmp_path_factory.mktemp("undisturbed") / "store")
    pr.align(make_small_study(samples, tiny_bert, engine="local", store=store), quiet=True)
    return store


@pytest.fixture(scope="session")
def undisturbed(finished_store) -> bytes:
    """The bytes of the scores of that run."""
    return score_bytes(fetch_result(Store(finished_store)))


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server of this session; its endpoint and credentials are in the environment."""
    server = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
    server.close()


@pytest.fixture
def faulty_proxy(object_store) -> Iterator[FaultyProxy]:
    """A proxy in front of the S3 server, whose requests can be made to fail."""
    proxy = FaultyProxy(object_store.port)
    yield proxy
    proxy.close()
