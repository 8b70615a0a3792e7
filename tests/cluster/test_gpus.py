"""Where a cluster has GPUs, each model is pinned to its own. (Imagined ones: Ray isolates them alike.)"""

import pytest
import ray
from support import changed, events_of

import platonic_ray as pr

pytestmark = pytest.mark.cluster


def test_models_are_pinned_to_the_gpus_they_are_given(small_study, tmp_path):
    """One machine, two imagined GPUs: each replica sees one of them, and one alone."""
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        study = changed(small_study, engine="ray", store=str(tmp_path / "ray"))
        pr.align(study, quiet=True)
        loaded = [event for event in events_of(study) if event["event"] == "model_loaded"]
        assert {event["gpus"] for event in loaded} <= {"0", "1"}
        assert len({event["gpus"] for event in loaded}) == 2
    finally:
        ray.shutdown()
