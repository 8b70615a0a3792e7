"""Fixtures of many tests: samples, a tiny model on disk, and a small study of both."""

from pathlib import Path

import pytest
from hypothesis import settings
from support import make_small_study, write_samples, write_tiny_bert

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
