"""A model and a metric that do to their process what the samples say: for tests of what is lost.

A text is an order and a path: "kill P" and "stall P" end or stall the process that meets them first (who it
was is noted at P), "kill always" every process, "wait P" waits until P is there, "few N" says that memory
serves N items at a time, "hoard N" takes more and more of it for more items, and "spoil P" is a text whose
features are NaN until P is there. Any other text is a text.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from platonic_ray.kernels import overlap_counts
from platonic_ray.metrics import Metric
from platonic_ray.metrics.base import no_status


def _first(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def obey(order: str, items: int = 1) -> None:
    verb, _, what = order.partition(" ")
    if verb == "kill" and (what == "always" or _first(what)):
        os.kill(os.getpid(), signal.SIGKILL)
    if verb == "stall" and _first(what):
        time.sleep(3600)
    while verb == "wait" and not Path(what).exists():
        time.sleep(0.05)
    if verb == "few" and items > int(what):
        raise MemoryError(f"room for {what} items, not for {items}")
    if verb == "hoard" and items > int(what):
        hoard = []
        while len(hoard) < 24:  # in steps of half a GiB, for Ray to look in between
            hoard.append(torch.ones(2**26, dtype=torch.float64))
            time.sleep(0.5)


_SPOILED = 256


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(_SPOILED + 1, 6)
        with torch.no_grad():
            self.table.weight[_SPOILED] = torch.nan

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids)


def batch(items: list[str]) -> torch.Tensor:
    for item in items:
        obey(item, len(items))
    return torch.tensor([_letters(item) for item in items])


def _letters(item: str) -> list[int]:
    verb, _, path = item.partition(" ")
    if verb == "spoil" and not Path(path).exists():
        return [_SPOILED] * 8
    return [ord(letter) % 256 for letter in item[-8:].ljust(8)]


def build():
    torch.manual_seed(0)
    return Net(), batch, "abc"


def _joint(x, y):
    return overlap_counts(x.ids, y.ids)


def _scorer(sums, options):
    for order in filter(None, options["order"].split(";")):
        obey(order)
    scores = sums.joint.double().numpy() / (sums.n * options["k"])
    return scores, no_status(scores.shape)


SHARED = Metric(
    name="shared",
    family="neighbors",
    needs=("joint",),
    bounds=(0.0, 1.0),
    min_samples=2,
    description="mutual kNN, in a process that is told what to do",
    cost="as mutual_knn",
    joint=_joint,
    scorer=_scorer,
    options={"k": 5, "order": ""},
)
