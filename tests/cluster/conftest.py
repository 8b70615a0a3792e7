"""One cluster for the tests of this folder that need no other."""

import pytest
import ray
from processes import start_cluster

from platonic_ray.engine import attempts, replica
from platonic_ray.plan import calls as plan_calls


@pytest.fixture(scope="package")
def two_nodes():
    """Three raylets: a head that runs no tasks and two workers of one core."""
    cluster = start_cluster(1, 1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(two_nodes):
    """That cluster, with this process as a driver of it."""
    ray.init(address=two_nodes.address, log_to_driver=False, logging_level="ERROR")
    yield two_nodes
    ray.shutdown()


@pytest.fixture(scope="package", autouse=True)
def nothing_is_late():
    """Where a machine is busy, all that it does takes long: what is begun again is for the test of that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "STRAGGLER_S", 3600.0)
        yield


@pytest.fixture
def calls(monkeypatch):
    """The calls of a run's model actors, each a model and its shards: several, however long they take here."""
    begun, begin = [], replica.Replica.begin

    def noted(self, tasks):
        begun.append((self.model, [task.shard for task in tasks]))
        begin(self, tasks)

    monkeypatch.setattr(replica.Replica, "begin", noted)
    for module in (plan_calls, replica):
        monkeypatch.setattr(module, "CALL_S", 60.0)
    return begun
