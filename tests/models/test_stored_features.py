"""Features that exist are a model like any other: paired by id or position, known by their bytes, never run as code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model_samples import entry
from object_store import ObjectStore
from safetensors.torch import save_file
from support import dense_features, events_of

import platonic_ray as pr
from platonic_ray.cli import main
from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.sharing import local_paths
from platonic_ray.errors import DataError, StudyError, WeightsError
from platonic_ray.models import check_models, describe, load, resolve
from platonic_ray.models.arrays import read_features, read_layers
from platonic_ray.store import Store
from platonic_ray.study import Study

N = 60
FEATURES = np.random.default_rng(0).normal(size=(N, 3, 5)).astype(np.float32)


def write(folder: Path, ending: str) -> Path:
    """Write the same three layers in one of the formats."""
    path = folder / f"net{ending}"
    if ending == ".npy":
        np.save(path, FEATURES)
    elif ending == ".safetensors":
        save_file({f"h{9 + i}": torch.tensor(FEATURES[:, i]) for i in range(3)}, path)
    elif ending == ".pt":
        torch.save({"feats": torch.tensor(FEATURES), "num_params": 7, "mask": torch.ones(N, 4)}, path)
    else:
        columns = {
            f"l{i}": pa.FixedSizeListArray.from_arrays(pa.array(FEATURES[:, i].ravel()), 5) for i in range(3)
        }
        table = pa.table({"name": [str(row) for row in range(N)], **columns})
        if ending == ".parquet":
            pq.write_table(table, path)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
    return path


def _spec(path: Path, **given: Any) -> Any:
    return resolve(entry(kind="features", weights=str(path), **given))


@pytest.mark.parametrize("ending", [".npy", ".safetensors", ".pt", ".parquet", ".arrow"])
def test_every_format_gives_the_rows_asked_for_in_every_layer(tmp_path, ending) -> None:
    model = load(_spec(write(tmp_path, ending)))
    rows = [7, 3, 59, 0]
    got = model.embed(rows).layers
    for place, layer in enumerate(got):
        assert layer.dtype == np.float32
        assert layer.tobytes() == FEATURES[rows, place].tobytes()
    assert [layer.width for layer in model.layers] == [5, 5, 5]
    assert describe(_spec(tmp_path / f"net{ending}")).layers == model.layers


def test_names_in_a_file_are_those_of_its_layers_in_the_order_of_their_numbers(tmp_path) -> None:
    assert list(read_layers(write(tmp_path, ".safetensors"))) == ["h9", "h10", "h11"]
    assert list(read_layers(write(tmp_path, ".parquet"))) == ["l0", "l1", "l2"]
    some = load(_spec(write(tmp_path, ".safetensors"), layers=["h11", 0]))
    assert [layer.name for layer in some.layers] == ["h9", "h11"]
    assert some.embed([4]).layers[1].tobytes() == FEATURES[[4], 2].tobytes()


def test_a_pt_file_may_hold_a_tensor_or_a_list_of_layers_of_several_widths(tmp_path) -> None:
    torch.save(torch.tensor(FEATURES[:, 0]), tmp_path / "flat.pt")
    torch.save({"feats": [torch.zeros(N, 2), torch.ones(N, 4, dtype=torch.bfloat16)]}, tmp_path / "list.pt")
    assert [layer.shape for layer in read_features(tmp_path / "flat.pt")] == [(N, 5)]
    assert [layer.shape for layer in read_features(tmp_path / "list.pt")] == [(N, 2), (N, 4)]


class Planted:
    """What a pickle can do to who opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


def test_a_planted_pickle_is_refused_and_not_run(tmp_path, capsys) -> None:
    trap = tmp_path / "trap"
    torch.save({"feats": Planted(trap)}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match="could run code"):
        load(_spec(tmp_path / "evil.pt"))
    np.save(tmp_path / "a.npy", FEATURES)
    assert main(["table", str(tmp_path / "evil.pt"), str(tmp_path / "a.npy")]) == 3
    assert "could run code" in capsys.readouterr().err
    assert not trap.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert trap.exists()  # so the trap was a real one


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"features": torch.zeros(3, 2)}, "without \"feats\"; it has: 'features'"),
        ({"feats": torch.zeros(3)}, r"shape \(3,\)"),
        ({"feats": [torch.zeros(3, 2), torch.zeros(3, 2, 2)]}, "layer 1 has the shape"),
        ({"feats": 3}, "holds int"),
        ([], "holds list"),
        ({"feats": [torch.zeros(3, 2), torch.zeros(4, 2)]}, "differ in their numbers of samples"),
        (torch.zeros(3, 0), "no dimension"),
        (torch.zeros(3, 2, dtype=torch.complex64), "must be real numbers"),
    ],
)
def test_a_pt_file_without_features_is_one_clear_error(tmp_path, held, message) -> None:
    torch.save(held, tmp_path / "bad.pt")
    with pytest.raises(DataError, match=message):
        load(_spec(tmp_path / "bad.pt"))


