"""Kill parts of a running study at random moments, and hold every promise against the outcome:

    python jobs/chaos.py --kills 100 --seed 0

Study after study runs on a cluster of two nodes with its store on a real S3 server on loopback (needs
the extra `test`). Victims, drawn by the seed: a task's worker, a model's actor, a raylet with its objects,
the driver (`kill -9`, then run again), the S3 server for some seconds, the whole cluster, head included
(then run again). After each study: its scores are byte for byte those of an undisturbed run; what was
durable was not done again; a reader that polled the store all along saw whole objects alone; no process
holds a model any more. At the end no process and no temporary file is left. Prints what was killed and
what it cost as JSON; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chaos_world import BUCKET, PATIENCE_S, S3, Nodes, Reader, wait_for

import platonic_ray as pr
from platonic_ray.store import Store

VICTIMS = {"worker": 32, "actor": 26, "raylet": 12, "driver": 12, "s3": 10, "cluster": 8}
KILLS_A_STUDY = 6
DURABLE = ("shard", "NeighborBlock", "KernelTile", "Score")
DRIVER = """
import json, sys
import platonic_ray as pr
try:
    pr.align(pr.Study.from_dict(json.loads(sys.argv[1])), quiet=True)
except pr.PlatonicRayError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""


def study(store: str, engine: str) -> pr.Study:
    """24 shards of two floors over 300 emoji, in two blocks: many small pieces that can be lost."""
    return pr.Study.from_dict(
        {
            "name": "chaos",
            "shard_rows": 25,
            "dataset": {"source": "emoji", "samples": 300},
            "models": [
                {"name": "spelling", "use": "char-tfidf", "view": "name.en"},
                {"name": "pixels", "use": "pixels", "view": "image"},
            ],
            "metrics": [{"name": "mutual_knn", "k": 5}, {"name": "cka"}],
            "null": {"permutations": 0},
            "run": {"store": store, "engine": engine, "block_rows": 256},
        }
    )


def score_bytes(result: pr.Result) -> bytes:
    """Every score and its place, floats by their bits."""
    cells = (
        value.hex() if isinstance(value, float) else repr(value)
        for frame in (result.scores, result.models, result.layers)
        for row in frame.iter_rows()
        for value in row
    )
    return "\n".join(cells).encode()


