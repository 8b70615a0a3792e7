"""Datasets of the Hugging Face hub: `hub:org/name@revision`, read by the library `datasets`.

A revision is a branch, a tag or a commit; how it is pinned and fetched is `platonic_ray.hub`'s. No code of
a dataset is ever run.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from platonic_ray import hub
from platonic_ray.errors import DataError, StudyError

PREFIX = "hub:"


def read_hub(source: str, config: str | None = None, split: str | None = None) -> pa.Table:
    """Return the rows of one split of a dataset, mapped from the cache of `datasets`.

    :param config: its configuration (the hub calls it a subset), where it has several.
    :param split: where it has several.
    :raises StudyError: for an address of another form, a split or configuration that is not there or has
        to be chosen, or without the library.
    :raises DataError: if it cannot be had or read.
    """
    try:
        import datasets
    except ImportError:
        raise StudyError(
            f"dataset.source: {source} is read by the library `datasets`, which is not installed: "
            "pip install 'platonic-ray[datasets]'."
        ) from None
    folder = hub.fetch(hub.pin(source, "dataset"), kind="dataset")
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