def test_the_table_reads_pt_files(tmp_path, capsys) -> None:
    write(tmp_path, ".pt")
    np.save(tmp_path / "a.npy", FEATURES)
    assert (
        main(["table", str(tmp_path / "net.pt"), str(tmp_path / "a.npy"), "--metric", "cka", "--json"]) == 0
    )
    assert abs(json.loads(capsys.readouterr().out)["models"][0]["score"] - 1) < 1e-6


def test_the_key_is_the_content_and_not_the_folder(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    one, other = (_spec(write(folder, ".npy")) for folder in (tmp_path, tmp_path / "other"))
    assert one.key == other.key
    np.save(tmp_path / "net.npy", FEATURES + 1)
    assert _spec(tmp_path / "net.npy").key != one.key
    with pytest.raises(WeightsError, match="not the file that was expected"):
        load(one)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"weights": "features.csv"}, StudyError, "takes the path of a file of features"),
        ({"weights": "net.npy", "init": "random"}, StudyError, "takes the path of a file of features"),
        ({"weights": "nothing.npy"}, WeightsError, "nothing.npy"),
        ({"weights": "net.npy", "pooling": "mean"}, StudyError, "pooling would do nothing"),
        ({"weights": "net.npy", "layers": [3]}, StudyError, "has no layer 3. It has 3"),
    ],
)
def test_entries_that_cannot_be_are_refused(tmp_path, monkeypatch, given, error, message) -> None:
    write(tmp_path, ".npy")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        resolve(entry(kind="features", **given))


def _study(source: Path, file: Path, tmp_path: Path, **dataset: Any) -> Study:
    return Study.from_dict(
        {
            "shard_rows": 16,
            "dataset": {"source": str(source), **dataset},
            "models": [
                {"name": "net", "kind": "features", "weights": str(file), "view": "image"},
                {"name": "pixels", "use": "pixels", "view": "image"},
            ],
            "null": {"permutations": 0},
            "run": {"engine": "local", "store": str(tmp_path / "store")},
        }
    )


@pytest.fixture
def few(tmp_path) -> Path:
    """The first rows of the samples; the caption of one of them is blank."""
    from support import write_samples

    table = pq.read_table(write_samples(tmp_path / "all.parquet", N))
    captions = table["en"].to_pylist()
    captions[5] = " "
    at = table.schema.get_field_index("en")
    pq.write_table(table.set_column(at, "en", pa.array(captions)), tmp_path / "few.parquet")
    return tmp_path / "few.parquet"


def test_rows_stay_with_their_samples_when_samples_are_drawn_or_dropped(few, tmp_path) -> None:
    """Each feature is its row's number, so a row under another sample would show."""
    numbers = np.arange(N, dtype=np.float64)[:, None] + np.array([1.0, 1000.0])
    np.save(tmp_path / "numbers.npy", numbers)
    study = _study(few, tmp_path / "numbers.npy", tmp_path, samples=55, on_bad_sample="drop")
    models = [*study.models[:1], study.models[1].model_copy(update={"use": "char-tfidf", "view": "en"})]
    study = study.replace(models=[model.model_dump() for model in models])
    pr.align(study, quiet=True)
    (rows,) = dense_features(study)["net"]
    ids = prepare(study, Store(study.run.store)).context.open_dataset().ids
    assert len(ids) == 54
    assert "s5" not in ids
    np.testing.assert_array_equal(rows[:, 0], [int(name[1:]) + 1 for name in ids])


def _with_ids(path: Path, ids: list[Any]) -> Path:
    """Write features that are their sample's number, the last sample first, as a table with ids."""
    numbers = np.arange(N, dtype=np.float64)[::-1, None] + np.array([1.0, 1000.0])
    column = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), 2)
    table = pa.table({"net": column, "id": ids})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_table_with_ids_is_paired_by_them_whatever_the_order_of_its_rows(few, tmp_path, ending) -> None:
    file = _with_ids(tmp_path / f"net{ending}", [f"s{row}" for row in reversed(range(N))])
    study = _study(few, file, tmp_path, samples=55)
    pr.align(study, quiet=True)
    (rows,) = dense_features(study)["net"]
    ids = prepare(study, Store(study.run.store)).dataset.ids
    assert len(ids) == 55
    np.testing.assert_array_equal(rows[:, 0], [int(name[1:]) + 1 for name in ids])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([f"t{row}" for row in range(N)], r"no features of 60 of the 60 samples: 's0', .*there: 't0'"),
        ([f"s{row}" for row in range(1, N + 1)], r"no features of 1 of the 60 samples: 's0'\."),
        (["s0", *[f"s{row}" for row in range(N - 1)]], r"more than once.*'s0'"),
        ([None, *[f"s{row}" for row in range(N - 1)]], "1 ids are missing"),
        ([0.5 * row for row in range(N)], "ids are strings or integers"),
    ],
)
def test_ids_that_do_not_pair_are_refused_before_any_work(few, tmp_path, ids, message) -> None:
    study = _study(few, _with_ids(tmp_path / "net.parquet", ids), tmp_path)
    with pytest.raises(DataError, match=message):
        prepare(study, Store.open(study.run.store))