class Chaos:
    """Runs studies and kills what runs them until the number of kills is reached."""

    def __init__(self, kills: int, seed: int, minutes: float) -> None:
        self.until = time.monotonic() + 60 * minutes
        self.rng = random.Random(seed)
        self.left = kills
        self.killed: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.broken: list[str] = []
        self.studies = self.drivers = self.lost = self.tasks = self.reads = self.gave_up = 0
        self.folder = tempfile.mkdtemp(prefix="chaos-")
        # Where every process that is started from here puts what is temporary; in "ray" Ray notes its own cluster.
        self.temporary = Path(self.folder) / "tmp"
        (self.temporary / "ray").mkdir(parents=True)
        os.environ["TMPDIR"] = str(self.temporary)
        self.s3 = S3()
        self.nodes = Nodes(self.folder)

    def run(self, expected: bytes) -> None:
        while self.left > 0 and time.monotonic() < self.until:
            self._study(expected)
        self.nodes.end(graceful=True)
        self.s3.close()
        try:
            wait_for(lambda: not self.nodes.left_behind(), "the end of all processes")
        except TimeoutError:
            self.broken.append(f"processes were left behind: {self.nodes.left_behind()}")
        if left := sorted(path.name for path in self.temporary.iterdir() if path.name != "ray"):
            self.broken.append(f"temporary files were left behind: {left[:9]}")
        shutil.rmtree(self.folder)

    def _study(self, expected: bytes) -> None:
        uri = f"s3://{BUCKET}/{self.studies}"
        Store.open(uri)
        reader = Reader(uri)
        reader.start()
        kills, of_study = min(self.left, KILLS_A_STUDY), Counter[str]()
        driver = self._start_driver(uri)
        at, victim = time.monotonic() + self.rng.uniform(2, 8), self._draw()
        until = time.monotonic() + 2 * PATIENCE_S
        while True:
            self.nodes.watch()
            status = driver.poll()
            if status == 0:
                break
            if status is not None:
                if status != -signal.SIGKILL:
                    said = (Path(self.folder) / f"driver-{self.drivers}.log").read_text().strip()
                    print(f"driver ended with {status}: {said[-300:]}", file=sys.stderr, flush=True)
                self.gave_up += status in (3, 6)
                driver = self._start_driver(uri)
            if kills and time.monotonic() > at:
                if self._kill(victim, driver):
                    of_study[victim] += 1
                    kills -= 1
                    at = time.monotonic() + self.rng.uniform(0.5, 5)
                    victim = self._draw()
                elif time.monotonic() > at + 10:  # there is none of its kind
                    victim = self._draw()
            if time.monotonic() > until:
                self.broken.append(f"study {self.studies} did not end: {dict(of_study)}")
                os.killpg(driver.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        reader.ended.set()
        reader.join(60)
        try:
            wait_for(lambda: not self.nodes.models(), "the end of model processes")
        except TimeoutError:
            self.broken.append(f"study {self.studies}: model processes were left behind")
        self._judge(uri, reader, of_study, expected)

    def _draw(self) -> str:
        return self.rng.choices(list(VICTIMS), list(VICTIMS.values()))[0]

    def _start_driver(self, uri: str) -> subprocess.Popen[str]:
        self.drivers += 1
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(study(uri, "ray").model_dump(mode="json"))],
            env={**os.environ, "RAY_ADDRESS": self.nodes.cluster.address},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=(Path(self.folder) / f"driver-{self.drivers}.log").open("w"),
            text=True,
        )

    def _kill(self, victim: str, driver: subprocess.Popen[str]) -> bool:
        """Kill one of the kind that is there; say whether there was one."""
        if victim in ("worker", "actor"):
            at_work = self.nodes.watch()
            actors = [pid for pid, name in at_work.items() if name.startswith("ray::_ModelActor")]
            busy = [pid for pid, name in at_work.items() if pid not in actors and "IDLE" not in name]
            pids = actors if victim == "actor" else busy or [pid for pid in at_work if pid not in actors]
            if not pids:
                return False
            try:
                os.kill(self.rng.choice(sorted(pids)), signal.SIGKILL)
            except ProcessLookupError:
                return False
        elif victim == "raylet":
            self.nodes.kill_a_raylet(self.rng)
        elif victim == "s3":
            self.s3.stop_for_a_while()
        else:
            if victim == "cluster":
                self.nodes.end(graceful=False)
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
            if victim == "cluster":
                self.nodes.start()
        self.left -= 1
        self.killed[victim] += 1
        return True

    def _judge(self, uri: str, reader: Reader, kills: Counter[str], expected: bytes) -> None:
        """Hold a study that has ended against the promises."""
        store = Store(uri)
        events = [event for run in store.runs() for event in store.events(run)]
        if score_bytes(pr.align(study(uri, "local"), quiet=True)) != expected:
            self.broken.append(f"study {self.studies}: other scores after {dict(kills)}")
        times = Counter(
            (event["event"], event["task"]) for event in events if "task" in event and "end" in event
        )
        again: Counter[str] = Counter()
        for (event, _), count in times.items():
            again[event] += count - 1
        durable = sum(again[event] for event in DURABLE)
        if durable:
            self.broken.append(f"study {self.studies}: {durable} durable results made again, {dict(again)}")
        self.broken += reader.broken
        self.repeated.update({event: count for event, count in again.items() if count})
        self.tasks += len(times)
        self.lost += sum(event["event"] == "lost" for event in events)
        self.reads += reader.reads
        self.studies += 1
        print(
            f"study {self.studies}: {sum(self.killed.values())} kills {dict(kills)}",
            file=sys.stderr,
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=240, help="begin no other study after this time")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        expected = score_bytes(pr.align(study(f"{folder}/store", "local"), quiet=True))
    chaos = Chaos(given.kills, given.seed, given.minutes)
    chaos.run(expected)
    print(
        json.dumps(
            {
                "seed": given.seed,
                "kills": dict(chaos.killed),
                "studies": chaos.studies,
                "drivers": chaos.drivers,
                "drivers that finished the rest after three losses of one task": chaos.gave_up,
                "tasks": chaos.tasks,
                "attempts lost": chaos.lost,
                "made again although logged before": dict(chaos.repeated),
                "whole artifacts read meanwhile": chaos.reads,
                "broken promises": chaos.broken,
                "seconds": round(time.monotonic() - start),
            },
            indent=1,
        )
    )
    return 1 if chaos.broken else 0


if __name__ == "__main__":
    sys.exit(main())
