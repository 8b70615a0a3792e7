"""A node is lost in mid-run, with its actors, tasks and objects: the run goes on and loses no byte."""

import threading
import time

import pytest
import ray
from processes import PATIENCE_S, start_cluster
from support import changed, committed, events_of, score_bytes

import platonic_ray as pr

pytestmark = [pytest.mark.chaos, pytest.mark.cluster]

# A node that is gone refuses the connection at once; one that is slow to answer is a busy machine's.
FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 20_000,
    "health_check_failure_threshold": 2,
}


@pytest.mark.parametrize("after", [12, pytest.param(34, marks=pytest.mark.slow)])
def test_a_node_is_lost_with_its_objects(light_study, tmp_path, after, light_undisturbed):
    cluster = start_cluster(1, 1, _system_config=FAST_HEALTH_CHECKS)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    study = changed(light_study, engine="ray", store=str(tmp_path / "lost"))

    def lose_a_node():
        while len(committed(study, "features")) < after:
            time.sleep(0.02)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    killer = threading.Thread(target=lose_a_node, daemon=True)
    killer.start()
    try:
        result = pr.align(study, quiet=True)
        killer.join(PATIENCE_S)
        assert not killer.is_alive()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert score_bytes(result) == light_undisturbed
    assert len(committed(study, "features")) == 40
    lost = [event for event in events_of(study) if event["event"] == "lost"]
    assert lost, "the node took nothing with it: the test proved nothing"
