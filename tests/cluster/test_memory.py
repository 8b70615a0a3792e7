"""A node runs out of memory: Ray kills a process, and the run goes on in smaller pieces."""

from pathlib import Path

import pytest
import ray
from ray._private.utils import get_system_memory, get_used_memory
from support import events_of

import platonic_ray as pr

from .test_losses import lost, study_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def little_memory(monkeypatch):
    """A Ray that kills the largest process when 6 GiB more are in use than now."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    threshold = (get_used_memory() + 6 * 2**30) / get_system_memory()
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _system_config={"memory_usage_threshold": threshold, "memory_monitor_refresh_ms": 100},
    )
    yield
    ray.shutdown()


def test_a_model_that_is_killed_for_its_memory_is_run_in_smaller_batches(little_memory, tmp_path):
    study = study_of(tmp_path / "s", [("text0", 3, "hoard 8")])
    result = pr.align(study, quiet=True)
    assert [(event["what"], event["loss"]) for event in lost(study)] == [("embed[text0, 0]", "memory")] * 2
    (note,) = [note for note in result.provenance["notes"] if "smaller batches" in note]
    assert note.startswith("text0:")
    assert events_of(study)[-1]["summary"]["losses"] == {"memory": 2}
