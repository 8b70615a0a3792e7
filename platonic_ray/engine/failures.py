"""What Ray's exceptions mean to a run: the one place that knows their names.

Everything that can go wrong with a piece of work is one of five things, and each has one answer:

* a **worker** was lost (process, actor or node): do the work again, a bounded number of times;
* an **environment** could not be set up (a node did not get the job's package): no worker began, so do
  the work again after a pause, a bounded number of times for the run;
* **memory** ran out, on a device or on the node: do the work again, alone and in smaller pieces;
* an **input** was lost (an object went with its owner or node): take it from the store, and make it
  again if it is not there either;
* the **application** failed: the same input would fail again, so the run ends with that error.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import ray.exceptions as rx
import torch

from platonic_ray.engine.context import MissingInputError
from platonic_ray.errors import RunError


class Loss(enum.Enum):
    """Which of the five it was."""

    WORKER = "worker"
    MEMORY = "memory"
    ENVIRONMENT = "environment"
    INPUT = "input"
    APPLICATION = "application"


@dataclass(frozen=True)
class Failure:
    """A failed piece of work: what kind of loss, and the error to show or to raise.

    `by_the_node` says that the node went, or was told to go: the work had no part in it.
    """

    loss: Loss
    error: BaseException
    by_the_node: bool = False


class StreamCutError(RunError):
    """A stream of an actor that ended before it had brought everything, and without an error."""


_INPUT_LOST = (
    rx.ObjectLostError,  # with its kin: OwnerDiedError, ObjectReconstructionFailedError, …
    rx.ReferenceCountingAssertionError,
    rx.ObjectStoreFullError,
)
_WORKER_LOST = (
    rx.WorkerCrashedError,
    rx.RayActorError,
    rx.LocalRayletDiedError,
    rx.NodeDiedError,
    rx.TaskCancelledError,
    StreamCutError,
)
_MEMORY_LOST = (rx.OutOfMemoryError, MemoryError, torch.OutOfMemoryError)

_NO_MEMORY = (
    "not enough memory: you tried to allocate"  # torch's allocator of the processor raises RuntimeError
)


def classify(error: BaseException, *, of_actor: bool) -> Failure:
    """Say what the exception raised by `ray.get` means.

    An exception that Ray wraps is judged by its cause: a task whose argument was lost and an actor
    that met a broken sample both arrive as `RayTaskError`.

    :param of_actor: whether the work was an actor's. A task that fails with an actor's death read
        an object of that actor: its input is lost, not its worker.
    """
    cause = error
    while isinstance(cause, rx.RayTaskError) and isinstance(getattr(cause, "cause", None), BaseException):
        cause = cause.cause
    if isinstance(cause, rx.RuntimeEnvSetupError):
        return Failure(Loss.ENVIRONMENT, cause)
    if isinstance(cause, (*_INPUT_LOST, MissingInputError)):
        return Failure(Loss.INPUT, cause)
    if isinstance(cause, rx.RayActorError) and cause.actor_init_failed:
        _, _, why = str(cause).strip().splitlines()[-1].partition(": ")
        return Failure(Loss.APPLICATION, RunError(f"A model's process cannot begin. {why}"))
    if isinstance(cause, rx.RayActorError) and not of_actor:
        return Failure(Loss.INPUT, cause)
    if isinstance(cause, _MEMORY_LOST) or _NO_MEMORY in str(cause):
        return Failure(Loss.MEMORY, cause)
    if isinstance(cause, _WORKER_LOST):
        went = isinstance(cause, rx.NodeDiedError | rx.LocalRayletDiedError)
        return Failure(Loss.WORKER, cause, went or getattr(cause, "preempted", False))
    return Failure(Loss.APPLICATION, cause)
