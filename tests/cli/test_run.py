"""`demo` and `run`: the demo's study, and where they cannot write."""

from support import run

from platonic_ray.studies import packaged_study
from platonic_ray.study import Study


def test_the_demos_study_can_be_copied_and_is_the_demos(tmp_path, capsys):
    assert run("demo", "--write", tmp_path / "study.toml") == 0
    assert Study.from_toml(tmp_path / "study.toml") == packaged_study("demo")
    assert run("demo", "--write", tmp_path / "study.toml") == 2
    assert "there already" in capsys.readouterr().err


def test_the_demo_takes_more_languages_and_says_which_there_are(tmp_path, capsys):
    assert run("demo", "--languages", "fr,ja", "--write", tmp_path / "study.toml") == 0
    added = Study.from_toml(tmp_path / "study.toml").models[len(packaged_study("demo").models) :]
    assert [(model.name, model.use, model.view) for model in added] == [
        ("MiniLM fr", "minilm-l6", "name.fr"),
        ("MiniLM ja", "minilm-l6", "name.ja"),
    ]
    for wrong in ("xx", "de", "fr,fr"):
        assert run("demo", "--languages", wrong, "--samples", 9) == 2
        assert "fr, es, it" in capsys.readouterr().err


def test_the_demo_compares_text_with_text_images_with_images_and_both_and_two_languages():
    study = packaged_study("demo")
    views = [model.view for model in study.models]
    assert views.count("image") >= 3
    assert {"name.en", "name.de"} <= set(views)
    by_language = {
        model.view for model in study.models if model.use == "minilm-l6" and model.init == "pretrained"
    }
    assert by_language == {"name.en", "name.de"}


def test_a_store_that_cannot_be_written_is_one_clear_error(tmp_path, capsys, small_study):
    (tmp_path / "file").write_text("")
    (tmp_path / "study.toml").write_text('[[models]]\nname = "p"\nuse = "pixels"\nview = "image"\n')
    assert (
        run("run", tmp_path / "study.toml", "--store", tmp_path / "file" / "store", "--engine", "local") == 5
    )
    assert "Choose a store" in capsys.readouterr().err


def test_a_study_that_cannot_be_written_is_one_clear_error(tmp_path, capsys):
    assert run("demo", "--write", tmp_path / "no" / "such" / "folder.toml") == 2
    assert "cannot be written" in capsys.readouterr().err
