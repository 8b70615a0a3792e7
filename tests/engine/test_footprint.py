"""What memory a process has of its own while it works, and that a task's depends on blocks, not on N."""

import mmap
import sys
import time

import pytest

from platonic_ray.engine.calibration import write_study
from platonic_ray.engine.embedding import ModelRunner
from platonic_ray.engine.footprint import Footprint, private_bytes, resident_bytes
from platonic_ray.engine.planning import peaks_of
from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.work import perform
from platonic_ray.plan import Embed, NeighborTile
from platonic_ray.plan.costs import PROCESS_BYTES, name_of
from platonic_ray.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what is shared")

MIB = 2**20


def test_memory_that_was_had_and_let_go_is_seen(monkeypatch):
    before = private_bytes()
    with Footprint() as held:
        block = bytearray(200 * MIB)
        deadline = time.monotonic() + 30
        while held.peak_bytes < before + 190 * MIB and time.monotonic() < deadline:
            time.sleep(0.01)
        del block
    assert held.peak_bytes >= before + 190 * MIB
    with Footprint() as later:
        pass
    assert later.peak_bytes < held.peak_bytes - 150 * MIB  # of this while alone


def test_pages_of_a_file_are_not_a_process_own(tmp_path):
    (tmp_path / "rows").write_bytes(bytes(range(256)) * (100 * MIB // 256))
    with (tmp_path / "rows").open("rb") as file, Footprint() as held:
        before = private_bytes()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as rows:
            assert sum(rows[at] for at in range(0, len(rows), 4096)) == 0
            assert resident_bytes() > before + 90 * MIB
    assert held.peak_bytes < before + 20 * MIB


@pytest.mark.slow
def test_a_tile_holds_no_more_of_ten_times_the_samples_and_no_more_than_was_declared(tmp_path):
    peaks = []
    for n in (8_192, 81_920):
        study = write_study(tmp_path / f"features-{n}", n, [[512], [512]])
        study = study.replace(
            run={"engine": "local", "store": str(tmp_path / f"store-{n}"), "block_rows": 4096}
        )
        prepared = prepare(study, Store.open(str(tmp_path / f"store-{n}")))
        plan, task = prepared.context.plan, NeighborTile(0, 0, 1)
        declared = peaks_of(prepared)[name_of(plan, task)] - PROCESS_BYTES
        runner = ModelRunner(prepared.context, 0)
        runner.load()
        for need in plan.prerequisites[task]:
            assert isinstance(need, Embed)
            list(runner.embed(need.shard))
        del runner
        before = private_bytes()
        report, table = perform(prepared.context, task, {})
        assert report["bytes_from_store"] == 2 * 4096 * 512 * 4
        assert report["peak_bytes"] - before < declared
        assert table.num_rows
        peaks.append(report["peak_bytes"])
    assert peaks[1] < 1.1 * peaks[0]
