"""The public verbs: score, interval, growth, neighbors, table, extract, align, load. (`Scorer` is a class of its own.)

All but `align` work in this process and need no Ray. `align` runs a study: on Ray,
streamed and resumable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from platonic_ray.errors import StudyError
from platonic_ray.results import Result, load_result
from platonic_ray.study import DatasetEntry, IntervalsEntry, ModelEntry, NullEntry, Study

if TYPE_CHECKING:
    import polars as pl

    from platonic_ray.engine.extract import Representations
    from platonic_ray.statistics import Interval


def score(
    x: Any,
    y: Any,
    metric: str = "mutual_knn",
    k: int = 10,
    recipe: str = "l2",
    compat: Literal["platonic-rep"] | None = None,
    **options: Any,
) -> float:
    """Return how alike two representations of the same samples are.

    :param x: `[N, Dx]` array or tensor, float16 to float64; row i of `x` and of `y` is one sample.
    :param y: `[N, Dy]`.
    :param metric: a name that `platonic-ray metrics` lists, such as "mutual_knn" or "cka".
    :param k: neighbors, for metrics that have them.
    :param recipe: "l2" normalizes rows first, "none" takes them as they are, "huh2024" clamps features at
        the 0.95 quantile of their magnitudes and then normalizes, "huh2024-approx" does so at the mean
        of the rows' own quantiles.
    :param compat: "platonic-rep" scores in the arithmetic of the code of Huh et al. (2024): of matrices
        as its metrics do, of stacks of layers as its `compute_score` does.
    :returns: the score; NaN where it is undefined for these numbers (a constant representation).
    :raises StudyError: if a name or option is unknown, or k ≥ N.
    :raises DataError: if the shapes do not fit or a feature is NaN or infinite.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 8))
    >>> score(x, x @ np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0], "cka") > 0.999
    True
    """
    from platonic_ray.metrics import score as score_in_memory

    return score_in_memory(x, y, metric, k, recipe, compat, **options)


def neighbors(
    x: Any,
    k: int = 10,
    similarity: Literal["cosine", "inner", "euclidean"] = "cosine",
    ties: Literal["hash", "lowest"] = "hash",
    *,
    queries: Any = None,
    sizes: Sequence[int] | None = None,
) -> Any:
    """Return the exact k nearest other rows of every row, nearest first.

    :param x: the gallery, `[N, D]`: an array or tensor; or, read block by block and never held, the path
        of a `.npy` file, a memory-mapped array, or anything with `shape` and `x[start:stop]`.
    :param ties: how equal similarities are ordered: by a seeded hash, which unrelated
        representations do not share, or "lowest" id first (for neighbors alone, never for scores).
    :param queries: whose neighbors are wanted: numbers of rows of x `[Q]`, or other rows `[Q, D]`; by
        default all rows of x. A query that is a row of x is not its own neighbor.
    :param sizes: numbers of samples, ascending: the gallery grows, and the neighbors among its first m
        rows are found at every size m in one pass. Without `queries`, those m rows are the queries.
    :returns: ids `[Q, k]` int64 and similarities `[Q, k]` float32 (for "euclidean": distances), as
        tensors if `x` is one, else as numpy arrays; with `sizes`, a list of such pairs.
    :raises StudyError: if k < 1 or k ≥ N, or an option is unknown.
    :raises DataError: if `x` is no finite matrix, or queries do not fit it.

    >>> ids, similarities = neighbors([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], k=1)
    >>> ids.tolist()
    [[1], [0], [1]]
    >>> [ids.tolist() for ids, _ in neighbors([[1.0], [3.0], [2.0]], 1, "euclidean", queries=[0], sizes=[2, 3])]
    [[[1]], [[2]]]
    """
    import torch

    from platonic_ray.metrics import nearest

    found: list[Any] = [*nearest(x, k, similarity, ties, queries, sizes)]
    if not isinstance(x, torch.Tensor):
        found = [(ids.numpy(), similarities.numpy()) for ids, similarities in found]
    return found if sizes is not None else found[0]


def table(
    xs: Mapping[str, Any],
    ys: Mapping[str, Any] | None = None,
    metric: str | Sequence[str] = "mutual_knn",
    k: int = 10,
    recipe: str = "l2",
    permutations: int | Literal["auto"] = 200,
    alpha: float = 0.05,
    groups: Any = None,
    null_metrics: Sequence[str] | None = None,
    intervals: Literal["none", "queries", "population"] = "none",
    level: float = 0.95,
    compat: Literal["platonic-rep"] | None = None,
    choose_layers: Literal["all", "held-out"] = "all",
    interval_groups: Any = None,
) -> Result:
    """Score every layer pair of models whose features are in memory.

    :param xs: for each model `[N, D]`, `[N, L, D]`, or a list of `[N, D_l]`.
    :param ys: the models to compare `xs` with; None compares `xs` among themselves.
    :param metric: one name, or several.
    :param recipe: as in `score`; a clamp is that of all layers of a model, where they have one width. It is
        in the result's provenance.
    :param permutations: how many permutations of the samples the null is made of (`p`, `q` and
        calibrated scores in `Result.models`); 0 for none; "auto" for enough that one pair alone can
        be significant among all, which for many pairs takes longer than the scores.
    :param alpha: the level of the null's thresholds.
    :param groups: `[N]` a label for every sample, strings or integers: the permutations leave every
        sample in its group, so that what the groups alone explain is not significant.
    :param null_metrics: the metrics that are to have a null; by default all but those of whole
        representations, whose permutations take as long as their scores.
    :param intervals: make confidence intervals of every best score, for these targets (see `interval`);
        they are conditional on the layers that were chosen as the best. "population" scores every
        winner 80 times on half of the samples; "queries" leaves out metrics that have none.
    :param level: the level of the intervals.
    :param compat: "platonic-rep" scores in the arithmetic of the code of Huh et al. (2024), as its
        `compute_alignment` does: 1e-6 in the normalizers, `lcs_knn` not divided by k, metrics in the order
        (y, x), the best over layers never below 0.
    :param choose_layers: "all" reports the best layer pair of the samples that it is the best of;
        "held-out" chooses the layers of every pair of models on one half of the samples, drawn by a
        seed, and reports their score, p-value and interval on the other half alone, gallery and all.
        `Result.scores`, `n` and chance are then those of that half; `selection_score` is of the first.
    :param interval_groups: `[N]` a label for every sample, where intervals are for whole groups drawn anew,
        as `groups` of `interval`.
    :raises StudyError: as `score`, and as `interval`.
    :raises DataError: as `score`.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 3, 8))
    >>> round(table({"a": x, "b": x[:, 2]}, metric="cka").matrix().at("a", "b"), 12)
    1.0
    """
    from platonic_ray.engine.memory import table_in_memory

    names = [metric] if isinstance(metric, str) else list(metric)
    named = None if null_metrics is None else tuple(null_metrics)
    null = NullEntry.of(permutations=permutations, alpha=alpha, metrics=named)
    how = IntervalsEntry.of(target=intervals, level=level)
    return table_in_memory(
        xs, ys, names, k, recipe, null, groups, how, compat, choose_layers, interval_groups
    )


def interval(
    x: Any,
    y: Any,
    metric: str = "mutual_knn",
    k: int = 10,
    recipe: str = "l2",
    *,
    target: Literal["queries", "population"] = "population",
    level: float = 0.95,
    splits: int = 40,
    seed: int = 0,
    groups: Any = None,
    compat: Literal["platonic-rep"] | None = None,
    **options: Any,
) -> Interval:
    """Return a confidence interval of the score of two representations of the same samples.

    :param x: `[N, Dx]`, as in `score`; `y` `[N, Dy]`.
    :param target: "population": what the score of N samples drawn anew is in expectation. "queries": the
        mean over queries drawn anew, against these samples as the gallery; for metrics that are means
        over samples (mutual_knn, lcs_knn, edit_distance_knn, jaccard_knn, rank_knn).
    :param level: how often such intervals cover it.
    :param splits: for the population, how often the samples are cut into two halves that are scored.
    :param seed: of the halves.
    :param groups: `[N]` a label for every sample, strings or integers, where whole groups would be drawn anew
        (captions of one image, sentences of one speaker): halves keep groups together, and the variance over
        queries is that of groups. With few groups intervals are wide, as they have to be.
    :param compat: as in `score`.
    :returns: `low`, `high`, `target`, and in words the `method`; NaN where the score is undefined.
        `platonic_ray.statistics.intervals` has the formulas and how often they covered in simulations.
    :raises StudyError: as `score`; if the metric has no such interval or a half is too small for it.
    :raises DataError: as `score`.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(60, 8))
    >>> both = interval(x, x, k=5)
    >>> both.low, both.high
    (1.0, 1.0)
    """
    from platonic_ray.engine.intervals import interval_in_memory

    entry = IntervalsEntry.of(target=target, level=level, splits=splits)
    return interval_in_memory(x, y, metric, k, recipe, entry, seed, options, compat, groups)


def growth(
    x: Any,
    y: Any,
    metric: str = "mutual_knn",
    k: int = 10,
    recipe: str = "l2",
    *,
    sizes: Sequence[int] | None = None,
    protocol: Literal["all", "queries"] = "all",
    k_share: float | None = None,
    queries: int | None = None,
    layers: tuple[int, int] | None = None,
    splits: int = 10,
    seed: int = 0,
    groups: Any = None,
    compat: Literal["platonic-rep"] | None = None,
    **options: Any,
) -> pl.DataFrame:
    """Return the score at several numbers of samples, with standard errors.

    :param x: `[N, Dx]`, `[N, L, D]` or a list of `[N, D_l]`; of a stack, one layer pair is followed.
    :param y: the same of the other side, for the same samples.
    :param recipe: as in `score`; a clamp is always that of all N samples.
    :param sizes: numbers of samples, ascending; N and four halvings of it by default.
    :param protocol: "all" scores all against all among the first samples of one seeded random order,
        so that smaller subsets are parts of larger ones: each score is that of `score` on that subset,
        its samples in their own order. "queries" takes fixed random queries and lets their gallery
        grow, reading it once: `sizes` are those of the gallery, which the queries are no part of. It
        is for metrics that are means over samples, as in `interval`.
    :param k_share: let k grow with the size m: k = max(1, round(k_share · m)).
    :param queries: how many; by default half of the samples, at most 1,024.
    :param layers: the layers of x and y to follow; by default those that score best on all N samples.
    :param splits: for "all", how often the samples of each size are cut into halves that are scored:
        the standard error comes from their differences.
    :param seed: of the random order and of the cuts.
    :param groups: `[N]` a label for every sample, as in `interval`: standard errors are for whole groups drawn
        anew; the scores are the same.
    :param compat: as in `score`.
    :returns: a frame with a row a size; `platonic_ray.results.growth` documents its columns.
        `standard_error` is for samples drawn anew with "all", and for queries drawn anew against the
        same gallery with "queries": column `target` says so.
    :raises StudyError: as `score`; if sizes, queries, layers or the protocol cannot be.
    :raises DataError: as `score`.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(200, 8))
    >>> curve = growth(x, x + np.random.default_rng(1).normal(size=x.shape), sizes=[50, 100, 200])
    >>> curve["score"].is_sorted(descending=True)
    True
    """
    from platonic_ray.engine.growth import growth_in_memory
    from platonic_ray.metrics.base import whole_numbers
    from platonic_ray.statistics import Growth

    how = Growth(
        protocol, None if sizes is None else whole_numbers("sizes", sizes), k_share, queries, splits, seed
    )
    return growth_in_memory(x, y, metric, k, recipe, how, layers, options, compat, groups)


def extract(
    model: Any,
    dataset: str | Path | Mapping[str, Any] | DatasetEntry = "emoji",
    function: Callable[[Any, list[Any]], Any] | None = None,
    *,
    view: str | None = None,
    seed: int = 0,
    batch: int = 32,
    store: str | None = None,
) -> Representations:
    """Return the features of a model over a dataset, every layer, in the samples' order.

    Of a model of the catalog, or of any that a study could name, what the store has is read, and what is
    made is committed to it. Of a live network a `function` says what its features are; nothing is stored.

    :param model: a name of the catalog, a mapping of the fields of `[[models]]`, a `ModelEntry`; or with
        `function` anything, such as a torch module.
    :param dataset: a source, as in `[dataset]`: "emoji", the path of a file or folder; or a mapping of that
        table's fields, as `{"source": "emoji", "samples": 500}`.
    :param function: called as `function(model, items)` with at most `batch` decoded items (texts, PIL
        images, …):
        it returns a row an item, `[b, D]`, `[b, L, D]` or a list of `[b, D_l]`. A torch module is in
        evaluation mode meanwhile, and no gradients are kept.
    :param view: what the model reads; found where there is only one it could.
    :param seed: of the draw of samples, where the dataset asks for one.
    :param store: a folder or URI; by default the user's cache.
    :returns: a sequence of `[N, D_l] float32` tensors, which `score`, `table` and `Scorer.score` take.
    :raises PlatonicRayError: as a study with that model alone; DataError for what the function returns.

    >>> lengths = extract(len, "emoji", lambda model, texts: [[[model(text)] for text in texts]], view="name.en")
    >>> lengths[0].shape
    torch.Size([1240, 1])
    """
    from platonic_ray.engine.extract import extract_live, extract_model

    if function is not None:
        return extract_live(model, dataset, function, view, seed, batch)
    if not isinstance(model, str | Mapping | ModelEntry):
        raise StudyError(
            f"extract: {type(model).__name__} is no model's name or entry. Of a live network, give a function too: "
            "extract(network, dataset, function) with function(network, items) → features."
        )
    if view is not None:
        fields = model.model_dump() if isinstance(model, ModelEntry) else model
        model = {**({"use": fields} if isinstance(fields, str) else fields), "view": view}
    return extract_model(model, dataset, seed, store)


def align(study: Study | Mapping[str, Any] | str | Path, *, quiet: bool = False) -> Result:
    """Run a study and return its result; a finished one is read from the store.

    Joins the Ray that is there or starts one. Interrupted at any moment, it goes on from the last
    committed shard, block or tile when it is called again, and ends with the same scores.

    :param study: a `Study`, the path of its TOML file, or a dictionary of the same shape.
    :param quiet: print neither progress nor summary.
    :raises PlatonicRayError: what is wrong and what to do; what was finished is kept.
    """
    from platonic_ray.engine import run_study

    return run_study(_study_of(study), quiet=quiet)


def submit(
    study: Study | Mapping[str, Any] | str | Path,
    address: str | None = None,
    *,
    say: Callable[[str], None] = print,
    python: str = "python",
) -> Result:
    """Run a study on a cluster from here: send what it needs as a job, follow its log, return its result.

    The package holds this library, the study, and the files and own modules of this machine that it names; the
    store must be a URI that the cluster's nodes and this machine reach. Submitted again, a study goes on.

    :param address: of the cluster's Jobs API, as `http://127.0.0.1:8265`; by default what
        $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS say.
    :param say: is handed the lines of the job's log as they come.
    :param python: the interpreter's name on the cluster.
    :raises PlatonicRayError: if it cannot be sent; or, of the class that it ended with, if the job failed: its
        log has said why.
    """
    from platonic_ray.engine.submit import submit_study

    return submit_study(_study_of(study), address, say, python)


def _study_of(given: Study | Mapping[str, Any] | str | Path) -> Study:
    if isinstance(given, Mapping):
        return Study.from_dict(dict(given))
    return given if isinstance(given, Study) else Study.from_toml(given)


def load(path: str | Path) -> Result:
    """Read a result that `Result.save` wrote.

    :raises StoreError: if it is missing, unfinished, damaged, or of another schema version.
    """
    return load_result(path)
