"""Machines that never come are waited for as long as the study says, and no longer."""

import time

import pytest
import ray
from ray.cluster_utils import Cluster
from support import changed

import platonic_ray as pr

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no task, and one node with a core."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20},
    )
    cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_gpus_that_never_come_are_waited_for_as_long_as_was_said(cluster, tiny_study, tmp_path, capsys):
    study = changed(tiny_study, engine="ray", store=str(tmp_path / "s"), device="gpu", wait_s=7)
    start = time.monotonic()
    with pytest.raises(pr.PlatonicRayError, match=r"No node with 1 GPUs .* came within 7 s"):
        pr.align(study)
    assert time.monotonic() - start < 60
    assert "Waiting for a node with 1 GPUs" in capsys.readouterr().err
