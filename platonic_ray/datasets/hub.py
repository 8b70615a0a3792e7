"""Datasets of the Hugging Face hub: `hub:org/name@revision`, read by the library `datasets`.

A revision is a branch, a tag or a commit; a branch is resolved to its commit whenever the hub can be
reached, and taken from the hub's local cache where it cannot. No code of a dataset is ever run.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from platonic_ray.errors import DataError, StudyError

PREFIX = "hub:"
_ADDRESS = re.compile(r"(?P<repo>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


def read_hub(source: str, config: str | None = None, split: str | None = None) -> pa.Table:
    """Return the rows of one split of a dataset, mapped from the cache of `datasets`.

    :param config: its configuration (the hub calls it a subset), where it has several.
    :param split: where it has several.
    :raises StudyError: for an address of another form, a split or configuration that is not there or has
        to be chosen, or without the library.
    :raises DataError: if it cannot be had or read.
    """
    match = _ADDRESS.fullmatch(source.removeprefix(PREFIX))
    if match is None:
        raise StudyError(f"dataset.source: {source!r} is not of the form 'hub:org/name@revision'.")
    try:
        import datasets
    except ImportError:
        raise StudyError(
            f"dataset.source: {source} is read by the library `datasets`, which is not installed: "
            "pip install 'platonic-ray[datasets]'."
        ) from None
    folder = _snapshot(source, match["repo"], match["revision"])
    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        found: Any = datasets.load_dataset(str(folder), config)
    except Exception as error:  # its builders raise anything for what they cannot read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        if "onfig" in reason:
            raise StudyError(f"dataset.config: {source}: {reason}") from None
        raise DataError(f"{source} cannot be read by datasets {datasets.__version__}: {reason}") from None
    finally:
        if bars:
            datasets.utils.logging.enable_progress_bar()
    if (split is None and len(found) > 1) or (split is not None and split not in found):
        asked = f"there is no {split!r}" if split is not None else "it has several"
        raise StudyError(f"dataset.split: {source}: {asked}; give one of: {', '.join(found)}.")
    table: pa.Table = found[split or next(iter(found))].data.table
    return table


def _snapshot(source: str, repo: str, revision: str | None) -> Path:
    """Return the folder of a dataset's files at a commit, in the hub's own cache."""
    import huggingface_hub

    known: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
    try:
        commit = huggingface_hub.HfApi().dataset_info(repo, revision=revision, timeout=20).sha
        return Path(huggingface_hub.snapshot_download(repo, **{**known, "revision": commit}))
    except Exception as online:
        with contextlib.suppress(Exception):
            return Path(huggingface_hub.snapshot_download(repo, local_files_only=True, **known))
        cause = type(online).__name__
        if "Gated" in cause:
            remedy = "Accept its terms on the hub and log in with `hf auth login`."
        elif "NotFound" in cause and "Local" not in cause:
            remedy = "Check its name and revision; if it is private, log in with `hf auth login`."
        else:
            remedy = "The hub cannot be reached from here, and its local cache does not have it."
        raise DataError(f"{source} cannot be had ({cause}). {remedy}") from None
