"""The embedded dataset: 128 px images of emoji with their names in sixteen languages.

`jobs/build_emoji.py` makes the file and says what is in it; `NOTICE.emoji.md` beside it has the
licences. The file is checked against `SHA256` whenever it is opened.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from platonic_ray.errors import DataError

FILE = Path(__file__).with_name("emoji.parquet")
SHA256 = "6a2289348853d21ac9d7b08647edc3af7e4299b7394931f5cb7c33caca96871c"
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "fi", "vi", "ru", "uk", "hi", "bn", "th", "ja", "ko", "zh")


def read_emoji(file: Path = FILE, sha256: str = SHA256) -> pa.Table:
    """Return the embedded table after checking the file's fingerprint.

    :raises DataError: if the file is missing or is not the one this version was released with.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"The embedded dataset {file} cannot be read ({error.strerror}). Install platonic-ray again."
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"The embedded dataset {file} is not the one this version was released with: its sha256 is "
            f"{found}, expected {sha256}. Install platonic-ray again."
        )
    return pq.ParquetFile(pa.BufferReader(content)).read()
