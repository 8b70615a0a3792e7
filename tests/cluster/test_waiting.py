"""Machines that never come are waited for as long as the study says, and no longer."""

import time

import pytest
from support import changed

import platonic_ray as pr
from platonic_ray.engine import watching

pytestmark = pytest.mark.cluster


def test_gpus_that_never_come_are_waited_for_as_long_as_was_said(
    cluster, tiny_study, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(watching, "_SAY_S", 0.0)
    study = changed(tiny_study, engine="ray", store=str(tmp_path / "s"), device="gpu", wait_s=3)
    start = time.monotonic()
    with pytest.raises(pr.PlatonicRayError, match=r"No node with 1 GPUs .* came within 3 s"):
        pr.align(study)
    assert time.monotonic() - start < 300  # of the quarter of an hour that it waits where nothing is said
    assert "Waiting for a node with 1 GPUs" in capsys.readouterr().err
