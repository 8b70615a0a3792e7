"""A node with a file system of its own: what it does not see is refused before any work."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from processes import PATIENCE_S, end, start_cluster
from support import changed

import platonic_ray as pr
from platonic_ray.engine.run import read_result
from platonic_ray.store import Store

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A folder that the driver has; the one other node of the cluster has an empty one in its place."""
    folder = tmp_path_factory.mktemp("private")
    cluster = start_cluster()
    start = "mount -t tmpfs tmpfs $PRIVATE && exec $PYTHON -m ray.scripts.scripts start --address=$ADDRESS --block"
    node = subprocess.Popen(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", f"{start} --num-cpus=1 --disable-usage-stats"],
        env={**os.environ, "PRIVATE": str(folder), "PYTHON": sys.executable, "ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    until = time.monotonic() + PATIENCE_S
    while ray.cluster_resources().get("CPU", 0) < 1:
        if node.poll() is not None and "unshare" in (said := node.stdout.read()):
            pytest.skip(f"no mount namespace here: {said[:80]}")
        assert time.monotonic() < until
        time.sleep(0.2)
    yield folder
    ray.shutdown()
    end(node)
    node.stdout.close()
    cluster.shutdown()


def test_a_store_that_another_node_does_not_see_is_refused(private, tiny_study):
    study = changed(tiny_study, engine="ray", store=str(private / "store"))
    with pytest.raises(pr.PlatonicRayError, match=r"the node .* does not see it.*s3://"):
        pr.align(study, quiet=True)
    assert not Store(study.run.store).keys("features")


@pytest.mark.slow
def test_samples_that_another_node_does_not_see_are_refused(private, tiny_study, tmp_path):
    samples = private / "samples.parquet"
    samples.write_bytes(Path(tiny_study.dataset.source).read_bytes())
    dataset = {**tiny_study.dataset.model_dump(), "source": str(samples)}
    study = changed(tiny_study.replace(dataset=dataset), engine="ray", store=str(tmp_path / "store"))
    with pytest.raises(pr.PlatonicRayError, match=r"samples.parquet; the node .* does not have it"):
        pr.align(study, quiet=True)


@pytest.mark.slow  # as every other run of several nodes is
def test_a_store_that_every_node_sees_is_taken(private, tiny_study, tmp_path):
    study = changed(tiny_study, engine="ray", store=str(tmp_path / "store"))
    pr.align(study, quiet=True)
    assert read_result(Store(study.run.store), Store(study.run.store).keys("results")[0]) is not None
