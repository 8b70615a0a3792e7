"""`init`: the study that it writes is valid, for the emoji and for samples of one's own."""

import json
import tomllib

import pyarrow as pa
import pyarrow.parquet as pq
from support import run

from platonic_ray.study import Study


def test_the_study_for_the_emoji_names_text_image_and_floors(tmp_path, capsys):
    file = tmp_path / "study.toml"
    assert run("init", file) == 0
    assert "platonic-ray run" in capsys.readouterr().out
    study = Study.from_toml(file)
    assert study.dataset.samples == 200
    assert {model.view for model in study.models} == {"name.en", "name.de", "image"}
    assert {model.use for model in study.models if model.init == "random"} == {
        "minilm-l6",
        "efficientnet-lite0",
    }
    assert run("init", file) == 2
    assert "there already" in capsys.readouterr().err


def test_samples_of_ones_own_are_looked_at_and_named_relative_to_the_study(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    source = tmp_path / "data" / "pairs.parquet"
    pq.write_table(
        pa.table({'a "caption"': ["x"] * 9, "übersetzt": ["y"] * 9, "id": list("abcdefghi")}), source
    )
    file = tmp_path / "mine.toml"
    assert run("init", file, "--dataset", source, "--json") == 0
    assert json.loads(capsys.readouterr().out)["views"] == {'a "caption"': "text", "übersetzt": "text"}
    assert tomllib.loads(file.read_text())["dataset"]["source"] == "data/pairs.parquet"
    study = Study.from_toml(file)
    assert study.dataset.source == str(source)
    assert [model.name for model in study.models] == [
        "MiniLM",
        "MiniLM random",
        "char TF-IDF",
        "MiniLM übersetzt",
    ]


def test_samples_that_cannot_be_read_write_no_study(tmp_path, capsys):
    assert run("init", tmp_path / "study.toml", "--dataset", tmp_path / "none.parquet") == 3
    assert not (tmp_path / "study.toml").exists()
