"""Embedding with shards written durably, against embedding alone, in turns over the same shards."""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.texts import captions
from platonic_ray.engine.embedding import ModelRunner
from platonic_ray.engine.prepare import prepare
from platonic_ray.store import Store
from platonic_ray.study import Study


def time_writing(use: str, count: int, threads: int) -> dict[str, Any]:
    """Time every shard of a study's model twice: embedded alone, and embedded and committed."""
    alone_s, written_s, size = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"caption": captions(count)}), f"{folder}/captions.parquet")
        study = Study.from_dict(
            {
                "dataset": {"source": f"{folder}/captions.parquet"},
                "models": [{"name": use, "use": use, "view": "caption"}],
                "run": {"threads": threads, "engine": "local"},
            }
        )
        context = prepare(study, Store.open(f"{folder}/store")).context
        runner = ModelRunner(context, 0)
        runner.load()
        runner.compute(0)
        for shard in range(len(context.plan.shards)):
            started = time.perf_counter()
            runner.compute(shard)
            alone_s.append(time.perf_counter() - started)
            started = time.perf_counter()
            *_, report = runner.embed(shard)
            written_s.append(time.perf_counter() - started)
            assert isinstance(report, dict)
            size += report["bytes_out"]
    return {
        "model": use,
        "texts": count,
        "shards": len(alone_s),
        "threads": torch.get_num_threads(),
        "written_MiB": round(size / 2**20, 1),
        "alone_seconds": sum(alone_s),
        "written_seconds": sum(written_s),
        "more": sum(written_s) / sum(alone_s) - 1,
        "more_median_shard": statistics.median(b / a for a, b in zip(alone_s, written_s, strict=True)) - 1,
    }
