"""Starting or joining Ray, and what it offers.

Half a core is what Ray is told of each CPU model actor, and a whole one of each other task (`cores_of_task`), unless
it takes more memory (`cores_for`): a machine with two cores must be able to embed with two models and compute tiles
at the same time, and when the models have gone no more tasks may run than there are cores: two on a core slow each
other down, and each is a process more, which takes seconds of the cores to start. The scheduler itself never starts
more models than there are cores.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass

import ray

from platonic_ray.errors import RunError

HALF_CORE = 0.5

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # What a worker raised reaches the user through the scheduler, once, and only if it ends the run.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A worker takes seconds of CPU to start; Ray would end every idle one beyond the number of cores in one second.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}
"""What the environment of a Ray that runs studies should say; `connect` sets what is not set.

Processes of Ray read it as they start: of a cluster that others start, cluster.yaml says the last of them.
"""


@dataclass(frozen=True)
class Resources:
    """What a cluster has: CPU cores and GPUs, in all and on its largest node; bytes of object store.

    `core_bytes` is the memory of a core, on the node with cores that has the least of it; 0 where there is none;
    `least_cpus` are the cores of the smallest node that has any.
    """

    cpus: float
    gpus: float
    node_cpus: float
    node_gpus: float
    object_store_bytes: int
    core_bytes: float = 0.0
    least_cpus: float = 0.0


def connect(address: str | None = None) -> bool:
    """Join the Ray that is there (this process's, `address`, or a job's), else start one here.

    Returns True if a local Ray was started by this call (and is the caller's to shut down).

    :raises RunError: if the cluster at `address` cannot be joined.
    """
    if ray.is_initialized():
        return False
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            versions = re.findall(r"(?:Ray|Python): (\S+)", str(error))
            if "mismatch" in str(error) and len(versions) == 4:
                raise RunError(
                    f"The cluster at {address} runs Ray {versions[0]} on Python {versions[1]}, and this process Ray "
                    f"{versions[2]} on Python {versions[3]}: they must be equal, to the last digit. Install "
                    f"ray=={versions[0]} here on Python {versions[1]}, or send the study to the cluster's own Python "
                    "with `platonic-ray submit`."
                ) from None
            raise RunError(
                f"No Ray cluster could be joined at {address}: {str(error).strip().partition(chr(10))[0]} "
                "Check that it runs and, if it uses token authentication, that RAY_AUTH_MODE=token is exported."
            ) from None
        return False
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    return True


def end(*, at_once: bool) -> None:
    """End the Ray that `connect` started: its processes by themselves, for a second each, or at once."""
    # Ray has no public way: where it changes inside, its processes end by themselves.
    node = getattr(ray._private.worker, "_global_node", None)
    kill_all = getattr(node, "kill_all_processes", None)
    if at_once and node is not None and kill_all is not None:
        node.kill_all_processes = lambda **how: kill_all(**{**how, "allow_graceful": False})
    ray.shutdown()


def resources() -> Resources:
    """Return what the cluster has now."""
    total = ray.cluster_resources()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Resources(
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        node_cpus=max((node.get("CPU", 0.0) for node in nodes), default=0.0),
        node_gpus=max((node.get("GPU", 0.0) for node in nodes), default=0.0),
        object_store_bytes=int(total.get("object_store_memory", 0)),
        core_bytes=min(
            (node.get("memory", 0.0) / node["CPU"] for node in nodes if node.get("CPU")), default=0.0
        ),
        least_cpus=min((node["CPU"] for node in nodes if node.get("CPU")), default=0.0),
    )


def cores_of_task(peak_bytes: float, there: Resources, models: int) -> float:
    """Return the cores that Ray is told of a task that is no model, while so many model actors are there.

    One, and half where a model may need the other half of a node's only core.

    >>> one, two = (Resources(cpus, 0, cpus, 0, 0, core_bytes=2e9, least_cpus=cpus) for cpus in (1, 2))
    >>> cores_of_task(0, one, models=1), cores_of_task(0, one, models=0), cores_of_task(0, two, models=2)
    (0.5, 1.0, 1.0)
    """
    whole = there.least_cpus >= 2 or (there.least_cpus >= 1 and not models)
    return max(1.0 if whole else HALF_CORE, cores_for(peak_bytes, there))


def cores_for(peak_bytes: float, there: Resources) -> float:
    """Return the cores that have the memory that a task or model takes, in halves.

    Memory goes by cores and not by Ray's own resource of that name, for which an autoscaler brings no node
    of a kind whose memory nobody has stated. At most half of the smallest node's cores: models may have the
    other half, and what asks for more would wait for them, or for a node that has gone.

    >>> small = Resources(8, 0, 8, 0, 0, core_bytes=2e9, least_cpus=8)
    >>> [cores_for(peak, small) for peak in (0, 1e9, 1.1e9, 5e9, 1e12)]
    [0.5, 0.5, 1.0, 2.5, 4.0]
    """
    if not there.core_bytes:
        return HALF_CORE
    halves = -(-peak_bytes // (there.core_bytes * HALF_CORE))
    return max(HALF_CORE, HALF_CORE * min(halves, there.least_cpus))


def nodes() -> dict[str, dict[str, float]]:
    """Return what each node that lives offers, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def going() -> frozenset[str]:
    """Return the ids of nodes that have been told to go and do not take new work."""
    return frozenset(ray._private.state.state.get_draining_nodes())


def spilled_bytes() -> int | None:
    """Return the bytes of objects written to disks since the cluster began; None where it does not say."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    try:
        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        reply = get_memory_info_reply(state, timeout_seconds=5.0)
    except Exception:  # no public way to ask, and nothing depends on the answer
        return None
    return int(reply.store_stats.spilled_bytes_total)
