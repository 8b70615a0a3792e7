"""The public code of Huh et al. (2024), minyoungg/platonic-rep, run from a checkout without a change to it."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


class Reference:
    """The metrics of a checkout, on this machine's CPU.

    What cannot be imported (torchaudio, scikit-learn) is replaced by empty modules, so that only the
    metrics that need it are out of reach; `.cuda()` leaves a tensor where it is.

    :raises FileNotFoundError: if there is no `metrics.py` in the checkout.
    """

    def __init__(self, checkout: str | Path) -> None:
        path = Path(checkout).resolve()
        if not (path / "metrics.py").is_file():
            raise FileNotFoundError(f"{path} is no checkout of minyoungg/platonic-rep: it has no metrics.py.")
        made: list[str] = []
        for name in ("torchaudio.functional", "sklearn.cross_decomposition"):
            made += _stand_in(name)
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
        sys.path.insert(0, str(path))
        try:
            self._metrics: Any = importlib.import_module("metrics")
        finally:
            sys.path.remove(str(path))
            for name in made:  # others ask whether the real ones are there
                del sys.modules[name]
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def score(self, metric: str, x: Tensor, y: Tensor, k: int, timed: bool = True) -> float:
        """Score two normalized representations `[N, D]`, and note the seconds it took."""
        options = {"topk": k} if "nn" in metric else {}
        started, used = time.perf_counter(), time.process_time()
        score = float(self._metrics.AlignmentMetrics.measure(metric, x, y, **options))
        if timed:
            self.seconds.append(time.perf_counter() - started)
            self.cpu_seconds.append(time.process_time() - used)
        return score

    def forget(self, count: int) -> None:
        """Drop the first times."""
        del self.seconds[:count], self.cpu_seconds[:count]

    def neighbors(self, x: Tensor, k: int) -> Tensor:
        """Return its neighbors of normalized rows, `[N, k]`."""
        found: Tensor = self._metrics.compute_nearest_neighbors(x, k)
        return found

    def clamp(self, layers: list[Tensor]) -> float:
        """Return its exact clamp of a model: the largest magnitude it leaves."""
        stacked = torch.stack(layers, dim=1)
        return float(self._metrics.remove_outliers(stacked, 0.95, exact=True).abs().max())


def _stand_in(name: str) -> list[str]:
    """Make a module importable by an empty one where it is missing; return the names that were made."""
    try:
        importlib.import_module(name)
    except ImportError:
        parent, _, child = name.rpartition(".")
        module = ModuleType(name)
        module.CCA = None  # type: ignore[attr-defined]
        module.edit_distance = None  # type: ignore[attr-defined]
        made = [each for each in (parent, name) if each not in sys.modules]
        sys.modules.setdefault(parent, ModuleType(parent))
        setattr(sys.modules[parent], child, module)
        sys.modules[name] = module
        return made
    return []
