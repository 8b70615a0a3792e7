"""Object stores: opening them by URI, waiting out their bad moments, and saying what went wrong.

Credentials come from where the cloud's own tools take them: environment variables, profiles, the
machine's role. A URI with credentials in it is refused, because URIs are logged and stored.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit

import pyarrow as pa
from pyarrow import fs

from platonic_ray.errors import StoreError
from platonic_ray.uris import holds_credentials

T = TypeVar("T")

PATIENCE_VARIABLE = "PLATONIC_RAY_STORE_PATIENCE_S"
_PATIENCE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0

_KINDS = frozenset({"s3", "gcs", "abfs"})
"""Names of options whose values are credentials, for any cloud."""
_S3_OPTIONS = frozenset({"region", "endpoint_override", "scheme"})


def is_object_store(filesystem: fs.FileSystem) -> bool:
    """Whether files appear whole, when their upload has ended, and have no folders."""
    return filesystem.type_name in _KINDS


def open_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the filesystem of a URI, and the path within it.

    :raises StoreError: if no filesystem is known for the URI, or if it holds credentials.
    """
    parts = urlsplit(uri)
    if holds_credentials(parts):
        raise StoreError(
            f"The {parts.scheme}:// URI of the store holds credentials. URIs are logged: leave them out, and export "
            "them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; GOOGLE_APPLICATION_CREDENTIALS; "
            "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET)."
        )
    try:
        if parts.scheme == "s3":
            return _open_s3(uri)
        return fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, ValueError) as error:
        raise StoreError(
            f"The store {_without_options(parts, uri)} cannot be opened: {_without_options(parts, str(error))}. "
            "Give a folder, or a URI that pyarrow knows (s3://, gs://, abfs://)."
        ) from None


def _without_options(parts: SplitResult, text: str) -> str:
    """Return a text that may be shown: without the values of a URI's options, whatever they are."""
    values = [value for values in parse_qs(parts.query).values() for value in values]
    for value in [parts.query, *sorted(values, key=len, reverse=True)]:
        text = text.replace(value, "…") if value else text
    return text


def _open_s3(uri: str) -> tuple[fs.S3FileSystem, str]:
    """Open `s3://bucket/prefix`, with `?region=`, `?endpoint_override=` and `?scheme=` where they are needed.

    The endpoint may also stand in AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, as for Amazon's own tools.
    """
    parts = urlsplit(uri)
    if not parts.netloc:
        raise ValueError("it names no bucket")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(set(options) - _S3_OPTIONS)
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; there are {', '.join(sorted(_S3_OPTIONS))}")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        scheme, _, host = endpoint.rpartition("://")
        options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
    regions = ("AWS_REGION", "AWS_DEFAULT_REGION")
    if not options.keys() & {"region", "endpoint_override"} and not any(map(os.environ.get, regions)):
        options["region"] = fs.resolve_s3_region(parts.netloc)
    # An upload of one request, instead of three, for what fits into one.
    filesystem = fs.S3FileSystem(**options, allow_delayed_open=True)
    return filesystem, f"{parts.netloc}{parts.path}".rstrip("/")


def patiently(filesystem: fs.FileSystem, action: Callable[[], T]) -> T:
    """Do `action`; on an object store, again and again while it fails for a reason that passes.

    The waits double, with jitter, up to five seconds; all of it ends after a minute (or
    `PLATONIC_RAY_STORE_PATIENCE_S`), beside the few tries that the cloud's client makes by itself.

    :raises OSError: the last failure, or the first that will not pass.
    """
    if not is_object_store(filesystem):
        return action()
    until = time.monotonic() + float(os.environ.get(PATIENCE_VARIABLE, _PATIENCE_S))
    pause, tries = _FIRST_PAUSE_S, 0
    while True:
        tries += 1
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError as error:
            wait = pause * random.uniform(0.5, 1.0)
            if not _passes(error) or time.monotonic() + wait > until:
                if tries > 1:
                    error.add_note(f"tried {tries} times")
                raise
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


_TRANSIENT = re.compile(
    r"HTTP status (5\d\d|408|429)|NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN"
    r"|REQUEST_TIMEOUT|THROTTLING|curlCode|UNAVAILABLE|truncated",
    re.IGNORECASE,
)


def _passes(error: OSError) -> bool:
    return error.errno is None and _TRANSIENT.search(str(error)) is not None


def advice(error: OSError) -> str | None:
    """Return what to do about an object store's error, or None if it is none that is known."""
    text = str(error)
    for pattern, what in _ADVICE:
        if re.search(pattern, text, re.IGNORECASE):
            return what
    return None


_ADVICE = (
    ("NO_SUCH_BUCKET|NoSuchBucket", "There is no such bucket: make it first, or correct the store's URI."),
    (
        "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN|HTTP status 40[13]",
        "The credentials of this process may not do it: it needs to list, read, write and delete below the store "
        "(export AWS_PROFILE or AWS_ACCESS_KEY_ID, or give the machine's role the bucket).",
    ),
    ("HTTP status 301|PERMANENT_REDIRECT", "The bucket is in another region: append ?region=… to the URI."),
    (
        _TRANSIENT.pattern,
        "The object store does not answer, or throttles. What was finished is kept; run again to resume.",
    ),
)
