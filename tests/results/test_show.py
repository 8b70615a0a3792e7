"""Tables of text, and JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from rich.cells import cell_len

from platonic_ray.errors import StudyError
from platonic_ray.results import LayerInfo, PairScores, Result, render_json, render_table
from platonic_ray.statistics import Calibration


def test_a_symmetric_table_is_its_lower_triangle_with_the_layers_turned_round():
    layers = [LayerInfo(name, at, f"l{at}", width=4) for name in "ab" for at in range(12)]
    scores = np.zeros((12, 12))
    scores[3, 11] = 0.3125
    result = Result.from_pairs([PairScores("cka", "a", "b", scores, n=50)], layers)
    square = Result.from_pairs(
        [
            PairScores("cka", "a", "b", scores, n=50),
            PairScores("cka", "a", "a", np.eye(12), n=50),
            PairScores("cka", "b", "b", np.eye(12), n=50),
        ],
        layers,
    )
    assert "0.312 (3,11)" in render_table(result)
    text = render_table(square)
    assert "0.312 (11,3)" in text
    assert text.count("0.312") == 1
    assert "1.000" not in text


def test_calibrated_scores_follow_where_there_is_a_null():
    layers = [LayerInfo(name, 0, "l", width=4) for name in "abc"]
    nulls = {"b": Calibration(0.01, 0.25, 0.3333), "c": Calibration(0.5, 0.7, 0.0)}
    pairs = [PairScores("cka", "a", y, [[0.5]], n=50, null=nulls[y]) for y in "bc"]
    pairs.append(PairScores("cka", "b", "c", [[np.nan]], n=50, null=Calibration(*[np.nan] * 3)))
    text = render_table(Result.from_pairs(pairs, layers))
    raw, below = text.split("calibrated scores: ")
    assert raw.count("0.500") == 2
    assert "0.333" in below
    assert "0.000" in below
    assert below.count("undef.") == 1
    without = [PairScores("cka", "a", "b", [[0.5]], n=50)]
    assert "calibrated" not in render_table(Result.from_pairs(without, layers[:2]))


def test_one_model_alone_shows_its_score_with_itself(make):
    assert "1.000 (0,0)" in render_table(make(["a"]))


def test_a_cross_table_is_shown_whole(make):
    text = render_table(make(["a", "b", "c", "d", "e"], cross=2), width=120)
    assert text.count("(") == 5 + 1  # six pairs, one of them undefined, and the legend
    assert "undef." in text
    assert "b – e: constant representation" in text
    assert "mutual_knn · emoji · n = 1,024 · k = 10 · chance 0.0098" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_of_the_table_is_wider_than_the_terminal(make, width):
    names = [f"organisation-{at}/some-model-{at}" for at in range(40)]
    text = render_table(make(names), width=width)
    table = text.split("\n\nbest score")[0]
    assert max(cell_len(line) for line in table.splitlines()[1:]) <= width
    # The second model against the last is undefined, every other pair has its cell.
    assert sum(line.count("(") for line in table.splitlines()) == 40 * 39 // 2 - 1


def test_scores_stand_under_each_other_whatever_script_the_names_are_in(make):
    names = ["ascii", "言語モデル", "נץ החמה", "naïve", "plain"]
    lines = [
        line for line in render_table(make(names), width=120).splitlines() if "(0," in line or "(1," in line
    ]
    starts = {cell_len(line[: line.index("0.")]) for line in lines if "0." in line}
    assert len(starts) == 1


def test_hostile_names_cannot_break_the_table(make, hostile):
    text = render_table(make(hostile), width=100)
    assert "\x1b" not in text
    assert "\t" not in text
    assert "[bold red]not" in text
    assert "<script>alert" in text


def test_a_name_cannot_turn_the_text_around_it():
    layers = [LayerInfo(name, 0, "l", width=4) for name in ("a\u202eb", "c")]
    text = render_table(Result.from_pairs([PairScores("cka", "a\u202eb", "c", [[0.5]], n=9)], layers))
    assert "\u202e" not in text


def test_json_has_every_pair_and_null_for_nan(make):
    result = make(["a", "b", "c"])
    document = json.loads(render_json(result), parse_constant=lambda word: pytest.fail(word))
    assert len(document["models"]) == 6
    assert [row["score"] for row in document["models"]].count(None) == 1
    assert document["models"][0]["layer_x_name"] == "block.0"
    assert document["provenance"]["dataset"]["name"] == "emoji"
    assert "study" not in document["provenance"]


def test_json_survives_hostile_names_and_takes_a_metric(make, hostile):
    document = json.loads(render_json(make(hostile), "mutual_knn"))
    assert {row["model_x"] for row in document["models"]} == set(hostile)
    with pytest.raises(StudyError, match="it has: mutual_knn"):
        render_json(make(["a"]), "cka")


def test_all_of_a_hundred_models_are_shown(make):
    names = [f"model-{at}" for at in range(100)]
    table = render_table(make(names), width=120)
    assert all(name in table for name in names)
    assert max(map(len, table.splitlines())) <= 120


def test_showing_a_result_needs_neither_torch_nor_its_scores(make, tmp_path):
    folder = make(["a", "b", "c"]).save(tmp_path)
    (folder / "scores.parquet").unlink()
    script = (
        "import sys; from platonic_ray.cli import main; "
        f"assert main(['show', {str(folder)!r}]) == 0; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mutual_knn" in done.stdout
