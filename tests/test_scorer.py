"""`Scorer` and `extract`: the scores of `pr.score`, references that are kept and passed on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import platonic_ray as pr
from platonic_ray.errors import DataError, StudyError
from platonic_ray.metrics import against, get_metric, metrics, score_tables

N = 60


def stack(seed: int, layers: int, width: int, n: int = N) -> np.ndarray:
    """Features `[n, layers, width]` float32 with a part that all seeds share."""
    shared = np.random.default_rng(0).normal(size=(n, 1, 8))
    drawn = np.random.default_rng(seed)
    mixed = shared @ drawn.normal(size=(8, width)) + drawn.normal(size=(n, layers, width))
    return mixed.astype(np.float32)


AGAINST = {"a": stack(1, 1, 12), "b": stack(2, 3, 5), "c": stack(3, 1, 12)[:, 0]}


@pytest.mark.parametrize("name", [metric.name for metric in metrics()])
@pytest.mark.parametrize("recipe", ["l2", "huh2024"])
def test_scores_of_every_metric_are_those_of_score_to_the_last_bit(name: str, recipe: str) -> None:
    features = stack(9, 2, 7)
    found = pr.Scorer(AGAINST, metric=name, k=4, recipe=recipe).score(features)
    for reference, of in AGAINST.items():
        expected = pr.score(features, of, name, k=4, recipe=recipe)
        assert found[reference].score == expected or np.isnan([found[reference].score, expected]).all()


@pytest.mark.parametrize("options", [{}, {"kernel": "rbf", "median": 0.5}])
def test_kernels_of_more_samples_than_are_held_as_cells_score_the_same(options, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    features = stack(9, 2, 7)
    held = pr.Scorer(AGAINST, metric="cka", **options).score(features)
    monkeypatch.setattr(against, "cells_fit", lambda *_: False)
    anew = pr.Scorer(AGAINST, metric="cka", **options).score(features)
    assert [row.score for row in held] == [row.score for row in anew]


def test_several_metrics_share_what_is_kept_and_layers_are_those_of_a_table() -> None:
    names = ["mutual_knn", "cka", "cknna", "lcs_knn", "unbiased_cka"]
    features = stack(9, 3, 7)
    found = pr.Scorer(AGAINST, metric=names, k=4).score(features)
    tables = score_tables({"x": features}, AGAINST, [get_metric(name) for name in names[1:2]])
    for pair in tables:
        score, i, j = pair.best()
        row = found[pair.y, "cka"]
        assert (row.score, row.layer, row.reference_layer) == (score, i, j)
        assert row.reference_layer_name == f"layer {j}"
    assert len(found) == len(names) * len(AGAINST)
    assert set(found.frame()["metric"]) == set(names)
    assert found.log("train")["train/cka/b"] == found["b", "cka"].score


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 6), st.booleans())
def test_scores_hold_for_ties_and_duplicates_and_after_other_features(seed, n, width, coarse) -> None:  # type: ignore[no-untyped-def]
    drawn = np.random.default_rng(seed)
    x, other, y = (drawn.normal(size=(n, width)) for _ in range(3))
    if coarse:
        x, y = x.round(), y.round()
    scorer = pr.Scorer({"y": y}, k=1)
    scorer.score(other)
    assert scorer.score(x)["y"].score == pr.score(x, y, k=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_come_as_tensors_lists_of_layers_and_with_gradients(dtype: torch.dtype) -> None:
    features = torch.from_numpy(stack(9, 2, 7)).to(dtype)
    scorer = pr.Scorer(AGAINST, k=4)
    whole = scorer.score(features.requires_grad_(True)).log()
    assert whole == scorer.score([features[:, 0], features[:, 1]]).log()
    assert whole["alignment/mutual_knn/b"] == pr.score(features.detach(), AGAINST["b"], k=4)


def test_what_cannot_be_scored_is_one_clear_error() -> None:
    scorer = pr.Scorer(AGAINST, k=4)
    with pytest.raises(DataError, match="59 rows; the references have 60"):
        scorer.score(stack(9, 1, 7)[:-1])
    with pytest.raises(DataError, match=r"3 rows; .* first axis, \[N, L, D\]"):
        scorer.score(stack(9, 3, 7).swapaxes(0, 1))
    with pytest.raises(DataError, match="NaN"):
        scorer.score(np.full((N, 3), np.nan))
    with pytest.raises(StudyError, match="needs more than 60 samples"):
        pr.Scorer(AGAINST, k=60)
    with pytest.raises(StudyError, match="no models"):
        pr.Scorer({})
    with pytest.raises(StudyError, match="without a dataset"):
        pr.Scorer(AGAINST, dataset="emoji")
    with pytest.raises(DataError, match="same samples"):
        pr.Scorer({**AGAINST, "short": np.ones((9, 2))})
    with pytest.raises(StudyError, match="of one metric"):
        pr.Scorer(AGAINST, metric=["cka", "mutual_knn"], kernel="rbf")
    with pytest.raises(StudyError, match="twice"):
        pr.Scorer(AGAINST, metric=["cka", "cka"])


@pytest.fixture
def emoji(tmp_path):
    """A few emoji, and a store of the test's own."""
    return {"dataset": {"source": "emoji", "samples": 40}, "store": str(tmp_path / "store")}


