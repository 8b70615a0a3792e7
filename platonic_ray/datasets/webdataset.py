"""WebDataset shards: tar files whose members of one name and several endings are one sample.

`000123.jpg`, `000123.txt` and `000123.json` are the sample `000123`: its columns are `jpg` (encoded
bytes), `txt` (text) and the strings, numbers and booleans that the JSON object holds. The id is the
name. Nothing is ever unpickled, and nothing is unpacked to a path that a tar names.
"""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from platonic_ray.datasets.mapped import LARGE_BYTES, mapped
from platonic_ray.errors import DataError

_BYTES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "wav", "flac", "ogg", "mp3")
_TEXTS = ("txt", "text", "caption", "transcript")
_SAMPLES_IN_A_BATCH = 256


def read_tar(path: Path) -> pa.Table:
    """Read a WebDataset shard: a row a sample, in the order of the tar.

    Members of other endings than images, sounds, texts, `json` and `cls` are left out: films too (`mp4`), which
    nothing here decodes (`decode_video`); moving pictures are `gif`, `webp` or `png`.

    :raises DataError: for a tar that is damaged, whose samples are scattered, or that holds none.
    """
    first = list(itertools.islice(_samples(path), _SAMPLES_IN_A_BATCH))
    if not first:
        raise DataError(
            f"{path} holds no samples: a WebDataset has members like 000001.jpg and 000001.txt "
            f"(endings that are read: {', '.join((*_BYTES, *_TEXTS))}, json, cls)."
        )
    schema = _schema(first)

    def batches() -> Iterator[pa.RecordBatch]:
        samples = _samples(path)
        while some := list(itertools.islice(samples, _SAMPLES_IN_A_BATCH)):
            yield _batch(some, schema, path)

    if path.stat().st_size >= LARGE_BYTES:
        return mapped(path, schema, batches())
    return pa.Table.from_batches(batches(), schema)


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield each sample's columns; memory holds one sample."""
    seen: set[str] = set()
    sample: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name, _, ending = member.name.rpartition("/")[2].partition(".")
                ending = ending.lower()
                if not member.isfile() or not name or ending not in (*_BYTES, *_TEXTS, "json", "cls"):
                    continue
                key = f"{member.name.rpartition('/')[0]}/{name}".lstrip("./")
                if sample and sample["id"] != key:
                    yield sample
                    sample = {}
                if not sample:
                    if key in seen:
                        raise DataError(
                            f"{path}: the members of the sample {key!r} do not stand together; "
                            "write the shard in the order of its samples."
                        )
                    seen.add(key)
                    sample = {"id": key}
                file = tar.extractfile(member)
                assert file is not None
                _add(sample, ending, file.read(), f"{path}: {member.name}")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read as a tar file: {str(error).splitlines()[0]}.") from None
    if sample:
        yield sample


def _add(sample: dict[str, Any], ending: str, content: bytes, where: str) -> None:
    if ending in _BYTES:
        found: dict[str, Any] = {ending: content}
    else:
        try:
            text = content.decode("utf-8")
            if ending == "json":
                held = json.loads(text)
                if not isinstance(held, dict):
                    raise ValueError("it holds no object")
                found = {
                    name: value for name, value in held.items() if isinstance(value, str | bool | int | float)
                }
            else:
                found = {ending: int(text) if ending == "cls" else text}
        except ValueError as error:
            raise DataError(f"{where} cannot be read as {ending}: {error}.") from None
    twice = sorted(found.keys() & sample.keys() - {"id"})
    if twice:
        raise DataError(f"{where}: the sample has {twice[0]!r} twice.")
    sample.update({name: value for name, value in found.items() if name != "id"})


def _schema(samples: list[dict[str, Any]]) -> pa.Schema:
    """Return the columns of the first samples: those of all others have to fit."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    wide = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    fields = []
    for name in names:
        try:
            found = pa.array([sample.get(name) for sample in samples]).type
        except pa.ArrowException:  # a mixture of types is read as text
            found = pa.string()
        fields.append((name, wide.get(found, found)))
    return pa.schema(fields)


def _batch(samples: list[dict[str, Any]], schema: pa.Schema, path: Path) -> pa.RecordBatch:
    more = sorted({name for sample in samples for name in sample} - set(schema.names))
    if more:
        raise DataError(
            f"{path}: the sample {next(s['id'] for s in samples if more[0] in s)!r} has {more[0]!r}, which the "
            f"first {_SAMPLES_IN_A_BATCH} do not have; every sample needs the same members."
        )
    columns = []
    for field in schema:
        values = [sample.get(field.name) for sample in samples]
        if field.type == pa.large_string():
            values = [value if value is None or isinstance(value, str) else str(value) for value in values]
        try:
            columns.append(pa.array(values, field.type))
        except pa.ArrowException as error:
            raise DataError(f"{path}: {field.name!r} is not {field.type} everywhere: {error}.") from None
    return pa.record_batch(columns, schema=schema)
