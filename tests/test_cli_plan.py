"""`platonic-ray plan` says what a study will take, and runs nothing of it."""

import json

import pytest

import platonic_ray as pr
from platonic_ray.cli import main
from platonic_ray.engine.calibration import write_study
from platonic_ray.engine.planning import forecast_study, weight_bytes_of
from platonic_ray.engine.prepare import prepare
from platonic_ray.plan.machines import Cluster, gpu_machine
from platonic_ray.store import Store


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    write_study(folder, 600, [[16, 16], [32]])
    models = "".join(
        f'[[models]]\nname = "model {at}"\nkind = "features"\nweights = "."\nview = "text"\n'
        f'file = "model-{at}.safetensors"\n'
        for at in (0, 1)
    )
    text = f'{models}[[metrics]]\nname = "mutual_knn"\n[[metrics]]\nname = "cka"\n[null]\npermutations = 0\n'
    text = f'[dataset]\nsource = "./samples.parquet"\n{text}[run]\nengine = "local"\nstore = "store"\n'
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def planned(capsys, *arguments):
    assert main(["plan", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


GPUS = ("--gpus", "8xH100", "--nodes", 4)


def test_a_plan_counts_what_is_to_be_done_and_then_what_is_there(study_file, capsys):
    before = planned(capsys, study_file, *GPUS, "--price", 40)
    tasks = {kind["kind"]: (kind["tasks"], kind["stored"]) for kind in before["kinds"]}
    assert tasks == {
        "Embed": (6, 0),
        "NeighborTile": (12, 0),
        "NeighborBlock": (6, 0),
        "KernelTile": (6, 0),
        "Score": (3, 0),
    }
    assert (before["samples"], before["models"], before["layers"], before["workers"]) == (600, 2, 3, 32)
    assert before["feature_bytes"] == 600 * 64 * 4
    assert before["seconds"] > 0
    assert before["cost"] == pytest.approx(40 * 4 * before["seconds"] / 3600)
    store = Store(str(study_file.parent / "store"))
    assert store.runs() == []  # nothing was run

    pr.align(study_file, quiet=True)
    after = planned(capsys, study_file, *GPUS)
    assert after["finished"]
    assert all(kind["stored"] == kind["tasks"] for kind in after["kinds"])

    key = next((study_file.parent / "store" / "neighbors").glob("*/*"))
    next(key.glob("manifest.json")).unlink()
    next((study_file.parent / "store" / "results").glob("*/*/manifest.json")).unlink()
    left = {
        kind["kind"]: kind["tasks"] - kind["stored"] for kind in planned(capsys, study_file, *GPUS)["kinds"]
    }
    assert left == {"Embed": 0, "NeighborTile": 3, "NeighborBlock": 1, "KernelTile": 0, "Score": 0}


def test_a_plan_for_people_states_its_assumptions_and_what_does_not_fit(study_file, capsys):
    assert main(["plan", str(study_file), "--gpus", "T4", "--samples", str(10**9)]) == 0
    said = capsys.readouterr().out
    assert "1,000,000,000 samples" in said
    assert "IT DOES NOT FIT" in said
    assert "fits up to about N = " in said
    assert "65 TFLOP/s by its data sheet" in said
    assert "2 GB/s of object storage" in said


def test_what_no_plan_can_be_made_of_is_refused(study_file, capsys):
    for arguments in (
        ["--gpus", "8xTPU"],
        ["--gpus", "T4", "--nodes", "0"],
        ["--gpus", "T4", "--workers", "2"],
    ):
        assert main(["plan", str(study_file), *arguments]) == 2
        assert capsys.readouterr().err.startswith("error: --")


def test_halves_that_choose_layers_and_report_are_planned_one_after_the_other(study_file, capsys):
    held_out = study_file.with_name("held-out.toml")
    held_out.write_text(
        'choose_layers = "held-out"\n' + study_file.read_text().replace('"store"', '"halves"')
    )
    before = planned(capsys, held_out, *GPUS)
    assert (before["samples"], before["choosing"]["samples"]) == (300, 300)
    assert main(["plan", str(held_out), *map(str, GPUS)]) == 0
    said = capsys.readouterr().out
    assert "the half that chooses layers: 300 samples" in said
    assert "the half that reports: 300 samples" in said
    assert "The halves run one after the other" in said
    of_many = planned(capsys, held_out, *GPUS, "--samples", 10_001)
    assert (of_many["samples"], of_many["choosing"]["samples"]) == (5001, 5000)
    pr.align(held_out, quiet=True)
    after = planned(capsys, held_out, *GPUS)
    assert after["finished"]
    assert after["seconds"] == after["choosing"]["seconds"] == 0


def test_models_are_planned_without_their_weights(samples, tiny_bert, tmp_path):
    """A network's layers, parameters and tokens come from its configuration."""
    from support import make_small_study

    study = make_small_study(samples, tiny_bert, engine="local", store=str(tmp_path / "store"))
    told = forecast_study(study, Cluster(gpu_machine("H100")))
    bert = told.forecast.workload.models[0]
    assert bert.layers == 4
    assert bert.parameters > 10_000
    assert 3 < bert.tokens < 20
    embed = next(kind for kind in told.forecast.kinds if kind.kind == "Embed")
    assert embed.flops > 600 * 2 * bert.parameters * 3
    there = weight_bytes_of(prepare(study, Store.open(study.run.store)))
    assert there == (4 * bert.parameters, 4 * bert.parameters, 0, 0)


@pytest.mark.slow
def test_this_machine_is_calibrated_once_and_read_from_the_cache(study_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PLATONIC_RAY_CACHE", str(tmp_path))
    first = planned(capsys, study_file)
    (kept,) = tmp_path.glob("machine-*.json")
    written = kept.stat().st_mtime_ns
    assert planned(capsys, study_file)["seconds"] == first["seconds"]
    assert kept.stat().st_mtime_ns == written
    figures = json.loads(kept.read_text())
    assert figures["float32_flops"] > figures["float64_flops"] > 1e8
    assert {"Embed", "NeighborSweep", "NeighborBlock", "KernelTile", "PermutedKernel", "Score"} <= set(
        figures["speeds"]
    )
