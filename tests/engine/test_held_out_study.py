"""A study whose layers are chosen on one half of its samples, against the table of its features."""

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.study import Study

METRICS = ["mutual_knn", "cycle_knn", "unbiased_cka", "procrustes"]
COLUMNS = ["score", "selection_score", "layer_x", "layer_y", "n", "p", "null_threshold", "calibrated"]
N = 61


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(N, 3))

    def model(layers, width):
        maps = rng.normal(size=(layers, 3, width))
        return [(shared @ each + rng.normal(size=(N, width))).astype("f4") for each in maps]

    return {"a": model(3, 8), "b": model(4, 6)}


def study(features, folder, **changes):
    for name, layers in features.items():
        save_file({str(at): rows for at, rows in enumerate(layers)}, folder / f"{name}.safetensors")
    pl.DataFrame({"text": [f"sample {row}" for row in range(N)]}).write_parquet(folder / "samples.parquet")
    return Study.from_dict(
        {
            "shard_rows": 16,
            "choose_layers": "held-out",
            "dataset": {"source": str(folder / "samples.parquet")},
            "models": [
                {
                    "name": name,
                    "kind": "features",
                    "weights": str(folder / f"{name}.safetensors"),
                    "view": "text",
                }
                for name in features
            ],
            "metrics": [
                {"name": name} if name not in ("mutual_knn", "cycle_knn") else {"name": name, "k": 5}
                for name in METRICS
            ],
            "null": {"permutations": 19, "alpha": 0.2, "metrics": METRICS},
            "run": {"engine": "local", "store": str(folder / "store")},
            **changes,
        }
    )


def different(result):
    return result.models.filter(pl.col("model_x") != pl.col("model_y")).sort("metric", "model_x")


def test_its_numbers_are_those_of_the_table_of_its_features(features, tmp_path):
    given = study(
        features,
        tmp_path,
        intervals={"target": "population", "splits": 4},
        growth={"sizes": [15, 31], "splits": 2},
    )
    result = pr.align(given, quiet=True)
    table = pr.table(
        features,
        metric=METRICS,
        k=5,
        permutations=19,
        alpha=0.2,
        null_metrics=METRICS,
        choose_layers="held-out",
    )
    found, expected = different(result), different(table)
    assert found["n"].unique().to_list() == [31]
    for name in COLUMNS:
        np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), rtol=1e-9, err_msg=name)
    assert result.provenance["layers"] == table.provenance["layers"]
    assert "layers were chosen on 30 of the samples" in result.summary()
    assert all(method.endswith("layers chosen on other samples") for method in found["interval_method"])
    assert (found["low"] <= found["score"]).all()
    ((how, *layers),) = result.growth.select("layers", "layer_x", "layer_y").unique().rows()
    assert how == "best on other samples"
    row = found.row(by_predicate=pl.col("metric") == "mutual_knn", named=True)
    assert layers == [row["layer_x"], row["layer_y"]]
    assert result.growth["score"].to_list()[-1] == pytest.approx(row["score"], rel=1e-12)


def test_run_again_it_is_read_and_a_model_that_joins_leaves_the_layers_of_others_alone(features, tmp_path):
    two = study(features, tmp_path)
    first = pr.align(two, quiet=True)
    assert pr.align(two, quiet=True).equals(first)
    three = study({**features, "c": features["a"][:2]}, tmp_path)
    grown = pr.align(three, quiet=True)
    both = pl.col("model_x").is_in(["a", "b"]) & pl.col("model_y").is_in(["a", "b"])
    assert grown.models.filter(both).drop("q").equals(first.models.drop("q"))


def test_halves_that_are_too_small_are_refused_before_work(features, tmp_path):
    with pytest.raises(StudyError, match="halves of the 61 samples"):
        pr.align(study(features, tmp_path, metrics=[{"name": "mutual_knn", "k": 30}]), quiet=True)
