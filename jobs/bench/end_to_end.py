"""The whole table from raw features, timed; and the reference on a sample of its layer pairs."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.features import Model, paper_models
from bench.reference import Reference
from platonic_ray.kernels import exact_ids, prepare
from platonic_ray.metrics import PairScores, get_metric, rows_digest, score_tables

_RECIPE = "huh2024"


def time_table(
    metrics: list[str], k: int, scale: float, samples: int, reference: Reference | None, sampled: int
) -> dict[str, Any]:
    """Score all layer pairs of the table from raw features; return seconds, memory and agreement.

    The features are made model by model, which is not timed. While they are, the reference is timed on
    random layer pairs, so that both see the same machine; a sample of scores is then compared.
    """
    xs, ys = paper_models(scale, samples)
    chosen = [get_metric(name) for name in metrics]
    chosen = [metric.with_options({"k": k}) if metric.k is not None else metric for metric in chosen]
    drawn = random.Random(0)
    clock = _Clock()
    pause = len(xs) + len(ys)

    def maker(model: Model) -> Any:
        def make() -> list[Tensor]:
            with clock.stopped():
                layers = model.all_layers()
                if reference is not None:
                    for _ in range(-(-sampled // pause)):
                        x, y = (_unit(*_draw(drawn, side)) for side in (xs, ys))
                        reference.score(metrics[0], x, y, k)
                clock.features = model.bytes
            return layers

        return make

    clamps: dict[tuple[str, str], tuple[float, ...]] = {}
    with clock:
        tables = score_tables(
            {model.name: maker(model) for model in xs},
            {model.name: maker(model) for model in ys},
            chosen,
            recipe=_RECIPE,
            clamps=clamps,
        )
    if reference is not None:
        reference.forget(1)  # the first warms up
    pairs = sum(x.layers for x in xs) * sum(y.layers for y in ys)
    report: dict[str, Any] = {
        "metrics": [metric.label for metric in chosen],
        "recipe": _RECIPE,
        "samples": samples,
        "models": [len(xs), len(ys)],
        "layer_pairs": pairs,
        "values": sum(model.bytes for model in [*xs, *ys]) // 4,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds": round(clock.seconds, 3),
        "cpu_seconds": round(clock.cpu_seconds, 3),
        "peak_MiB_beyond_features": round(clock.peak / 2**20),
        "mean_score": float(sum(table.scores.sum() for table in tables[:: len(chosen)]) / pairs),
    }
    if any(metric.k is not None for metric in chosen):
        report["settled"] = _settled([*xs, *ys], {name: of for (_, name), of in clamps.items()}, k)
    if reference is not None:
        report["reference"] = _compare(metrics[0], k, xs, ys, tables, clamps, reference, drawn, sampled)
        wall, cpu = (sum(times) / len(times) for times in (reference.seconds, reference.cpu_seconds))
        report["reference"]["timed_layer_pairs"] = len(reference.seconds)
        report["reference"]["seconds_a_layer_pair"] = round(wall, 5)
        report["reference"]["cpu_seconds_a_layer_pair"] = round(cpu, 5)
        report["reference"]["seconds_for_all"] = round(wall * pairs, 1)
        report["ratio"] = round(wall * pairs / clock.seconds, 1)
        # On a machine that others use as well, the steadier of the two.
        report["cpu_ratio"] = round(cpu * pairs / clock.cpu_seconds, 1)
    return report


def _settled(models: list[Model], clamps: dict[str, tuple[float, ...]], k: int) -> dict[str, float]:
    """Return the share of rows of every model's middle layer that each stage of the search has settled.

    `pairs` is the share of neighbors that took a canonical value.
    """
    tally: Counter[str] = Counter()
    for model in models:
        middle = model.layers // 2
        rows = prepare(model.layer(middle), _RECIPE, clamps[model.name][middle])
        exact_ids(rows, k, lambda rows=rows: rows_digest(rows), ordered=False, tally=tally)  # type: ignore[misc]
    rows_of_all = sum(model.samples for model in models)
    return {
        stage: count / rows_of_all / (k if stage == "pairs" else 1) for stage, count in sorted(tally.items())
    }


def _compare(
    metric: str,
    k: int,
    xs: list[Model],
    ys: list[Model],
    tables: list[PairScores],
    clamps: dict[tuple[str, str], tuple[float, ...]],
    reference: Reference,
    drawn: random.Random,
    sampled: int,
) -> dict[str, Any]:
    """Compare scores of random layer pairs, in its float32 and by its functions in float64."""
    of_pair = {(table.x, table.y): table for table in tables if table.metric.name == metric}
    off, off64, rows_apart, widest_gap = [], [], 0, 0.0
    for _ in range(sampled):
        (x, i), (y, j) = _draw(drawn, xs), _draw(drawn, ys)
        sides = (_unit(x, i, clamps["x", x.name][i]), _unit(y, j, clamps["y", y.name][j]))
        ours = float(of_pair[x.name, y.name].scores[i, j])
        off.append(abs(ours - reference.score(metric, *sides, k)))
        in64 = (normalize(sides[0].double(), dim=-1), normalize(sides[1].double(), dim=-1))
        off64.append(abs(ours - reference.score(metric, *in64, k, timed=False)))
        for low, high in zip(sides, in64, strict=True):
            apart, gap = _apart(reference.neighbors(low, k), high, k)
            rows_apart, widest_gap = rows_apart + apart, max(widest_gap, gap)
    smallest = min([*xs, *ys], key=lambda model: model.bytes)
    side = "x" if smallest in xs else "y"
    return {
        "sampled_layer_pairs": sampled,
        "largest_difference": max(off),
        "largest_difference_in_float64": max(off64),
        "rows_whose_float32_neighbors_differ": rows_apart,
        "widest_gap_of_these_in_float64": widest_gap,
        "clamp_equal": reference.clamp(smallest.all_layers()) == clamps[side, smallest.name][0],
    }


def _apart(found: Tensor, rows: Tensor, k: int) -> tuple[int, float]:
    """Count rows whose float32 neighbors are not those of float64 rows, and by how much these missed."""
    exact = (rows @ rows.T).fill_diagonal_(-torch.inf)
    least = exact.gather(1, found).amin(1)
    reached = exact.topk(k, dim=1).values[:, -1]
    missed = least < reached
    return int(missed.sum()), float((reached - least).max())


def _draw(drawn: random.Random, models: list[Model]) -> tuple[Model, int]:
    model = drawn.choices(models, weights=[model.layers for model in models])[0]
    return model, drawn.randrange(model.layers)


def _unit(model: Model, layer: int, bound: float = 3.0) -> Tensor:
    return normalize(model.layer(layer).clamp_(-bound, bound), dim=-1)


class _Clock:
    """Wall and CPU seconds, and the peak of memory beyond the features, of what is not `stopped`."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self.features = self.peak = 0
        self._running = self._ended = False

    def __enter__(self) -> _Clock:
        self._base = _resident()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._ended = True
        self._thread.join()

    def stopped(self) -> _Pause:
        """Return a context that is not counted; the features of before are gone with it."""
        return _Pause(self)

    def _start(self) -> None:
        self._wall, self._cpu, self._running = time.perf_counter(), time.process_time(), True

    def _stop(self) -> None:
        self.seconds += time.perf_counter() - self._wall
        self.cpu_seconds += time.process_time() - self._cpu
        self._running = False

    def _watch(self) -> None:
        while not self._ended:
            time.sleep(0.01)
            beyond = _resident() - self._base - self.features
            if self._running:
                self.peak = max(self.peak, beyond)


class _Pause:
    def __init__(self, clock: _Clock) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        self._clock._stop()
        self._clock.features = 0

    def __exit__(self, *_: object) -> None:
        self._clock._start()


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
