"""A node is lost in mid-run, with its actors, tasks and objects: the run goes on and loses no byte."""

import threading
import time

import pytest
import ray
from ray.cluster_utils import Cluster
from support import changed, committed, events_of, score_bytes

import platonic_ray as pr

pytestmark = [pytest.mark.chaos, pytest.mark.cluster]

FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 2,
}


@pytest.mark.parametrize("after", [12, pytest.param(34, marks=pytest.mark.slow)])
def test_a_node_is_lost_with_its_objects(small_study, tmp_path, after, undisturbed):
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": 200 * 2**20,
            "_system_config": FAST_HEALTH_CHECKS,
        },
    )
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=200 * 2**20) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    study = changed(small_study, engine="ray", store=str(tmp_path / "lost"))

    def lose_a_node():
        while len(committed(study, "features")) < after:
            time.sleep(0.02)
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=lose_a_node, daemon=True)
    killer.start()
    try:
        result = pr.align(study, quiet=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
    killer.join(10)
    assert not killer.is_alive()
    assert score_bytes(result) == undisturbed
    assert len(committed(study, "features")) == 40
    lost = [event for event in events_of(study) if event["event"] == "lost"]
    assert lost, "the node took nothing with it: the test proved nothing"
