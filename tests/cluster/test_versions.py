"""A driver whose Ray or Python is not the cluster's is told so before it does anything."""

import json
import os
import subprocess
import sys

import pytest
from ray._common.usage import usage_constants
from ray._private import ray_constants
from ray._raylet import GcsClient
from support import changed

pytestmark = pytest.mark.cluster


def test_versions_that_differ_are_named(two_nodes, tiny_study, tmp_path):
    gcs = GcsClient(address=two_nodes.address)
    where = (usage_constants.CLUSTER_METADATA_KEY,)
    space = ray_constants.KV_NAMESPACE_CLUSTER
    told = gcs.internal_kv_get(*where, namespace=space)
    older = {**json.loads(told), "ray_version": "2.58.0", "python_version": "3.12.1"}
    gcs.internal_kv_put(*where, json.dumps(older).encode(), True, namespace=space)
    toml = tmp_path / "study.toml"
    toml.write_text(changed(tiny_study, engine="ray", store=str(tmp_path / "store")).to_toml())
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "platonic_ray.cli", "run", str(toml)],
            env={**os.environ, "RAY_ADDRESS": two_nodes.address},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        gcs.internal_kv_put(*where, told, True, namespace=space)
    assert ran.returncode == 6, ran.stderr
    assert "runs Ray 2.58.0 on Python 3.12.1, and this process Ray 2." in ran.stderr
    assert "platonic-ray submit" in ran.stderr
    assert "Traceback" not in ran.stderr
