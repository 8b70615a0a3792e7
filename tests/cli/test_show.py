"""`show`: a saved result on the terminal."""

from support import run

import platonic_ray as pr


def test_a_saved_result_is_shown(features, tmp_path, capsys):
    _, rows = features
    pr.table({"a": rows, "b": rows[:, ::-1]}, metric=["mutual_knn", "cka"], k=5).save(tmp_path / "out")
    assert run("show", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "mutual_knn" in said
    assert "cka" in said
    assert run("show", tmp_path / "out", "--metric", "rsa") == 2
    assert run("show", tmp_path / "nothing") == 5
