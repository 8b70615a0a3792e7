"""A user's own metric by its import path, and that of a distance the smallest is the best, everywhere."""

import importlib
import pickle
import sys

import numpy as np
import pytest

import platonic_ray as pr
from platonic_ray.errors import StudyError
from platonic_ray.metrics import Metric, get_metric
from platonic_ray.results import heatmap, render_table

OWN = "own_metrics:UNSHARED"


def models() -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=(40, 6))
    near, far = x + 0.3 * drawn.normal(size=x.shape), drawn.normal(size=(40, 6))
    return {"x": x, "y": np.stack([far, near], 1), "z": np.stack([far, near + drawn.normal(size=x.shape)], 1)}


def test_it_scores_pairs_tables_and_studies_like_any_other(small_study):
    table = pr.table(models(), metric=[OWN, "mutual_knn"], k=5)
    forth, back = table.matrix("unshared").values, table.matrix("mutual_knn").values
    np.testing.assert_allclose(forth, 1 - back)
    assert pr.score(models()["x"], models()["y"][:, 1], OWN, k=5) == forth[0, 1]
    study = small_study.replace(metrics=[{"name": OWN, "k": 6}, {"name": "mutual_knn", "k": 6}])
    result = pr.align(study, quiet=True)
    np.testing.assert_allclose(result.matrix("unshared").values, 1 - result.matrix("mutual_knn").values)
    unshared, shared = (result.pairs(name).sort("model_x", "model_y") for name in ("unshared", "mutual_knn"))
    assert unshared["layer_x", "layer_y", "p"].equals(shared["layer_x", "layer_y", "p"])


def test_of_a_distance_the_smallest_score_is_the_best(capsys):
    table = pr.table(models(), metric=OWN, k=5, permutations=99)
    assert table.direction() == "distance"
    row = table.pairs().filter(model_x="x", model_y="y").row(0, named=True)
    cells = table.layers_matrix("x", "y").values
    assert row["score"] == cells.min() < cells.max()
    assert (row["layer_x"], row["layer_y"]) == (0, 1)
    assert row["score"] < row["null_threshold"]
    assert row["p"] == 0.01
    assert 0 < row["calibrated"] < 1
    lines = table.summary().splitlines()
    lowest, highest = (
        next(i for i, line in enumerate(lines) if word in line) for word in ("lowest", "highest")
    )
    assert lowest < highest
    assert "smaller is more alike" in table.facts()
    assert "smallest distance over layers" in render_table(table)


def test_the_darkest_cell_of_a_heat_map_is_the_most_alike():
    def lightness(metric: str) -> list[float]:
        result = pr.table({"x": models()["x"]}, {name: models()[name] for name in "yz"}, metric=metric, k=5)
        (cells,) = heatmap(result).axes[0].images
        return np.asarray(cells.get_array())[0, :, :3].mean(axis=1).tolist()

    for metric in (OWN, "mutual_knn"):
        y, z = lightness(metric)
        assert y < z  # y has a layer that is nearer to x


def test_its_key_holds_its_path_and_a_digest_of_its_source(tmp_path, monkeypatch):
    metric = get_metric(OWN, k=4)
    assert metric.key["name"] == OWN
    again = pickle.loads(pickle.dumps(metric))
    assert again == metric
    assert len(pickle.dumps(metric)) < 400  # its path and options alone: it is imported again there
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        "from dataclasses import replace\nfrom own_metrics import UNSHARED\nM = replace(UNSHARED, name='m')\n"
    )
    (tmp_path / "changing.py").write_text(text)
    first = get_metric("changing:M")
    sent = pickle.dumps(first)
    (tmp_path / "changing.py").write_text(text + "# another\n")
    assert get_metric("changing:M").key == first.key  # what this process runs is still the old source
    sys.modules.pop("changing")
    second = get_metric("changing:M")
    assert first.key["source"] != second.key["source"]
    with pytest.raises(StudyError, match="differs between the driver and a worker"):
        pickle.loads(sent)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_module:M", "cannot be imported: ModuleNotFoundError.*PYTHONPATH"),
        ("own_metrics:MISSING", "is not there.*Metrics of own_metrics: CKA, UNSHARED"),
        ("own_metrics:NO_METRIC", "is a int, not a platonic_ray.metrics.Metric"),
        ("own_metrics:CKA", "name of a metric of platonic_ray, 'cka'"),
        ("own_metrics:", "is not there"),
    ],
)
def test_what_is_no_metric_is_refused_before_any_work(path, said, small_study):
    with pytest.raises(StudyError, match=said):
        pr.score(np.eye(20), np.eye(20), path)
    with pytest.raises(StudyError, match=said):
        pr.align(small_study.replace(metrics=[{"name": path}]), quiet=True)


def test_a_module_that_fails_is_named_with_its_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_metric.py").write_text("1 / 0\n")
    importlib.invalidate_caches()
    with pytest.raises(StudyError, match="'failing_metric:M' cannot be imported: ZeroDivisionError"):
        get_metric("failing_metric:M")
    assert isinstance(get_metric(OWN), Metric)
