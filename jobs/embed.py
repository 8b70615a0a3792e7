"""Embed the samples of a study by its models: by `python jobs/embed.py study.toml`, or as a job on a cluster:

    ray job submit --working-dir . -- python jobs/embed.py study.toml

The exit status and the last line tell how it ended. A job that is stopped or fails is resumed by
submitting it again: everything finished is in the store.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent)
)  # a job's working directory may be all there is

from platonic_ray.cli import run_as_job

if __name__ == "__main__":
    run_as_job(["embed", *sys.argv[1:]])
