"""Studies: what is accepted, and errors that name the key and the fix."""

import pytest

from platonic_ray.errors import StudyError
from platonic_ray.study import MetricEntry, Study

MODEL = {"name": "a", "use": "pixels", "view": "image"}


def refused(**given) -> str:
    with pytest.raises(StudyError) as caught:
        Study.from_dict({"models": [MODEL], **given})
    return str(caught.value)


def test_the_smallest_study_has_the_documented_defaults():
    study = Study.from_dict({"models": [MODEL]})
    assert (study.dataset.source, study.recipe, study.shard_rows, study.seed) == ("emoji", "l2", 256, 0)
    assert study.metrics == (MetricEntry(name="mutual_knn"),)


def test_an_unknown_key_is_named_with_its_place():
    assert "models[0].colour: unknown key" in refused(models=[{**MODEL, "colour": "red"}])


def test_a_missing_key_is_named():
    assert "models[0].view: missing" in refused(models=[{"name": "a", "use": "pixels"}])


def test_a_value_out_of_range_is_shown():
    assert "shard_rows" in (said := refused(shard_rows=0))
    assert "given: 0" in said


def test_all_errors_are_listed_at_once():
    said = refused(shard_rows=-1, seed="x", recipe="l3")
    assert all(key in said for key in ("shard_rows", "seed", "recipe"))


def test_two_models_of_one_name_are_refused():
    assert "given more than once: a" in refused(models=[MODEL, MODEL])


def test_a_model_has_one_source():
    assert "either 'use'" in refused(models=[{"name": "a", "view": "image"}])
    assert "either 'use'" in refused(models=[{**MODEL, "kind": "pixels"}])


def test_a_study_cannot_be_changed():
    study = Study.from_dict({"models": [MODEL]})
    with pytest.raises(Exception, match="frozen"):
        study.seed = 3


def test_options_of_a_metric_stand_beside_its_name(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        """
        [[metrics]]
        name = "mutual_knn"
        k = 5
        [[models]]
        name = "a"
        use = "pixels"
        view = "image"
        """
    )
    assert Study.from_toml(path).metrics == (MetricEntry(name="mutual_knn", options={"k": 5}),)


def test_paths_are_relative_to_the_study_file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        """
        [dataset]
        source = "data/samples.parquet"
        [run]
        store = "store"
        [[models]]
        name = "a"
        kind = "transformers-text"
        weights = "models/a"
        view = "text"
        [[models]]
        name = "b"
        kind = "transformers-text"
        weights = "hub:org/b"
        view = "text"
        """
    )
    study = Study.from_toml(path)
    assert study.dataset.source == str(tmp_path / "data/samples.parquet")
    assert study.run.store == str(tmp_path / "store")
    assert [model.weights for model in study.models] == [str(tmp_path / "models/a"), "hub:org/b"]


def test_a_copy_is_validated_like_the_original():
    study = Study.from_dict({"models": [MODEL]})
    assert study.replace(seed=4).seed == 4
    with pytest.raises(StudyError, match="seed"):
        study.replace(seed=-1)


def test_a_study_survives_its_own_dump():
    study = Study.from_dict({"models": [MODEL], "metrics": [{"name": "mutual_knn", "k": 3}, "cka"]})
    assert Study.from_dict(study.model_dump(mode="json")) == study


@pytest.mark.parametrize("content", ["name = ", "name = 'a'\nname = 'b'"])
def test_a_file_that_is_no_toml_is_one_clear_error(tmp_path, content):
    path = tmp_path / "study.toml"
    path.write_text(content)
    with pytest.raises(StudyError, match="not valid TOML"):
        Study.from_toml(path)


def test_a_missing_file_tells_how_to_get_one(tmp_path):
    with pytest.raises(StudyError, match="demo --write"):
        Study.from_toml(tmp_path / "none.toml")


def test_any_relative_file_of_samples_is_relative_to_the_study(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        """
        dataset.source = "samples.pq"
        [[models]]
        name = "a"
        use = "pixels"
        view = "image"
        """
    )
    assert Study.from_toml(path).dataset.source == str(tmp_path / "samples.pq")


def test_a_model_takes_a_fraction_of_a_gpu_or_whole_ones():
    assert "fraction" in refused(run={"gpus_per_model": 1.5})
    assert Study.from_dict({"models": [MODEL], "run": {"gpus_per_model": 2}}).run.gpus_per_model == 2


def test_machines_are_asked_for_only_where_models_would_use_them():
    assert "ask_gpus" in refused(run={"ask_gpus": 2, "device": "cpu"})


@pytest.mark.parametrize(
    "wrong", [{"permutations": -1}, {"permutations": "many"}, {"alpha": 0}, {"alpha": 1}]
)
def test_a_null_out_of_range_is_refused(wrong):
    with pytest.raises(StudyError, match=rf"null\.{next(iter(wrong))}"):
        Study.from_dict({"models": [{"name": "a", "view": "v", "use": "x"}], "null": wrong})
