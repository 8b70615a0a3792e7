"""Where a study runs and what that costs: the table `[run]`. Nothing here changes a number or a key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from platonic_ray.study.tables import Frozen, whole_above_one


class Prices(Frozen):
    """`price_per_hour`: what a node costs an hour, in any currency: one price for all, or one a kind.

    `gpu` is that of nodes with GPUs, `cpu` of others, `head` of a head that runs no task (None: as `cpu`).
    """

    gpu: Annotated[float, Field(ge=0)]
    cpu: Annotated[float, Field(ge=0)]
    head: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_for_all(cls, given: Any) -> Any:
        return {"gpu": given, "cpu": given} if isinstance(given, int | float) else given

    def of(self, kind: str) -> float:
        """Return the price of "gpu", "cpu" or "head"."""
        return {"gpu": self.gpu, "cpu": self.cpu, "head": self.cpu if self.head is None else self.head}[kind]


class RunEntry(Frozen):
    """`[run]`: where it runs. Nothing here changes a number or a key.

    `store` is a path or URI (None: the user's cache folder); `engine` "auto" takes Ray; `threads`
    is the number of torch threads a model computes with; `block_rows` overrides the planner's
    choice (a power of two times the micro-tile), which keeps what a task on tiles holds below
    `task_memory_gib` (GiB); another choice finds none of the blocks that are in the store. With `price_per_hour`
    (`Prices`) the result says what its run cost. With `log = "json"` progress is lines of JSON. Models ask for no
    more than the cluster has (each for its own where it has none), unless `ask_gpus` or `ask_cpus` say for how
    many in all: an autoscaler brings them as a further actor pays, and takes them when no shard is left. Tiles ask
    for `ask_cpus` cores at once.
    """

    store: str | None = None
    engine: Literal["auto", "ray", "local"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    block_rows: Annotated[int, Field(ge=1)] | None = None
    task_memory_gib: Annotated[float, Field(gt=0, le=1024)] = 2.0
    gpus_per_model: Annotated[float, Field(gt=0, le=64)] = 1.0
    device: Literal["auto", "cpu", "gpu"] = "auto"
    ask_gpus: Annotated[float, Field(gt=0)] | None = None
    ask_cpus: Annotated[int, Field(ge=1)] | None = None
    wait_s: Annotated[float, Field(gt=0)] = 900.0
    price_per_hour: Prices | None = None
    log: Literal["text", "json"] = "text"

    @field_validator("gpus_per_model")
    @classmethod
    def _a_share_or_some(cls, gpus: float) -> float:
        return whole_above_one(gpus)

    @model_validator(mode="after")
    def _what_is_asked_for_is_used(self) -> RunEntry:
        if self.ask_gpus is not None and self.device == "cpu":
            raise ValueError("'ask_gpus' asks for what models on device = \"cpu\" do not use; leave one out")
        return self
