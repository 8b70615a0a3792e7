"""Models and datasets on a hub: a revision pinned to a commit, its files fetched, and what went wrong in one line.

All access is huggingface_hub's: its cache, tokens, offline mode, retries, and downloads that go on where they
stopped. Only whether the hub can be reached is asked here first, because its client tries for half a
minute before it takes what is in its cache.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from platonic_ray import cache
from platonic_ray.digest import digest
from platonic_ray.errors import DataError, PlatonicRayError, StudyError, WeightsError

Kind = Literal["model", "dataset"]

_ADDRESS = re.compile(r"(?P<repo>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ERRORS: dict[Kind, type[PlatonicRayError]] = {"model": WeightsError, "dataset": DataError}
_OTHERWISE: dict[Kind, str] = {
    "model": "give its folder as the address, or use a model of the catalog",
    "dataset": "give its folder as the source",
}
_REACH_S = 5.0
_REMEMBERED_S = 60
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_UNREACHED = (
    "Connect",
    "Timeout",
    "Offline",
    "LocalEntryNotFound",
    "Proxy",
    "Network",
    "Protocol",
    "ReadError",
)
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def pin(address: str, kind: Kind = "model") -> str:
    """Return an address with its revision resolved to a commit, from the hub, else from its local cache.

    :raises StudyError: if the address is none of a hub.
    :raises WeightsError: if the commit cannot be had; of a dataset DataError.
    """
    repo, revision = _parse(address)
    if revision and _COMMIT.fullmatch(revision):
        return address
    import huggingface_hub

    try:
        if not reachable():
            raise ConnectionError("offline")
        found = huggingface_hub.HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=20)
    except Exception as online:
        if _is_verdict(online):
            raise _refusal(address, online, kind) from None
        commit = _known(repo, revision, kind)
        if commit is None:
            raise _refusal(address, online, kind) from None
        return f"hub:{repo}@{commit}"
    _remember(repo, revision, kind, str(found.sha))
    return f"hub:{repo}@{found.sha}"


def fetch(address: str, patterns: tuple[str, ...] | None = None, kind: Kind = "model") -> Path:
    """Return the folder of an address with the files that fit the patterns (default: all), downloaded if need be.

    Where the hub cannot be reached, what its local cache has of the commit.

    :raises WeightsError: if they cannot be had; of a dataset DataError.
    """
    repo, revision = _parse(address)
    import huggingface_hub

    wanted = _wanted(revision, kind, patterns)
    cached = _cached(repo, **wanted)
    if not reachable():
        if cached is None:
            raise _refusal(address, ConnectionError("offline"), kind)
        return cached
    try:
        return Path(huggingface_hub.snapshot_download(repo, **wanted))
    except Exception as error:
        raise _refusal(address, error, kind) from None


def is_cached(address: str, patterns: tuple[str, ...]) -> bool:
    """Whether the local cache has what `fetch` would give, as far as it knows what there is."""
    repo, revision = _parse(address)
    return _cached(repo, **_wanted(revision, "model", patterns)) is not None


def names(address: str) -> tuple[str, ...]:
    """Return the names of an address's files: of all that the hub has, else of those in its local cache.

    :raises WeightsError: if neither can be had.
    """
    repo, revision = _parse(address)
    import huggingface_hub

    try:
        if not reachable():
            raise ConnectionError("offline")
        found = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=20).siblings or []
        return tuple(sorted(file.rfilename for file in found))
    except Exception as error:
        cached = _cached(repo, **_wanted(revision, "model"))
        if cached is None:
            raise _refusal(address, error, "model") from None
        return tuple(sorted(path.name for path in cached.iterdir()))


def reachable() -> bool:
    """Whether the hub answers at its port; behind a proxy, that is left to the proxy. Known for a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in _PROXIES):
        return True
    return _answers(constants.ENDPOINT, int(time.monotonic() // _REMEMBERED_S))


@lru_cache(maxsize=8)
def _answers(endpoint: str, minute: int) -> bool:
    parts = urlsplit(endpoint)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_REACH_S).close()
    except OSError:
        return False
    return True


def _wanted(revision: str | None, kind: Kind, patterns: tuple[str, ...] | None = None) -> dict[str, Any]:
    return {
        "revision": revision,
        "repo_type": kind,
        "allow_patterns": None if patterns is None else list(patterns),
    }


def _cached(repo: str, **wanted: Any) -> Path | None:
    """Return the snapshot in the local cache; None where there is none, or one known to be incomplete."""
    import huggingface_hub

    with contextlib.suppress(Exception):
        return Path(huggingface_hub.snapshot_download(repo, local_files_only=True, **wanted))
    return None


def _remember(repo: str, revision: str | None, kind: Kind, commit: str) -> None:
    """Note which commit a revision was: what is downloaded by its commit leaves no such note in the hub's cache."""
    note = _note(repo, revision, kind)
    with contextlib.suppress(
        OSError
    ):  # a note that cannot be written costs the next offline run, nothing else
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_suffix(f".{os.getpid()}")
        fresh.write_text(commit)
        fresh.replace(note)


def _known(repo: str, revision: str | None, kind: Kind) -> str | None:
    """Return the commit that a revision last was, if the local cache has it."""
    with contextlib.suppress(OSError):
        commit = _note(repo, revision, kind).read_text()
        if _COMMIT.fullmatch(commit) and _cached(repo, **_wanted(commit, kind)) is not None:
            return commit
    cached = _cached(repo, **_wanted(revision, kind))
    return None if cached is None else cached.name


def _note(repo: str, revision: str | None, kind: Kind) -> Path:
    place = [repo, revision] if kind == "model" else [kind, repo, revision]
    return cache.cache_folder("weights") / "hub" / f"{digest(place)}.commit"


def _parse(address: str) -> tuple[str, str | None]:
    match = _ADDRESS.fullmatch(address.removeprefix("hub:"))
    if match is None:
        raise StudyError(f"{address!r} is not an address of the form 'hub:org/name@revision'.")
    return match["repo"], match["revision"]


def _is_verdict(error: Exception) -> bool:
    """Whether the hub itself said no: then an old copy in the cache is not what was asked for."""
    return any(word in type(error).__name__ for word in ("Gated", "RepositoryNotFound", "RevisionNotFound"))


def _refusal(address: str, error: Exception, kind: Kind) -> PlatonicRayError:
    return _ERRORS[kind](f"{address} cannot be had ({type(error).__name__}). {_remedy(error, kind)}")


def _remedy(error: Exception, kind: Kind) -> str:
    """Say what went wrong and what to do. The first cause says it: the client's own error may only repeat it."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    said = " ".join(type(cause).__name__ for cause in causes)
    if "Gated" in said:
        return "Accept its terms on the hub and log in with `hf auth login`."
    if "RepositoryNotFound" in said or "RevisionNotFound" in said:
        return "Check its name and revision; if it is private, log in with `hf auth login`."
    for cause in causes:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return f"The hub refuses access ({status}): log in with `hf auth login`, or renew HF_TOKEN."
        if status == 429:
            return "The hub has had too many requests from here (429): wait, or log in with `hf auth login`."
        if status is not None and status >= 500:
            return f"The hub has a fault of its own ({status}): run again later. What was downloaded is kept."
        if isinstance(cause, OSError) and cause.errno in _DISK:
            from huggingface_hub import constants

            return (
                f"It cannot be written to {constants.HF_HUB_CACHE}: {os.strerror(cause.errno)}. Free some space, or "
                "set HF_HUB_CACHE to a folder that has it."
            )
    if any(word in said for word in _UNREACHED):
        return (
            "The hub cannot be reached from here, and its cache does not have it. Download it elsewhere and "
            f"{_OTHERWISE[kind]}."
        )
    return (str(error).strip() or "The hub's client says no more.").splitlines()[0]
