"""Time the library on features from a seed: its speed, its memory, and that its results are right.

    python jobs/benchmark.py table --reference ~/platonic-rep
    python jobs/benchmark.py neighbors --samples 32768 --width 1024 --data low-rank
    python jobs/benchmark.py kernels --samples 262144 --width 768 --models 4

`neighbors` finds the exact neighbor graph beside FAISS (`pip install faiss-cpu`), `kernels` scores linear
CKA of many samples in one pass, `growth` follows two representations to many samples; their options are in
their own --help. `table` is the size of the published table (Huh et al. 2024): it scores the 454 layers of
12 language models against the 352 layers of 17 vision models (1,024 samples, 159,808 layer pairs), whole,
from raw float32 features: exact clamp, normalizing, neighbors, scores. With a checkout of
minyoungg/platonic-rep it times that on random layer pairs of the same features and compares scores. Other
parts: `--part neighbor-metrics` and `--part null` start from neighbors; `--part kernel-metrics` is end
to end with the CKA family. `--scale 0.1` takes a tenth of the layers.

    python jobs/benchmark.py embed --part recipe

times how features are made from texts and images (`embed --help`); `--only vit-b` runs one row of it in minutes.
`--part lm` is for a GPU: a language model of 10⁹ parameters beside the speed of large products.

    python jobs/benchmark.py scorer

times `pr.Scorer` on features of one layer against ten models of one layer, beside `pr.score`.

    python jobs/benchmark.py plan
    python jobs/benchmark.py scales

the first runs studies of features in one process of one core and through Ray on one and two, beside the
planner's forecast of them; the second simulates runs that nobody has made yet, on up to 1,024 GPUs.

    python jobs/benchmark.py report --models 100 --layers 30

times the report of a result of that size, written and opened in Chromium, and `platonic-ray show` of it.

Prints JSON, and for people the same as lines on standard error; the last of these tells how it ended, as the
exit status does. As a job on a cluster, on the machine of its head:

    ray job submit --working-dir . -- python jobs/benchmark.py kernels --samples 65536
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # a job's working directory may be all there is

from bench.embed import time_embedding
from bench.end_to_end import time_table
from bench.given_neighbors import time_neighbor_metrics, time_null
from bench.growth import time_growth
from bench.kernels import time_kernels
from bench.neighbors import time_neighbors
from bench.plan import compare_plan, forecast_scales
from bench.reference import Reference
from bench.report import time_report
from bench.scorer import time_scorer

from platonic_ray.cli import end_as_job, status_of
from platonic_ray.metrics import metrics

PARTS = ("end-to-end", "neighbor-metrics", "kernel-metrics", "null")


OTHERS = {
    "neighbors": time_neighbors,
    "kernels": time_kernels,
    "growth": time_growth,
    "embed": time_embedding,
    "plan": compare_plan,
    "scales": forecast_scales,
    "report": time_report,
}
"""Benchmarks with options of their own: they print their lines, and return the report."""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Parse, time, print; return what is printed."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in OTHERS:
        report = OTHERS[words[0]](words[1:])
        print(json.dumps(report, indent=2))
        return report
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["table", "scorer", *OTHERS])
    parser.add_argument("--part", choices=PARTS, default=PARTS[0], help="what of it to time")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the layers (default: 1)")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--metric", action="append", help="may be given several times")
    parser.add_argument("--permutations", type=int, default=200, help="of the null")
    parser.add_argument("--apart", action="store_true", help="of the null: no two layers are alike")
    parser.add_argument("--reference", help="a checkout of minyoungg/platonic-rep, to compare with")
    parser.add_argument("--pairs", type=int, default=30, help="layer pairs that the reference scores")
    parser.add_argument("--references", type=int, default=10, help="models that the scorer scores against")
    parser.add_argument("--width", type=int, default=768, help="of what the scorer scores")
    parser.add_argument("--repeats", type=int, default=15, help="of each side, for the scorer")
    given = parser.parse_args(arguments)
    report = _run(given)
    print(json.dumps(report, indent=2))
    for name, value in report.items():
        print(f"{name:<28} {value}", file=sys.stderr)
    return report


def _run(given: argparse.Namespace) -> dict[str, Any]:
    if given.what == "scorer":
        names = given.metric or ["mutual_knn", "cka"]
        return time_scorer(names, given.k, given.samples, given.references, given.width, given.repeats)
    size = (given.k, given.scale, given.samples)
    if given.part == "neighbor-metrics":
        # Those that go on with similarities need features: score them end to end.
        every = [m.name for m in metrics() if m.family == "neighbors" and m.similarities is None]
        return time_neighbor_metrics(given.metric or every, *size)
    if given.part == "null":
        return time_null(given.metric or ["mutual_knn"], *size, given.permutations, given.apart)
    usual = ["cka", "unbiased_cka"] if given.part == "kernel-metrics" else ["mutual_knn"]
    reference = None if given.reference is None else Reference(given.reference)
    return time_table(given.metric or usual, *size, reference, given.pairs)


if __name__ == "__main__":
    end_as_job(lambda: status_of(main), says=sys.stderr)
