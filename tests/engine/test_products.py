"""Linear kernels of many samples are summed by D × D products of ranges of rows, in a study as in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import changed, committed, dense_features, score_bytes, tie_digests

import platonic_ray as pr
import platonic_ray.engine.prepare as preparation
from platonic_ray.engine.calibration import write_study
from platonic_ray.engine.prepare import prepare
from platonic_ray.metrics import score_tables
from platonic_ray.plan import ColumnSums, KernelProducts, KernelTile
from platonic_ray.store import Store
from platonic_ray.study import Study

N = 20_000  # two ranges
METRICS = [{"name": "cka"}, {"name": "unbiased_cka"}]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = write_study(tmp_path / "features", N, [[24, 16], [32]])
    run = {"engine": "local", "store": str(tmp_path / "store")}
    return made.replace(metrics=METRICS, shard_rows=3000, run=run)


def tasks_of(study: Study) -> list[type]:
    plan = prepare(study, Store.open(study.run.store)).context.plan
    return [type(task) for task in plan.prerequisites]


def made(study: Study, what: str) -> int:
    """How many events of a name all runs of the study have logged."""
    store = Store(study.run.store)
    return sum(event["event"] == what for run in store.runs() for event in store.events(run))


@pytest.mark.parametrize("recipe", ["l2", "huh2024"])
def test_a_study_gives_the_bytes_of_a_table_in_memory(study: Study, recipe: str) -> None:
    study = study.replace(recipe=recipe)
    kinds = tasks_of(study)
    assert (kinds.count(ColumnSums), kinds.count(KernelProducts), kinds.count(KernelTile)) == (2, 2, 0)
    result = pr.align(study, quiet=True)
    stacks = dense_features(study)
    tables = score_tables(stacks, metrics=study.metrics, recipe=recipe, digests=tie_digests(study))
    assert len(tables) == 2
    for table in tables:
        got = result.layers_matrix(table.x, table.y, table.metric.name).values
        np.testing.assert_array_equal(got, table.scores)


def test_scores_are_those_of_plain_products_in_float64(study: Study) -> None:
    result = pr.align(study, quiet=True)
    x, y = ([of_unit_rows(layer) for layer in stack] for stack in dense_features(study).values())
    found = result.layers_matrix("model 0", "model 1", "cka").values
    for i, j in np.ndindex(found.shape):
        norms = [np.linalg.norm(a.T @ b) for a, b in ((x[i], y[j]), (x[i], x[i]), (y[j], y[j]))]
        assert found[i, j] == pytest.approx(norms[0] ** 2 / norms[1] / norms[2], abs=1e-7)


def test_scores_by_tiles_are_kept_under_another_key(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(study.run.store)
    by_products = prepare(study, store)
    monkeypatch.setattr(preparation, "choose_product_rows", lambda *shapes: 0)
    by_tiles = prepare(study, store)
    assert by_products.key != by_tiles.key
    keys = {of.context.plan.scores_key(0, 1) for of in (by_products, by_tiles)}
    assert len(keys) == 2


def of_unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of norm one, less the mean of each column, in float64."""
    units = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    return np.asarray(units - units.mean(0))


def test_neither_blocks_nor_what_is_made_again_change_a_byte_and_a_model_that_joins_adds_its_pairs(
    study: Study, tmp_path: Path
) -> None:
    result = pr.align(study, quiet=True)
    assert (made(study, "ColumnSums"), made(study, "KernelProducts")) == (2, 2)
    assert len(committed(study, "columns")) == 2
    assert len(committed(study, "kernels")) == 2 * 3
    other = changed(study, store=str(tmp_path / "other"), block_rows=32768)  # one range
    assert score_bytes(pr.align(other, quiet=True)) == score_bytes(result)
    assert len(committed(other, "kernels")) == 3

    store = Path(study.run.store)
    damaged = sorted((store / "kernels").rglob("*.arrow"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    for kind in ("results", "scores"):
        for manifest in (store / kind).rglob("manifest.json"):
            manifest.unlink()
    assert score_bytes(pr.align(study, quiet=True)) == score_bytes(result)
    assert (made(study, "ColumnSums"), made(study, "KernelProducts")) == (2, 3)

    again = study.models[0].model_dump() | {"name": "again"}
    more = study.replace(models=[*(model.model_dump() for model in study.models), again])
    grown = pr.align(more, quiet=True)
    assert made(study, "ColumnSums") == 2  # its features are another model's
    assert grown.matrix("cka").at("model 0", "again") == pytest.approx(1, abs=1e-6)
