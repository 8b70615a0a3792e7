"""The files that a job brings along do not reach a node at first, or never."""

import threading
import time

import pytest
import ray
from ray.experimental import internal_kv
from support import changed, events_of, score_bytes

import platonic_ray as pr
from platonic_ray.engine import losses
from platonic_ray.store import Store

pytestmark = pytest.mark.cluster


@pytest.fixture
def package(two_nodes, tmp_path):
    """The name and the content of the job's package, which the cluster has lost."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "note.txt").write_text(f"made at {time.time()}")
    environment = {"working_dir": str(tmp_path / "job"), "config": {"eager_install": False}}
    ray.init(address=two_nodes.address, log_to_driver=False, logging_level="ERROR", runtime_env=environment)
    try:
        uri = ray.get_runtime_context().runtime_env["working_dir"]
        name = next(key for key in internal_kv._internal_kv_list(b"gcs://_ray_pkg_") if key.decode() == uri)
        content = internal_kv._internal_kv_get(name)
        internal_kv._internal_kv_del(name)
        yield name, content
    finally:
        ray.shutdown()


def lost_environments(study):
    return [event for event in events_of(study) if event["event"] == "lost"]


@pytest.mark.slow
def test_a_package_that_comes_late_ends_no_run(package, tiny_study, tiny_undisturbed, tmp_path):
    study = changed(tiny_study, engine="ray", store=str(tmp_path / "late"))

    def bring():
        while not Store(study.run.store).runs() or not lost_environments(study):
            time.sleep(0.1)
        internal_kv._internal_kv_put(*package)

    bringer = threading.Thread(target=bring, daemon=True)
    bringer.start()
    assert score_bytes(pr.align(study, quiet=True)) == tiny_undisturbed
    bringer.join(10)
    assert {event["loss"] for event in lost_environments(study)} == {"environment"}


@pytest.mark.slow
def test_a_package_that_never_comes_is_named(package, tiny_study, tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "_PAUSES_S", (0.5, 0.5))
    study = changed(tiny_study, engine="ray", store=str(tmp_path / "never"))
    with pytest.raises(
        pr.PlatonicRayError, match=r"the job's environment, 3 times.*runtime_env file package"
    ):
        pr.align(study, quiet=True)
    assert len(lost_environments(study)) == 2
