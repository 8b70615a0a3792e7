"""What a run takes from the store and what it makes anew, model by model, and why: for people and the log."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from platonic_ray.kernels import CLAMPED
from platonic_ray.plan import (
    Embed,
    KernelProducts,
    KernelTile,
    NeighborBlock,
    PermutedKernel,
    Plan,
    Score,
    Task,
)


@dataclass(frozen=True)
class Reuse:
    """How much of a study was in the store, of each kind (there, all), and which models are new to it.

    `grown` are models of which some shards were there and others not: they have new samples. `whole`
    are models whose features were all there.
    """

    kinds: dict[str, tuple[int, int]]
    whole: tuple[str, ...]
    grown: tuple[str, ...]
    new: tuple[str, ...]
    clamped: bool

    @classmethod
    def of(cls, plan: Plan, there: Collection[Task]) -> Reuse:
        """Compare a plan with the tasks whose results are in the store."""
        kinds = {}
        for name, kind in _KINDS.items():
            every = [task for task in plan.prerequisites if isinstance(task, kind)]
            if every:
                kinds[name] = (sum(task in there for task in every), len(every))
        shards = len(plan.shards)
        found = [
            sum(Embed(model, shard) in there for shard in range(shards)) for model in range(len(plan.models))
        ]
        named = list(zip([model.name for model in plan.models], found, strict=True))
        return cls(
            kinds,
            whole=tuple(name for name, count in named if count == shards),
            grown=tuple(name for name, count in named if 0 < count < shards),
            new=tuple(name for name, count in named if count == 0),
            clamped=plan.recipe in CLAMPED,
        )

    @property
    def some(self) -> bool:
        """Whether anything was there."""
        return any(there for there, _ in self.kinds.values())

    def facts(self) -> dict[str, object]:
        """Return it as plain values, for the log."""
        return {
            "kinds": {name: list(counts) for name, counts in self.kinds.items()},
            **{name: list(getattr(self, name)) for name in ("whole", "grown", "new")},
        }

    def lines(self) -> list[str]:
        """Say what is reused, and what is not and why."""
        if not self.some:
            return []
        counts = ", ".join(
            f"{there} of {every} {name}" for name, (there, every) in self.kinds.items() if there
        )
        lines = [f"Reused from the store: {counts}."]
        if self.new and (self.whole or self.grown):
            lines.append(f"New: {_listed(self.new)}; embedded, and scored against the others.")
        if self.grown:
            why = (
                "the recipe clamps at one quantile over all samples, so they change every neighbor and every sum"
                if self.clamped
                else "any of them may be nearer than an old neighbor, so neighbors are searched anew"
            )
            lines.append(f"New samples: {why}; features of samples that were there are reused.")
        there, every = self.kinds.get("neighbor blocks", (0, 0))
        if not self.grown and self.whole and there == 0 < every:
            lines.append(
                "Neighbors are searched anew: no run kept them for these samples, this recipe and this k "
                "(the largest of the study); features are reused."
            )
        return lines


_KINDS: dict[str, type[Task]] = {
    "shards of features": Embed,
    "neighbor blocks": NeighborBlock,
    "tiles of kernel sums": KernelTile,
    "ranges of kernel sums": KernelProducts,
    "permuted kernels": PermutedKernel,
    "pairs of models": Score,
}
_MOST_NAMED = 8


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
