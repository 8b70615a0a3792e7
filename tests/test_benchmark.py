"""The benchmark of the published table at a small size: it is right, whatever time it takes."""

import importlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platonic_ray.errors import StudyError
from platonic_ray.metrics import get_metric, score_tables

JOBS = Path(__file__).parent.parent / "jobs"
SMALL = ["--scale", "0.01", "--samples", "80", "--k", "5"]

METRICS = """
import torch
import torchaudio.functional as TAF
from sklearn.cross_decomposition import CCA


class AlignmentMetrics:
    @staticmethod
    def measure(metric, x, y, topk):
        assert metric == "mutual_knn"
        both = [compute_nearest_neighbors(rows.cuda(), topk).tolist() for rows in (x, y)]
        return sum(len(set(a) & set(b)) for a, b in zip(*both)) / (len(x) * topk)


def compute_nearest_neighbors(feats, topk=1):
    return (feats @ feats.T).fill_diagonal_(-1e8).argsort(dim=1, descending=True)[:, :topk]


def remove_outliers(feats, q, exact=False):
    value = feats.flatten().abs().sort().values[int(q * feats.numel())]
    return feats.clamp(-value, value)
"""


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(JOBS))
    yield importlib.import_module("benchmark")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bench", "benchmark", "metrics")]:
        del sys.modules[name]


def test_scores_of_the_whole_table_are_those_of_dense_float64_neighbors(jobs: Any) -> None:
    features = importlib.import_module("bench.features")
    xs, ys = features.paper_models(0.01, 80)
    report = jobs.main(["table", *SMALL])
    assert report["layer_pairs"] == sum(x.layers for x in xs) * sum(y.layers for y in ys)
    assert report["layer_pairs"] == len(xs) * len(ys) == 12 * 17
    expected = []
    near = {model.name: _neighbors(model.all_layers(), 5) for model in (*xs[:3], *ys[:3])}
    for x in xs[:3]:
        for y in ys[:3]:
            shared = [len(set(a) & set(b)) for a, b in zip(near[x.name], near[y.name], strict=True)]
            expected.append(sum(shared) / (80 * 5))
    tables = score_tables(
        {x.name: x.all_layers for x in xs[:3]}, {y.name: y.all_layers for y in ys[:3]},
        [get_metric("mutual_knn", k=5)], recipe="huh2024",
    )  # fmt: skip
    assert [float(of.scores[0, 0]) for of in tables] == pytest.approx(expected, abs=1e-12)
    settled = report["settled"]
    assert sum(share for stage, share in settled.items() if stage != "pairs") == pytest.approx(1)
    # The features are what they are for: models agree more than by chance, and not wholly.
    assert 5 / 79 < report["mean_score"] < 0.9


def test_a_checkout_of_the_reference_is_timed_and_compared(jobs: Any, tmp_path: Path) -> None:
    (tmp_path / "metrics.py").write_text(METRICS)
    report = jobs.main(["table", *SMALL, "--reference", str(tmp_path), "--pairs", "4"])
    compared = report["reference"]
    assert compared["clamp_equal"]
    assert compared["largest_difference_in_float64"] == pytest.approx(0, abs=1e-12)
    assert compared["largest_difference"] <= 2 * compared["rows_whose_float32_neighbors_differ"] / (80 * 5)
    assert report["ratio"] > 0
    with pytest.raises(FileNotFoundError, match="no checkout"):
        jobs.main(["table", *SMALL, "--reference", str(JOBS)])


def test_the_other_parts_report_every_metric_asked_for(jobs: Any) -> None:
    kernels = jobs.main(["table", "--part", "kernel-metrics", *SMALL])
    assert [name.partition("(")[0] for name in kernels["metrics"]] == ["cka", "unbiased_cka"]
    lists = jobs.main(["table", "--part", "neighbor-metrics", *SMALL])
    for name in ("mutual_knn", "cycle_knn", "lcs_knn", "edit_distance_knn", "jaccard_knn", "rank_knn"):
        assert 0 < lists[name]["mean_score"] < 1
    null = jobs.main(["table", "--part", "null", *SMALL, "--permutations", "3"])
    assert null["mutual_knn"]["ratio"] > 0


def test_neighbors_and_kernels_check_what_they_time(jobs: Any) -> None:
    size = ["--samples", "2100", "--width", "16", "--repeats", "1"]
    kinds = [word for kind in ("low-rank", "duplicates") for word in ("--data", kind)]
    found = jobs.main(["neighbors", *size, *kinds, "--without-faiss", "--from-file"])
    assert [row["data"] for row in found["rows"]] == ["low-rank", "duplicates"]
    assert all(row["from_file_s"] > 0 for row in found["rows"])
    kernels = jobs.main(["kernels", "--samples", "2100", "--width", "16", "--models", "2"])
    assert kernels["largest_difference_from_float64"] < 1e-5


def _neighbors(layers: list[Any], k: int) -> list[list[int]]:
    """The k nearest of the only layer, as the published recipe prepares it, in plain numpy."""
    rows = layers[0].double().numpy()
    bound = np.sort(np.abs(rows).ravel())[int(0.95 * rows.size)]
    rows = np.clip(rows, -bound, bound)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    found: list[list[int]] = np.argsort(-similar, axis=1)[:, :k].tolist()
    return found


def test_the_scorers_times_come_with_equal_scores(jobs: Any) -> None:
    report = jobs.main(
        ["scorer", "--samples", "80", "--k", "5", "--references", "3", "--width", "16", "--repeats", "1"]
    )
    assert report["mutual_knn"]["equal"]
    assert report["cka"]["score_ms"] > 0


def test_as_a_job_its_output_is_json_and_the_last_line_beside_it_tells_how_it_ended(monkeypatch, capsys):
    monkeypatch.syspath_prepend(JOBS)
    scorer = ["scorer", "--samples", "40", "--references", "1", "--repeats", "1", "--width", "8"]
    for options, status, line in (
        ([], 0, "done"),
        (["--metric", "no_such_metric"], StudyError.exit_status, "failed with exit status 2"),
        (["--no-such-option"], 2, "failed with exit status 2"),
    ):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *scorer, *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(JOBS / "benchmark.py"), run_name="__main__")
        said = capsys.readouterr()
        assert ended.value.code == status, said.err
        assert said.err.endswith(f"\n{line}\n")
        assert bool(said.out) == (status == 0)
        assert status or json.loads(said.out)


@pytest.mark.slow
def test_the_simulated_scales_say_what_they_assume_and_what_losses_cost(jobs: Any) -> None:
    report = jobs.main(["scales", "--price", "20"])
    assert any("25 GB/s" in assumed for assumed in report["assumptions"])
    internet = next(
        row
        for row in report["rows"]
        if (row["row"], row["gpus"], row["bytes_move"]) == ("internet", 1024, "while GPUs compute")
    )
    assert internet["efficiency"] >= 0.9
    for row in report["losses"]:
        assert row["mean_hours"] > row["hours_without"]
        assert row["mean_repeated_share"] > 0
        assert row["mean_cost"] == pytest.approx(20 * row["mean_node_hours"], abs=0.05)
