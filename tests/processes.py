"""How tests end processes that have started others."""

import subprocess

import psutil


def end(process: subprocess.Popen, patience_s: float = 60) -> None:
    """Tell a process to end; kill it and all that it has started if it has not after a while.

    Ray's own commands wait for what they started, on a busy machine for longer than a test can.
    """
    try:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        for one in tree:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait()
