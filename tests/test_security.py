"""What comes from elsewhere is data: pickles planted in every format that is read do not run; no secret is kept."""

import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data.extensions  # noqa: F401 (registers Ray's extension types, whose readers ran pickles once)
import torch
from support import changed, make_tiny_study

import platonic_ray as pr
from platonic_ray.cli import main
from platonic_ray.datasets import open_dataset
from platonic_ray.errors import PlatonicRayError
from platonic_ray.models.arrays import read_layers
from platonic_ray.store import CorruptArtifactError, Store
from platonic_ray.study import DatasetEntry

EXTENSIONS = (
    "arrow.py_extension_type",
    "ray.data.arrow_tensor",
    "ray.data.arrow_tensor_v2",
    "ray.data.arrow_variable_shaped_tensor",
    "ray.data.arrow_pickled_object",
)


class Bomb:
    """What a pickle can do to who opens it: here, leave a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """Is there when a planted pickle has run; each test that planted one ends without it."""
    path = tmp_path / "ran"
    pickle.loads(pickle.dumps(Bomb(path)))
    assert path.exists()  # the bomb works
    path.unlink()
    yield path
    assert not path.exists(), "a planted pickle ran"


def planted(marker, extension):
    """A table with a column of lists and one of texts, each said to be of an extension type made by a pickle."""
    about = {"ARROW:extension:name": extension, "ARROW:extension:metadata": pickle.dumps(Bomb(marker))}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12.0)), 3)
    fields = [
        pa.field("features", lists.type, metadata=about),
        pa.field("text", pa.string(), metadata=about),
        pa.field("id", pa.string()),
    ]
    return pa.table([lists, pa.array(list("abcd")), pa.array(list("wxyz"))], schema=pa.schema(fields))


def write(table, path):
    """Write a table with its schema as it is: no reader of an extension has seen it yet."""
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


def refused_or_plain(read):
    """Whatever it gives is data; whatever it raises is an error for people."""
    try:
        return read()
    except PlatonicRayError as error:
        return error


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_pickle_in_the_type_of_a_column_does_not_run(marker, tmp_path, extension, ending):
    path = tmp_path / f"planted{ending}"
    write(planted(marker, extension), path)
    features = refused_or_plain(lambda: read_layers(path))
    assert isinstance(features, PlatonicRayError) or features["features"].shape == (4, 3)
    dataset = refused_or_plain(lambda: open_dataset(DatasetEntry(source=str(path)), 0))
    assert isinstance(dataset, PlatonicRayError) or dataset.read("text", 0, 4) == list("abcd")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_pickle_in_a_saved_dataset_or_a_stores_artifact_does_not_run(marker, tmp_path, extension):
    folder = tmp_path / "saved"
    folder.mkdir()
    table = planted(marker, extension)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_format_type": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    (folder / "cache-0.pkl").write_bytes(pickle.dumps(Bomb(marker)))
    dataset = refused_or_plain(lambda: open_dataset(DatasetEntry(source=str(folder)), 0))
    assert isinstance(dataset, PlatonicRayError) or dataset.read("text", 0, 4) == list("abcd")
    store = Store.open(str(tmp_path / "store"))
    manifest = store.put("features", "0" * 64, {"layer.0000": table})
    with pytest.raises(CorruptArtifactError, match="no plain Arrow table"):
        store.read(manifest, "layer.0000")


def test_pickles_that_pass_for_arrays_weights_and_samples_do_not_run(marker, tmp_path):
    bomb = pickle.dumps(Bomb(marker))
    for name in ("a.pt", "a.pth", "a.npy", "a.safetensors", "a.parquet", "a.arrow", "a.feather"):
        (tmp_path / name).write_bytes(bomb)
        with pytest.raises(PlatonicRayError):
            read_layers(tmp_path / name)
    torch.save({"feats": [torch.zeros(4, 2), Bomb(marker)]}, tmp_path / "b.pt")
    np.save(tmp_path / "b.npy", np.array([Bomb(marker)], dtype=object))
    for name in ("b.pt", "b.npy"):
        with pytest.raises(PlatonicRayError):
            read_layers(tmp_path / name)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for ending in ("pkl", "pyd", "pt", "txt"):
            (tmp_path / f"0.{ending}").write_bytes(bomb if ending != "txt" else b"a text")
            tar.add(tmp_path / f"0.{ending}", f"0.{ending}")
    dataset = refused_or_plain(lambda: open_dataset(DatasetEntry(source=str(tmp_path / "s.tar")), 0))
    assert isinstance(dataset, PlatonicRayError) or set(dataset.views) == {"txt"}


def test_a_hubs_token_and_credentials_are_in_nothing_that_is_kept_or_said(
    samples, tmp_path, monkeypatch, capfd
):
    secrets = {
        "HF_TOKEN": "hf_planted0123456789abcdef",
        "AWS_SECRET_ACCESS_KEY": "planted-secret-of-the-bucket",
        "RAY_AUTH_TOKEN": "planted-token-of-the-cluster-0123456789",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    study = changed(make_tiny_study(samples), engine="local", store=str(tmp_path / "store"), log="json")
    pr.align(study).save(tmp_path / "result")
    assert main(["report", str(tmp_path / "result"), "--out", str(tmp_path / "report.html")]) == 0
    said = "".join(capfd.readouterr())
    assert '"event": "finished"' in said
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 10
    for value in secrets.values():
        assert value not in said
        assert not any(value.encode() in content for content in kept)
