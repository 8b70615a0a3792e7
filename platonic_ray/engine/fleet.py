"""The model actors of a run, and which model gets the next: a policy over numbers, without a call to Ray.

The model that will take longest starts first: whatever starts last decides when a run ends. One that asks for
more GPUs comes before all that ask for fewer, and what is free is kept for it, so that small ones do not take
GPUs one by one from under it. A model gets a second actor where that ends sooner than starting it takes. Short shards
go to an actor several at a time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from platonic_ray.engine.cluster import Resources
from platonic_ray.engine.replica import Replica
from platonic_ray.errors import StudyError
from platonic_ray.plan.calls import shards_a_call
from platonic_ray.study import RunEntry

_ROUNDING = 1e-6  # of fractions of a GPU that are added up


class Fleet:
    """The actors there are, and what is known of how long each model takes.

    :param costs: for each model what a sample takes it, in any unit; 0 where that is not known.
    :param gpus: for each model how many GPUs it asks for, where it runs on any; a fraction shares one.
    """

    def __init__(self, run: RunEntry, costs: Sequence[float], gpus: Sequence[float]) -> None:
        self.replicas: list[Replica] = []
        self._run, self._costs, self._gpus = run, tuple(costs), tuple(gpus)
        self._start_s: dict[int, float] = {}
        self._shard_s: dict[int, float] = {}
        self._shard_bytes: dict[int, float] = {}

    def on_gpus(self, there: Resources) -> bool:
        """Whether models run on GPUs: those there are, or those that were asked for and may come."""
        asked = self._run.ask_gpus is not None
        return self._run.device == "gpu" or (self._run.device == "auto" and (there.gpus > 0 or asked))

    def gpus_of(self, model: int, there: Resources) -> float:
        """Return how many GPUs a model gets."""
        return self._gpus[model] if self.on_gpus(there) else 0.0

    def next_model(
        self,
        pending: Mapping[int, int],
        there: Resources,
        leaving: Replica | None = None,
        late: Collection[int] = (),
        cores_of: Callable[[int], float] = lambda model: 0.0,
    ) -> int | None:
        """Return the model that another actor helps most, or None where none has room or is worth it.

        :param pending: shards that nobody has taken, by model.
        :param leaving: an actor whose place is free.
        :param late: models of which an actor has had a shard for far longer than the others took.
        :param cores_of: the cores that Ray is told of a model that runs on cores.
        :raises StudyError: for a model that asks for more GPUs than any node has, where none is to come.
        """
        others = [replica for replica in self.replicas if replica is not leaving]
        have = Counter(replica.model for replica in others)
        loading = {replica.model for replica in others if replica.loading is not None}
        left = {**dict.fromkeys(late, 0), **pending}
        worth = [
            model
            for model, shards in left.items()
            if not have[model]
            or self._pays(model, shards, have[model])
            or (model in late and model not in loading)
        ]
        order = sorted(
            worth,
            key=lambda model: (
                bool(have[model]),
                -self.gpus_of(model, there),
                have[model],
                -self._left(model, left[model]),
                model,
            ),
        )
        if not order:
            return None
        first = order[0]
        self._refuse_impossible(first, there)
        return first if self._has_room(first, others, there, cores_of) else None

    def loaded(self, replica: Replica) -> None:
        """Note that an actor has loaded its model."""
        self._start_s[replica.model] = time.monotonic() - replica.started

    def embedded(self, model: int, seconds: float, size: float) -> None:
        """Note how long a shard took a model, or one of several on average, and its bytes."""
        self._shard_s[model], self._shard_bytes[model] = seconds, size

    @property
    def shard_s(self) -> Mapping[int, float]:
        """How long a shard took each model when it last embedded any."""
        return self._shard_s

    def at_once(self, model: int, waiting: int) -> int:
        """Return how many of a model's shards that wait one of its actors gets in a call.

        As many as `shards_a_call` says, by what the last took, but no more than leaves each of the model's actors
        its share; one while nothing is known.
        """
        if model not in self._shard_s:
            return 1
        actors = sum(replica.model == model for replica in self.replicas)
        together = shards_a_call(self._shard_s[model], self._shard_bytes[model])
        return max(1, min(together, math.ceil(waiting / max(actors, 1))))

    def _pays(self, model: int, shards: int, actors: int) -> bool:
        """Whether the shards that are left would take the actors there are twice as long as one to start."""
        return shards * self._shard_s.get(model, 0.0) / actors > 2 * self._start_s.get(model, 0.0)

    def _left(self, model: int, shards: int) -> float:
        """Return how long a model's shards will take: as measured, else as its cost says beside the others'."""
        rates = [took / self._costs[other] for other, took in self._shard_s.items() if self._costs[other]]
        rate = statistics.median(rates) if rates else 1.0
        return shards * self._shard_s.get(model, self._costs[model] * rate)

    def _has_room(
        self, model: int, others: Sequence[Replica], there: Resources, cores_of: Callable[[int], float]
    ) -> bool:
        gpus = self.gpus_of(model, there)
        # An actor that waits for a place is what an autoscaler goes by; it goes when this process does.
        if not self.on_gpus(there):
            cores = max(there.cpus, self._run.ask_cpus or 0)
            told = sum(replica.cores for replica in others) + cores_of(model)
            return not others or (told <= cores and len(others) < int(cores / self._run.threads))
        if not there.gpus and self._run.ask_gpus is None:
            return True  # each model asks for its own
        taken = sum(replica.gpus for replica in others)
        # The first asks for what it needs, there or not: else nobody would ever say what is waited for.
        return not taken or taken + gpus <= max(there.gpus, self._run.ask_gpus or 0.0) + _ROUNDING

    def _refuse_impossible(self, model: int, there: Resources) -> None:
        gpus = self.gpus_of(model, there)
        may_come = self._run.device == "gpu" or self._run.ask_gpus is not None
        if there.gpus and gpus > there.node_gpus and not may_come:
            raise StudyError(
                f"A model asks for {gpus:g} GPUs (gpus, run.gpus_per_model); no node of this cluster has more than "
                f"{there.node_gpus:g}."
            )

    def most_gpus(self, pending: Mapping[int, int], there: Resources) -> float:
        """Return the most GPUs that a model with work left asks for."""
        left = [*pending, *(replica.model for replica in self.replicas)]
        return max((self.gpus_of(model, there) for model in left), default=0.0)
