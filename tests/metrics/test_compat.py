"""`compat = "platonic-rep"` against that code's arithmetic, stated anew in plain float64.

What that code does otherwise than the definitions: 1e-6 is added to each normalizer √(HSIC HSIC), after
HSIC_u was divided by n (n − 3) and HSIC_b by nothing; the longest common subsequence is not divided by k;
a table of (x, y) is scored as (y, x), and of a square table each pair once, but for cycle_knn; the best
over layers starts at 0, goes over y's layers first, and is stored as (layer of y, layer of x).
"""

import json

import numpy as np
import pytest
import torch
from list_oracles import cycles, lcs, levenshtein, overlap
from support import dense_features, tie_digests

import platonic_ray as pr
from platonic_ray.cli import main
from platonic_ray.errors import StudyError
from platonic_ray.kernels import exact_neighbors
from platonic_ray.metrics import best, get_metric, rows_digest, score_tables

from .dense_hsic import hsic, hsic_unbiased

K = 5


def neighbors(x: np.ndarray) -> list[list[int]]:
    rows = torch.from_numpy(x)
    return exact_neighbors(rows, K, rows_digest(rows)).ids[:, :K].tolist()


def mean(function, x: np.ndarray, y: np.ndarray) -> float:  # type: ignore[no-untyped-def]
    return float(np.mean([function(a, b) for a, b in zip(neighbors(x), neighbors(y), strict=True)]))


def cknna(x: np.ndarray, y: np.ndarray) -> float:
    n = len(x)
    kernels = [rows.astype("f8") @ rows.astype("f8").T for rows in (x, y)]
    masks = []
    for rows in (x, y):
        masks.append(np.zeros((n, n)))
        np.put_along_axis(masks[-1], np.array(neighbors(rows)), 1.0, axis=1)

    def similarity(a: int, b: int) -> float:
        both = masks[a] * masks[b]
        return hsic_unbiased(both * kernels[a], both * kernels[b]) / (n * (n - 3))

    return similarity(0, 1) / (np.sqrt(similarity(0, 0) * similarity(1, 1)) + 1e-6)


def cka(x: np.ndarray, y: np.ndarray, unbiased: bool = False, sigma: float | None = None) -> float:
    n = len(x)

    def kernel(rows: np.ndarray) -> np.ndarray:
        rows = rows.astype("f8")
        if sigma is None:
            return rows @ rows.T
        return np.exp(-((rows[:, None] - rows) ** 2).sum(2) / (2 * sigma**2))

    def hsic_of(a: np.ndarray, b: np.ndarray) -> float:
        return hsic_unbiased(a, b) / (n * (n - 3)) if unbiased else hsic(a, b)

    K, L = kernel(x), kernel(y)
    return hsic_of(K, L) / (np.sqrt(hsic_of(K, K) * hsic_of(L, L)) + 1e-6)


REFERENCE = {
    "cka": cka,
    "unbiased_cka": lambda x, y: cka(x, y, unbiased=True),
    "mutual_knn": lambda x, y: mean(overlap, x, y) / K,
    "cycle_knn": lambda x, y: cycles(neighbors(x), neighbors(y)) / len(x),
    "lcs_knn": lambda x, y: mean(lcs, x, y),
    "edit_distance_knn": lambda x, y: 1 - mean(levenshtein, x, y) / K,
    "cknna": cknna,
}