def test_scores_are_those_of_the_arrays_and_nothing_is_computed_twice(few, tmp_path) -> None:
    study = _study(few, write(tmp_path, ".pt"), tmp_path)
    result = pr.align(study, quiet=True)
    stack = dense_features(study)
    assert [layer.tobytes() for layer in stack["net"]] == [FEATURES[:, i].tobytes() for i in range(3)]
    assert result.layers.filter(model="net")["layer_name"].to_list() == ["layer 0", "layer 1", "layer 2"]
    more = study.replace(metrics=[{"name": "cka"}])
    pr.align(more, quiet=True)
    events = [event["event"] for run in range(2) for event in events_of(more, run)]
    assert events.count("finished") == 2
    assert events.count("shard") == 2 * 4  # two models, four shards, once


def test_features_in_object_storage_are_fetched_alone_and_are_those_of_the_file(
    object_store: ObjectStore, few, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("PLATONIC_RAY_CACHE", str(tmp_path / "cache"))
    folder = object_store.new_uri()
    place = folder.removeprefix("s3://")
    for name in ("our net.npy", "another file.npy"):
        with object_store.files.open_output_stream(f"{place}/{name}") as stream:
            stream.write(write(tmp_path, ".npy").read_bytes())
    study = _study(few, Path("net.npy"), tmp_path)
    (tmp_path / "study.toml").write_text(study.to_toml().replace("net.npy", f"{folder}/our%20net.npy"))
    away = Study.from_toml(tmp_path / "study.toml")
    assert check_models(away.models)[0].problem is None
    pr.align(away, quiet=True)
    assert [layer.tobytes() for layer in dense_features(away)["net"]] == [
        FEATURES[:, layer].tobytes() for layer in range(3)
    ]
    fetched = [path.name for path in (tmp_path / "cache" / "datasets" / "fetched").rglob("*.npy")]
    assert fetched == ["our net.npy"]
    assert local_paths(away.dataset, away.models) == [str(few)]  # a URI is not asked of the nodes' disks
    here = (tmp_path / "net.npy").rename(tmp_path / "our net.npy")
    keys = {_spec(weights).key for weights in (away.models[0].weights, here, here.as_uri())}
    assert len(keys) == 1
    by_folder = entry(kind="features", weights=folder, file="our net.npy")
    assert resolve(by_folder).weights == resolve(away.models[0]).weights


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("{folder}/nothing.npy", WeightsError, "/nothing.npy cannot be had"),
        ("nosuch://bucket/x.npy", WeightsError, "nosuch://bucket/x.npy cannot be had.*pyarrow knows"),
        ("file:///no/such/x.npy", WeightsError, "no weights at file:///no/such/x.npy"),
        ("s3://key:word@bucket/x.npy", StudyError, "holds credentials"),
    ],
)
def test_a_uri_of_nothing_is_one_clear_error(object_store, uri, error, message) -> None:
    with pytest.raises(error, match=message) as raised:
        _spec(uri.format(folder=object_store.new_uri()))
    assert "word@" not in str(raised.value)


def test_a_file_of_another_number_of_samples_is_refused_before_any_work(few, tmp_path) -> None:
    np.save(tmp_path / "short.npy", FEATURES[:50])
    study = _study(few, tmp_path / "short.npy", tmp_path, samples=50)
    with pytest.raises(DataError, match=r"short.npy has features of 50 samples; the dataset has 60 rows"):
        pr.align(study, quiet=True)
    assert not list((tmp_path / "store").rglob("features"))


def test_a_nan_in_a_file_is_named_by_its_sample(few, tmp_path) -> None:
    broken = FEATURES.copy()
    broken[33, 1, 2] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    with pytest.raises(DataError, match=r"Model 'net', layer 'layer 1': 1 features are NaN .* 's33'"):
        pr.align(_study(few, tmp_path / "nan.npy", tmp_path), quiet=True)
