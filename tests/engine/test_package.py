"""What a study is sent to a cluster in: all that it needs of this machine, nothing else; and what is left to share."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import changed, make_owned_study

import platonic_ray as pr
from platonic_ray.engine.package import own_modules, pack
from platonic_ray.engine.sharing import local_paths
from platonic_ray.errors import StoreError, StudyError
from platonic_ray.study import Study


@pytest.fixture
def owned(tmp_path, monkeypatch):
    """A study of files and modules of one's own, which this process can import."""
    study = make_owned_study(tmp_path / "own", engine="local", store="s3://bucket/store")
    monkeypatch.syspath_prepend(tmp_path / "own" / "code")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own" / "code"))
    yield study
    for name in [name for name in sys.modules if name.partition(".")[0] in ("own_things", "own_network")]:
        del sys.modules[name]


def test_nothing_is_sent_that_the_study_does_not_name(owned, tmp_path):
    pack(owned, tmp_path / "sent")
    sent = {path.relative_to(tmp_path / "sent") for path in (tmp_path / "sent").rglob("*") if path.is_file()}
    own = {path for path in sent if path.parts[0] != "platonic_ray"}
    assert len([path for path in own if path.suffix == ".png"]) == 60
    assert {path.name for path in own if path.suffix != ".png"} == {
        *("study.toml", "align.py", "a.parquet", "b.parquet"),
        *("__init__.py", "score.py", "own_network.py"),
    }
    assert str(tmp_path) not in (tmp_path / "sent" / "study.toml").read_text()


def test_files_that_a_table_names_in_structs_and_a_folder_without_a_slash_go_along(
    tiny_study, tmp_path, monkeypatch
):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"pixels")
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pictures = pa.array(
        [{"bytes": None, "path": "a.png"}, {"bytes": b"here", "path": "elsewhere.png"}], struct
    )
    pq.write_table(pa.table({"picture": pictures, "en": ["one", "two"]}), data / "t.parquet")
    of_table = tiny_study.replace(dataset={"source": str(data / "t.parquet")})
    pack(changed(of_table, store="s3://bucket/store"), tmp_path / "sent")
    assert [path.read_bytes() for path in (tmp_path / "sent" / "files").rglob("*.png")] == [b"pixels"]
    monkeypatch.chdir(tmp_path)
    of_folder = tiny_study.replace(dataset={"source": "data"})
    pack(changed(of_folder, store="s3://bucket/store"), tmp_path / "again")
    assert {path.name for path in (tmp_path / "again" / "files").rglob("*.*")} >= {"a.png", "t.parquet"}


def test_weights_go_along_without_what_is_hidden_in_their_folder(tiny_study, tiny_bert, tmp_path):
    weights = tmp_path / "bert"
    weights.mkdir()
    for path in tiny_bert.iterdir():
        (weights / path.name).write_bytes(path.read_bytes())
    (weights / ".git").mkdir()
    (weights / ".git" / "config").write_text("planted")
    models = [
        *(model.model_dump() for model in tiny_study.models),
        {"name": "b", "kind": "transformers-text", "weights": str(weights), "view": "en"},
        {"name": "away", "kind": "features", "weights": "s3://bucket/x.npy", "view": "en"},
    ]
    pack(changed(tiny_study.replace(models=models), store="s3://bucket/store"), tmp_path / "sent")
    sent = Study.from_toml(tmp_path / "sent" / "study.toml")
    assert sent.models[3].weights == "s3://bucket/x.npy"
    place = Path(sent.models[2].weights)
    assert place.is_relative_to(tmp_path / "sent")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {
        path.name: path.read_bytes() for path in tiny_bert.iterdir()
    }


def test_what_cannot_be_sent_is_refused_by_name_before_the_cluster_is_asked(
    owned, tiny_study, monkeypatch, tmp_path
):
    with pytest.raises(StudyError, match="--store s3://"):
        pr.submit(tiny_study)
    with pytest.raises(StoreError, match="holds credentials"):
        pr.submit(changed(tiny_study, store="s3://key:secret@bucket/store"))
    table = tmp_path / "own" / "data" / "a.parquet"
    for name, what in (
        ("/etc/passwd", "not below its folder"),
        ("../x.png", "not below its folder"),
        ("photos/none.png", "not there"),
    ):
        rows = pq.read_table(table).drop(["photo"])
        pq.write_table(rows.append_column("photo", pa.array([name] * 60)), table)
        with pytest.raises(StudyError, match=f"{name}, which is {what}"):
            pack(owned, tmp_path / name.replace("/", "-"))
    with pytest.raises(StudyError, match="no module 'elsewhere'"):
        pack(
            tiny_study.replace(metrics=[{"name": "elsewhere.metrics:M"}]),
            tmp_path / "no-module",
        )
    (tmp_path / "own" / "b.parquet").unlink()
    with pytest.raises(StudyError, match=r"b.parquet is not there"):
        pack(owned.replace(dataset={**owned.dataset.model_dump(), "views": {}}), tmp_path / "no-table")
    monkeypatch.setattr("platonic_ray.engine.package.MOST_BYTES", 1000)
    with pytest.raises(StudyError, match="too much to send along"):
        pack(changed(tiny_study, store="s3://bucket/store"), tmp_path / "large")


def test_what_is_installed_is_left_to_the_cluster(tiny_study):
    installed = {"name": "m", "kind": "module", "weights": "transformers.models.bert:build", "view": "en"}
    assert own_modules(tiny_study.replace(models=[installed])) == []


def test_what_every_node_must_see_where_nothing_is_sent_are_the_paths_of_tables_joined_ones_too(owned):
    joined = owned.dataset.model_copy(update={"join": (*owned.dataset.join, "hub:org/name@main")})
    assert set(local_paths(joined, owned.models)) == {owned.dataset.source, owned.dataset.join[0]}