def drawn(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    made = np.random.default_rng(seed)
    x = made.normal(size=(n, 7)).astype("f4")
    return x, (x[:, :3] @ made.normal(size=(3, 6)) + made.normal(size=(n, 6))).astype("f4")


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("seed", range(3))
def test_two_matrices_score_what_that_code_scores(name: str, seed: int) -> None:
    x, y = drawn(seed)
    options = {"precision": "float64"} if "cka" in name else {"k": K}
    got = pr.score(x, y, name, recipe="none", compat="platonic-rep", **options)
    assert got == pytest.approx(REFERENCE[name](x, y), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["cka", "unbiased_cka"])
def test_the_epsilon_of_cka_shows_where_kernels_are_small_and_its_rbf_has_sigma_one(name: str) -> None:
    x, y = (rows / 300 for rows in drawn(4))
    unbiased = name == "unbiased_cka"
    options = {"recipe": "none", "precision": "float64", "compat": "platonic-rep"}
    small = pr.score(x, y, name, **options)
    assert small == pytest.approx(cka(x, y, unbiased), rel=1e-9)
    assert abs(small) < 0.96 * abs(pr.score(x, y, name, recipe="none", precision="float64"))
    x, y = drawn(4)
    assert pr.score(x, y, name, kernel="rbf", **options) == pytest.approx(cka(x, y, unbiased, 1.0), rel=1e-9)
    assert pr.score(x, y, name, kernel="rbf", sigma=3.0, **options) == pytest.approx(
        cka(x, y, unbiased, 3.0), rel=1e-9
    )


@pytest.mark.parametrize("name", ["cka", "unbiased_cka"])
def test_a_constant_representation_scores_zero_there_and_is_named(name: str) -> None:
    x, _ = drawn(0)
    (row,) = pr.table(
        {"x": np.ones((60, 3))}, {"y": x}, metric=name, compat="platonic-rep", permutations=0
    ).models.to_dicts()
    assert row["score"] == pytest.approx(0, abs=1e-6)
    (cell,) = pr.table(
        {"x": np.ones((60, 3))}, {"y": x}, metric=name, compat="platonic-rep"
    ).scores.to_dicts()
    assert "x: constant representation" in cell["status"]


def test_svcca_is_randomized_there_and_has_the_same_distribution_here_seeded() -> None:
    x, y = drawn(3, n=120)
    made = np.random.default_rng(0)
    x, y = (np.hstack([rows, made.normal(size=(120, 60))]).astype("f4") for rows in (x, y))

    def randomized(rows: np.ndarray) -> np.ndarray:
        """Left vectors of a rank-10 approximation after two power iterations, of standardized columns."""
        columns = rows - rows.mean(0)
        columns = columns / (columns.std(0, ddof=1) + 1e-8)
        basis = np.linalg.qr(columns.T @ made.normal(size=(len(rows), 10)))[0]
        for _ in range(2):
            basis = np.linalg.qr(columns.T @ np.linalg.qr(columns @ basis)[0])[0]
        return np.linalg.svd(columns @ basis, full_matrices=False)[0]

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.svd(a.T @ b)[1].mean())

    theirs = np.array([correlation(randomized(x), randomized(y)) for _ in range(100)])
    metric = get_metric("svcca", compat="platonic-rep")
    assert metric.unary is not None
    assert metric.pair is not None
    ours = []
    for seed in range(100):
        states = [
            metric.unary(torch.from_numpy(rows), f"{side}{seed:02x}".ljust(16, "7"), metric.options)
            for side, rows in enumerate((x, y))
        ]
        ours.append(metric.pair(*states, metric.options)[0])
    error = np.sqrt((theirs.var() + np.var(ours)) / 100)
    assert np.mean(ours) == pytest.approx(theirs.mean(), abs=4 * error)
    assert 0.6 < np.std(ours) / theirs.std() < 1.6
    again = [pr.score(x, y, "svcca", recipe="none", compat="platonic-rep") for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != pr.score(x, y, "svcca", recipe="none")


def test_the_epsilon_of_cknna_shows() -> None:
    x, _ = drawn(0, n=300)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    itself = pr.score(x, x, "cknna", k=K, compat="platonic-rep")
    assert itself == pytest.approx(cknna(x, x), rel=1e-6)
    assert itself < 0.9999
    assert pr.score(x, x, "cknna", k=K) == pytest.approx(1)


@pytest.mark.parametrize("name", ["cycle_knn", "cknna"])
def test_a_table_scores_the_pair_as_y_and_x(name: str) -> None:
    x, y = drawn(1)
    result = pr.table({"x": x}, {"y": y}, metric=name, k=K, recipe="none", compat="platonic-rep")
    assert result.matrix().at("x", "y") == pytest.approx(REFERENCE[name](y, x), rel=1e-9)
    assert REFERENCE[name](y, x) != pytest.approx(REFERENCE[name](x, y), rel=1e-6)
    square = pr.table({"x": x, "y": y}, metric=name, k=K, recipe="none", compat="platonic-rep").matrix()
    assert square.at("x", "y") == pytest.approx(REFERENCE[name](y, x), rel=1e-9)
    # Of a square table that code takes each pair once, but for cycle_knn.
    assert square.at("y", "x") == pytest.approx(REFERENCE[name](*((x, y) if name == "cycle_knn" else (y, x))))


def test_the_best_over_layers_starts_at_zero_and_goes_over_the_layers_of_y_first() -> None:
    nan = np.nan
    assert best(np.array([[-0.5, nan], [-0.1, -0.2]]), compat=True) == (0.0, -1, -1)
    assert best(np.full((2, 2), nan), compat=True) == (0.0, -1, -1)
    assert best(np.array([[0.1, 0.7], [0.7, nan]]), compat=True) == (0.7, 1, 0)
    assert best(np.array([[0.1, 0.7], [0.7, nan]])) == (0.7, 0, 1)


def test_layers_are_stored_as_that_code_stores_them() -> None:
    x, y = drawn(2)
    models = {"a": np.stack([y[:, :5], x[:, :5]], 1), "b": [x[:, 2:], x, x[:, 5:]]}
    ours = pr.table(models, k=K)
    theirs = pr.table(models, k=K, compat="platonic-rep")
    assert ours.pairs()["layer_x", "layer_y"].equals(theirs.pairs()["layer_x", "layer_y"])
    assert ours.best_layers()[0, 1].tolist() == [1, 1]
    assert ours.best_layers()[1, 0].tolist() == [1, 1]
    layers = ours.pairs().filter(model_x="a", model_y="b").row(0, named=True)
    cross = {"a": models["a"]}, {"b": models["b"][2:] + models["b"][:2]}
    forth = pr.table(*cross, k=K).best_layers()[0, 0]
    assert (forth[0], forth[1]) == (layers["layer_x"], 2)
    assert pr.table(*cross, k=K, compat="platonic-rep").best_layers()[0, 0].tolist() == [2, layers["layer_x"]]


def test_a_pair_without_a_score_above_zero_reads_zero_and_says_so() -> None:
    made = np.random.default_rng(0)
    for seed in range(40):
        x, y = made.normal(size=(12, 3)), np.random.default_rng(seed).normal(size=(12, 3))
        if pr.score(x, y, "cknna", k=3) < 0:
            break
    options = {"metric": "cknna", "k": 3, "permutations": 0}
    assert pr.score(x, y, "cknna", k=3, compat="platonic-rep") < 0
    assert pr.score([x], [y], "cknna", k=3, compat="platonic-rep") == 0
    (row,) = pr.table({"x": x}, {"y": y}, **options, compat="platonic-rep").models.to_dicts()
    assert (row["score"], row["layer_x"], row["layer_y"]) == (0, None, None)
    assert "maximum starts" in row["status"]
    assert pr.table({"x": x}, {"y": y}, **options).models["score"].item() < 0


def test_what_that_code_does_not_have_or_refuses_is_refused() -> None:
    x, y = drawn(0)
    with pytest.raises(StudyError, match="jaccard_knn is not a metric of platonic-rep"):
        pr.score(x, y, "jaccard_knn", compat="platonic-rep")
    with pytest.raises(StudyError, match="cknna needs k ≥ 2"):
        pr.score(x, y, "cknna", k=1, compat="platonic-rep")
    with pytest.raises(StudyError, match='compat must be "platonic-rep"'):
        pr.score(x, y, compat="huh")  # type: ignore[arg-type]


def test_compat_is_part_of_a_metrics_key_and_of_what_a_result_says(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert get_metric("lcs_knn", compat="platonic-rep").key == {
        "name": "lcs_knn",
        "options": {"k": 10, "normalized": False},
        "compat": "platonic-rep",
    }
    paths = [tmp_path / f"{name}.npy" for name in "xy"]
    for path, rows in zip(paths, drawn(0), strict=True):
        np.save(path, rows)
    command = ["table", *map(str, paths), "--metric", "lcs_knn", "--k", "5", "--compat", "platonic-rep"]
    assert main(command) == 0
    assert "arithmetic of platonic-rep" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["provenance"]["compat"] == "platonic-rep"
    assert max(row["score"] for row in document["models"]) > 1


def test_a_study_under_compat_is_another_result_with_the_scores_of_a_table(small_study) -> None:  # type: ignore[no-untyped-def]
    names = ["lcs_knn", "cycle_knn", "cknna"]
    study = small_study.replace(metrics=[{"name": name, "k": K} for name in names], null={"permutations": 0})
    ours, theirs = (pr.align(each, quiet=True) for each in (study, study.replace(compat="platonic-rep")))
    assert ours.provenance["study_key"] != theirs.provenance["study_key"]
    assert theirs.provenance["compat"] == "platonic-rep"
    metrics = [get_metric(name, compat="platonic-rep", k=K) for name in names]
    for pair in score_tables(dense_features(study), metrics=metrics, digests=tie_digests(study)):
        found = theirs.layers_matrix(pair.x, pair.y, pair.metric.name).values
        np.testing.assert_array_equal(found, pair.scores)
    assert ours.matrix("cknna").values != pytest.approx(theirs.matrix("cknna").values)
    with pytest.raises(StudyError, match="compat"):
        study.replace(compat="huh")
