"""The time that a `Scorer` takes for features of one layer, beside scoring them with nothing kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import platonic_ray as pr
from bench.features import Model

_WIDTHS = (384, 512, 768, 1024, 1280)


def time_scorer(
    names: list[str], k: int, samples: int, references: int, width: int, repeats: int
) -> dict[str, Any]:
    """Return milliseconds a score, by metric: of a `Scorer`, and of `pr.score` reference by reference.

    :param references: how many models of one layer are scored against.
    :param width: of the features that are scored.
    """
    against = {
        f"reference {at}": Model(f"reference {at}", 1 + at, 1, _WIDTHS[at % len(_WIDTHS)], samples).layer(0)
        for at in range(references)
    }
    features = Model("features", 99, 1, width, samples).layer(0)
    report: dict[str, Any] = {
        "samples": samples,
        "width": width,
        "references": references,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for name in names:
        started = time.perf_counter()
        scorer = pr.Scorer(against, metric=name, k=k)
        made_s = time.perf_counter() - started
        found: list[list[float]] = [[], []]

        def kept(scorer: pr.Scorer = scorer, found: list[list[float]] = found) -> None:
            found[0] = [row.score for row in scorer.score(features)]

        def anew(name: str = name, found: list[list[float]] = found) -> None:
            found[1] = [pr.score(features, of, name, k=k) for of in against.values()]

        times = _interleaved([kept, anew], repeats)
        if found[0] != found[1]:
            raise AssertionError(f"{name}: the scores differ: {found}")
        report[name] = {
            "made_ms": round(1000 * made_s, 1),
            "score_ms": round(1000 * statistics.median(times[0]), 1),
            "least_ms": round(1000 * min(times[0]), 1),
            "anew_ms": round(1000 * statistics.median(times[1]), 1),
            "equal": True,
        }
    return report


def _interleaved(what: list[Callable[[], None]], repeats: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in what]
    for round_ in range(repeats + 1):
        for at, run in enumerate(what):
            started = time.perf_counter()
            run()
            if round_:  # the first warms up
                times[at].append(time.perf_counter() - started)
    return times
