"""Features in files, for the commands that read them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def features(tmp_path):
    """One representation in all formats: 40 samples, 2 layers of width 6."""
    rows = np.random.default_rng(0).normal(size=(40, 2, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    save_file({f"layer{i}": torch.tensor(rows[:, i]) for i in range(2)}, tmp_path / "b.safetensors")
    columns = {
        f"l{i}": pa.FixedSizeListArray.from_arrays(pa.array(rows[:, i].reshape(-1)), 6) for i in range(2)
    }
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    lists = pa.table({f"l{i}": pa.array(rows[:, i].tolist()) for i in range(2)})
    with pa.OSFile(str(tmp_path / "d.arrow"), "wb") as sink, pa.ipc.new_file(sink, lists.schema) as writer:
        writer.write_table(lists)
    np.save(tmp_path / "flat.npy", rows[:, 0].astype(np.float64))
    return tmp_path, rows
