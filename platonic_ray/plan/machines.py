"""Machines by name, and what each does a second. Pure: this machine's figures are handed in.

Every figure that was not measured is an assumption, and a forecast prints it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from platonic_ray.errors import StudyError

GIB = 2**30
SHARE_OF_PEAK = 0.5
NETWORK_BYTES_S = 25e9
OBJECT_STORAGE_BYTES_S = 2e9
LOCAL_BYTES_S = 50e9
DISPATCH_S = 0.7e-3
REPLACED_S = 180.0


@dataclass(frozen=True)
class Speed:
    """Seconds that one kind of task takes a floating-point operation, cell, entry, and by itself."""

    flop_s: float
    cell_s: float = 0.0
    entry_s: float = 0.0
    task_s: float = 0.0


@dataclass(frozen=True)
class Machine:
    """A kind of node: its workers (cores or GPUs) and what each does while all are busy.

    `memory_bytes` is a worker's, `host_bytes` the node's; `store_bytes_s` and `network_bytes_s` are the
    node's, shared by its workers; `local_bytes_s` is a worker's, from its node's memory. `dispatch_s` is
    what the driver spends on a task, `control_s` what it, Ray's own processes and the wait for the next take of a
    core that a worker has, `warm_s` what a worker's first task takes more than others. Where `overlaps`, bytes move
    while workers compute. `speeds` are by kind of task; a kind that is not there takes `default`.
    `measured` says whether the figures come from a calibration.
    """

    name: str
    workers: int
    memory_bytes: int
    default: Speed
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    host_bytes: int = 0
    store_bytes_s: float = OBJECT_STORAGE_BYTES_S
    network_bytes_s: float = NETWORK_BYTES_S
    local_bytes_s: float = LOCAL_BYTES_S
    dispatch_s: float = DISPATCH_S
    control_s: float = 0.0
    warm_s: float = 0.0
    overlaps: bool = True
    price_h: float | None = None
    measured: bool = False
    assumptions: tuple[str, ...] = ()

    def speed(self, kind: str) -> Speed:
        """Return what a kind of task takes here."""
        return self.speeds.get(kind, self.default)


@dataclass(frozen=True)
class Cluster:
    """Some nodes of one kind. `workers` are those in use (None: all of them)."""

    machine: Machine
    nodes: int = 1
    used: int | None = None

    @property
    def workers(self) -> int:
        """Workers in use."""
        return self.nodes * self.machine.workers if self.used is None else self.used

    @property
    def busy_nodes(self) -> int:
        """Nodes that have a worker in use."""
        return -(-self.workers // self.machine.workers)

    @property
    def workers_a_node(self) -> int:
        """Workers in use on a node that has the most."""
        return min(self.workers, self.machine.workers)

    @property
    def control_s(self) -> float:
        """What Ray takes of a worker's core for a task: nothing where a core is left for it."""
        return self.machine.control_s if self.workers_a_node == self.machine.workers else 0.0

    def of(self, workers: int) -> Cluster:
        """Return a cluster with so many workers of the same kind, on as few nodes as hold them."""
        return replace(self, nodes=-(-workers // self.machine.workers), used=workers)


# Dense bfloat16 (T4: float16) FLOP/s and memory, as the manufacturer's data sheets state them.
_GPUS: dict[str, tuple[float, int]] = {
    "T4": (65e12, 16),
    "L4": (121e12, 24),
    "A10G": (70e12, 24),
    "L40S": (362e12, 48),
    "A100": (312e12, 80),
    "H100": (989e12, 80),
    "H200": (989e12, 141),
    "B200": (2250e12, 180),
}


def gpu_machine(text: str, price_h: float | None = None) -> Machine:
    """Return the node that a text as `8xH100` names.

    :raises StudyError: if it names none.

    >>> machine = gpu_machine("8xH100")
    >>> machine.workers, round(1e-12 / machine.default.flop_s)
    (8, 494)
    """
    match = re.fullmatch(r"(?:([1-9][0-9]?)\s*[x×])?\s*([A-Za-z0-9]+)", text.strip())
    name = match[2].upper() if match else ""
    if match is None or name not in _GPUS:
        raise StudyError(
            f"--gpus: {text!r} is no machine that is known. Give a number and a name, as 8xH100; names: "
            f"{', '.join(_GPUS)}."
        )
    count = int(match[1] or 1)
    peak, memory = _GPUS[name]
    rate = peak * SHARE_OF_PEAK
    assumptions = (
        f"{name}: {SHARE_OF_PEAK:.0%} of its dense bfloat16 peak ({peak / 1e12:,.0f} TFLOP/s by its data sheet) "
        "in models and in products of tiles, selection of neighbors included; nothing was measured on one",
        f"a node reads and writes {OBJECT_STORAGE_BYTES_S / 1e9:g} GB/s of object storage and "
        f"{NETWORK_BYTES_S / 1e9:g} GB/s of other nodes' objects, shared by its {count} GPUs",
        f"a GPU reads {LOCAL_BYTES_S / 1e9:g} GB/s of its host's memory",
        "bytes move while GPUs compute",
        f"the driver spends {DISPATCH_S * 1e3:g} ms on a task",
    )
    return Machine(
        name=f"{count}x{name}",
        workers=count,
        memory_bytes=memory * GIB,
        # An entry is a multiply-add or a comparison of what a product left: as a product, or less.
        default=Speed(1 / rate, cell_s=0.0, entry_s=2 / rate, task_s=5e-3),
        price_h=price_h,
        assumptions=assumptions,
    )
