import json

from support import run

import platonic_ray as pr
from platonic_ray.metrics import metrics


def test_the_list_of_metrics_states_what_each_declares(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert run("metrics", "--json") == 0
    listed = {fact["name"]: fact for fact in json.loads(capsys.readouterr().out)}
    assert list(listed) == [metric.name for metric in metrics()]
    assert listed["lcs_knn"]["options"] == {"k": 10, "normalized": True}
    assert listed["cycle_knn"]["symmetric"] is False
    assert listed["cycle_knn"]["needs"] == ["neighbors", "all rows of x's neighbors"]
    assert listed["unbiased_cka"]["bounds"] == [-1, 1]
    assert listed["unbiased_cka"]["min_samples"] == 4
    assert listed["cknna"]["bounds"] == [None, None]
    assert listed["cknna_paper"]["needs"] == ["neighbors", "their similarities", "row sums of the kernel"]
    assert listed["cknna"]["in_reference"] is True
    assert listed["jaccard_knn"]["in_reference"] is False
    assert run("metrics") == 0
    out = capsys.readouterr().out
    assert "  cycle_knn: share of samples" in out
    assert "not symmetric" in out
    assert "similarity, no bounds" in out
    assert "options  k = 10, normalized = true" in out
    for name, fact in listed.items():
        assert f"  {name}: " in out
        assert fact["family"] in ("neighbors", "kernel", "rows")
    assert max(len(line) for line in out.splitlines()) <= 100


def test_a_table_in_memory_holds_both_orders_of_a_metric_that_is_not_symmetric():
    import numpy as np

    x = np.random.default_rng(0).normal(size=(40, 2, 6))
    result = pr.table({"a": x, "b": x[:, 0] + x[:, 1]}, metric=["cycle_knn", "rank_knn"], k=4)
    pairs = result.pairs("cycle_knn").select("model_x", "model_y").rows()
    assert ("a", "b") in pairs
    assert ("b", "a") in pairs
    forth, back = result.layers_matrix("a", "b", "cycle_knn"), result.layers_matrix("b", "a", "cycle_knn")
    assert forth.values[1, 0] == pr.score(x[:, 1], x[:, 0] + x[:, 1], "cycle_knn", k=4)
    assert back.values[0, 1] == pr.score(x[:, 0] + x[:, 1], x[:, 1], "cycle_knn", k=4)
