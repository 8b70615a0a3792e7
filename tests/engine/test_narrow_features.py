"""Features kept as float16: half the bytes, the neighbors that costs are counted, overflow is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import changed, committed, dense_features

import platonic_ray as pr
from platonic_ray.engine.narrow import MEASURED_K, narrowed, neighbors_lost
from platonic_ray.engine.prepare import prepare
from platonic_ray.errors import DataError
from platonic_ray.store import Store
from platonic_ray.study import Study


def stored_study(folder: Path, features: np.ndarray, kept: str) -> Study:
    (folder / "captions.csv").write_text("caption\n" + "a cat\n" * len(features))
    np.save(folder / "features.npy", features)
    return Study.from_dict(
        {
            "features": kept,
            "shard_rows": 50,
            "dataset": {"source": str(folder / "captions.csv")},
            "models": [
                {"name": "m", "kind": "features", "weights": str(folder / "features.npy"), "view": "caption"}
            ],
            "metrics": [{"name": "mutual_knn", "k": 5}],
            "null": {"permutations": 0},
            "run": {"engine": "local", "store": str(folder / "store")},
        }
    )


def lost_by_loops(wide: np.ndarray) -> float:
    def nearest(rows: np.ndarray) -> list[set[int]]:
        unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        inner = unit @ unit.T
        np.fill_diagonal(inner, -np.inf)
        return [set(row.argsort()[-MEASURED_K:].tolist()) for row in inner]

    both = zip(nearest(wide), nearest(wide.astype(np.float16)), strict=True)
    return 1 - float(np.mean([len(a & b) / MEASURED_K for a, b in both]))


def test_features_are_rounded_and_the_result_says_what_that_changes(tmp_path: Path) -> None:
    # Two layers, one of which hides its differences behind a common offset that float16 cannot see past.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(100, 2, 8)).astype(np.float32)
    features[:, 1] = 20 + features[:, 1] / 3
    study = stored_study(tmp_path, features, "float16")
    result = pr.align(study, quiet=True)
    for at, layer in enumerate(dense_features(study)["m"]):
        assert layer.dtype == np.float32
        np.testing.assert_array_equal(layer, features[:, at].astype(np.float16))
    lost = [np.mean([lost_by_loops(features[a : a + 50, at]) for a in (0, 50)]) for at in (0, 1)]
    (note,) = [note for note in result.provenance["notes"] if "kept as float16" in note]
    assert lost[1] > lost[0]
    assert f"changes {np.mean(lost):.2%}" in note
    assert f"at most {lost[1]:.2%}, in 'layer 1'" in note

    (tmp_path / "wide").mkdir()
    wide = changed(study.replace(features="float32"), store=str(tmp_path / "wide"))
    assert not [note for note in pr.align(wide, quiet=True).provenance["notes"] if "float16" in note]
    sizes = [_bytes_of_features(one) for one in (study, wide)]
    assert sizes[0] == sizes[1] / 2
    assert not committed(study, "features") & committed(wide, "features")


def _bytes_of_features(study: Study) -> int:
    store = Store(study.run.store)
    keys = prepare(study, store).context.plan.models[0].shard_keys
    manifests = [store.manifest("features", key) for key in keys]
    tables = [store.read(found, part) for found in manifests if found is not None for part in found.parts]
    return sum(table.nbytes for table in tables)


def test_what_float16_cannot_hold_is_refused_naming_model_layer_and_sample(tmp_path: Path) -> None:
    features = np.ones((60, 1, 4), np.float32)
    features[57, 0, 2] = 70_000
    study = stored_study(tmp_path, features, "float16")
    with pytest.raises(
        DataError, match=r"Model 'm', layer 'layer 0': features of 1 samples reach 70,000.*'57'"
    ):
        pr.align(study, quiet=True)
    assert len(committed(study, "features")) == 1  # the shard before it is kept
    largest = np.array([[65_504.0, -65_519.0]], np.float32)
    assert np.isfinite(narrowed(largest, "m", "l", ["0"])).all()


def test_nothing_can_be_lost_where_all_others_are_neighbors() -> None:
    rows = np.ones((MEASURED_K + 1, 3), np.float32)
    assert neighbors_lost(rows, rows.astype(np.float16)) is None
