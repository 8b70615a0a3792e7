"""One cluster for the tests of this folder that need no other."""

import os
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster


@pytest.fixture(scope="package")
def two_nodes():
    """Three raylets: a head that runs no tasks and two workers of one core, which find `tests` too."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), before)))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 200 * 2**20},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=200 * 2**20)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def cluster(two_nodes):
    """That cluster, with this process as a driver of it."""
    ray.init(address=two_nodes.address, log_to_driver=False, logging_level="ERROR")
    yield two_nodes
    ray.shutdown()