def test_references_of_a_dataset_are_run_once_and_passed_on_as_one_file(emoji, tmp_path) -> None:
    models = ["pixels", {"name": "tf-idf de", "use": "char-tfidf", "view": "name.de"}]
    scorer = pr.Scorer(models, **emoji, metric=["mutual_knn", "cka"], k=5)
    assert scorer.models == ("pixels", "tf-idf de")
    pixels = pr.extract("pixels", **emoji)
    assert (pixels.view, pixels.names, pixels[0].shape) == ("image", ("pixels",), (40, 3072))
    found = scorer.score(pixels)
    assert found["pixels"].score == 1.0
    file = scorer.save(tmp_path / "references.safetensors")
    passed_on = pr.Scorer(file, dataset=emoji["dataset"], metric=["mutual_knn", "cka"], k=5)
    assert passed_on.score(pixels) == found
    with pytest.raises(DataError, match="other samples"):
        pr.Scorer(file, dataset="emoji")
    with pytest.raises(DataError, match="other samples"):
        passed_on.score(
            pr.extract("pixels", {"source": "emoji", "samples": 40}, seed=1, store=emoji["store"])
        )


def test_a_scorer_read_from_its_file_scores_as_it_did_unless_told_otherwise(tmp_path) -> None:
    scorer = pr.Scorer(AGAINST, metric=["mutual_knn", "unbiased_cka"], k=4, recipe="none")
    features = next(iter(AGAINST.values()))
    file = scorer.save(tmp_path / "references.safetensors")
    assert pr.Scorer(file).score(features) == scorer.score(features)
    fewer = pr.Scorer(AGAINST, metric="mutual_knn", k=3, recipe="l2").score(features)
    assert pr.Scorer(file, metric="mutual_knn", k=3, recipe="l2").score(features) == fewer
    assert "mutual_knn(k=5), unbiased_cka" in repr(pr.Scorer(file, k=5))
    with pytest.raises(StudyError, match="options are of one metric"):
        pr.Scorer(file, kernel="rbf")
    mine = replace(
        scorer.references, scored={"recipe": "l2", "metrics": [{"name": "os:path", "options": {}}]}
    )
    with pytest.raises(StudyError, match="of one's own"):
        pr.Scorer(mine.save(tmp_path / "own.safetensors"))


def test_a_file_of_references_that_was_changed_is_refused(tmp_path) -> None:
    file = pr.Scorer(AGAINST, k=4).save(tmp_path / "references.safetensors")
    with pytest.raises(DataError, match="do not say of which samples"):
        pr.Scorer(file, dataset="emoji")
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        facts = opened.metadata()
    tensors = load_file(file)
    tensors["0000.0000"][3, 0] += 1e-3
    save_file(tensors, file, metadata=facts)
    with pytest.raises(DataError, match="damaged or changed"):
        pr.Scorer(file, k=4)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        pr.Scorer(file)
    save_file(tensors, file)
    with pytest.raises(DataError, match="holds no references"):
        pr.Scorer(file)
    with pytest.raises(DataError, match="no file"):
        pr.Scorer(tmp_path / "none.safetensors")


def test_extracting_again_reads_the_store_and_a_study_finds_the_features(emoji, monkeypatch) -> None:
    from platonic_ray.engine.embedding import ModelRunner

    first = pr.extract("pixels", **emoji)
    monkeypatch.setattr(ModelRunner, "load", lambda self: pytest.fail("the model was loaded again"))
    assert torch.equal(pr.extract("pixels", **emoji)[0], first[0])


def test_a_live_network_is_evaluated_and_goes_on_training(emoji) -> None:
    network = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(3, 2))
    network[1].eval()

    def features(model, images):  # type: ignore[no-untyped-def]
        means = torch.from_numpy(np.array([np.asarray(image).mean((0, 1)) for image in images], np.float32))
        return [means, model(means)]

    found = pr.extract(network, emoji["dataset"], features, view="image", batch=16)
    assert [rows.shape for rows in found] == [(40, 3), (40, 2)]
    torch.testing.assert_close(
        found[1], network[1](found[0]).detach()
    )  # products of 16 rows at a time, and of 40
    assert (network.training, network[0].training, network[1].training) == (True, True, False)
    assert pr.score(found, found[0], k=3) == 1.0
    with pytest.raises(DataError, match="a row a sample"):
        pr.extract(network, emoji["dataset"], lambda model, items: np.ones((1, 2)), view="image")
    with pytest.raises(StudyError, match="which view"):
        pr.extract(network, emoji["dataset"], features)
    with pytest.raises(StudyError, match="give a function too"):
        pr.extract(network, emoji["dataset"])
