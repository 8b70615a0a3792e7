"""Fixtures of many tests: samples, a tiny model on disk, and a small study of both."""

from pathlib import Path

import pytest
from hypothesis import settings
from support import make_small_study, score_bytes, write_samples, write_tiny_bert

import platonic_ray as pr
from platonic_ray.study import Study

# A machine that is busy with other work makes no test fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


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


@pytest.fixture(scope="session")
def undisturbed(samples, tiny_bert, tmp_path_factory) -> bytes:
    """The bytes of the small study's scores, from a run in this process that nothing disturbs."""
    store = str(tmp_path_factory.mktemp("undisturbed") / "store")
    return score_bytes(
        pr.align(make_small_study(samples, tiny_bert, engine="local", store=store), quiet=True)
    )
