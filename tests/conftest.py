"""Fixtures of many tests: samples, a tiny model on disk, and a small study of both."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from object_store import FaultyProxy, ObjectStore
from support import make_small_study, make_tiny_study, score_bytes, write_samples, write_tiny_bert

import platonic_ray as pr
from platonic_ray.study import Study

# A machine that is busy with other work makes no test fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Clusters of the tests keep idle workers, as a run's own Ray does: to start one takes seconds of CPU.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")


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
def tiny_study(samples, tmp_path) -> Study:
    """A study of a second, to be run in this process into a store of its own."""
    return make_tiny_study(samples, engine="local", store=str(tmp_path / "store"))


@pytest.fixture(scope="session")
def tiny_undisturbed(samples, tmp_path_factory) -> bytes:
    """The bytes of the tiny study's scores, from a run in this process that nothing disturbs."""
    store = str(tmp_path_factory.mktemp("undisturbed") / "store")
    return score_bytes(pr.align(make_tiny_study(samples, engine="local", store=store), quiet=True))


@pytest.fixture(scope="session")
def undisturbed(samples, tiny_bert, tmp_path_factory) -> bytes:
    """The bytes of the small study's scores, from a run in this process that nothing disturbs."""
    store = str(tmp_path_factory.mktemp("undisturbed") / "store")
    return score_bytes(
        pr.align(make_small_study(samples, tiny_bert, engine="local", store=store), quiet=True)
    )


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
