"""What a job needs of this machine, laid out in a folder: the library, the study, and the files it names.

A node of a cluster sees no other file of this machine. What cannot go along is refused by name before
anything is sent; a file whose name begins with a dot goes only where the study or its table names it.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Set
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from platonic_ray.datasets.sources import EMBEDDED
from platonic_ray.datasets.tables import read_table
from platonic_ray.errors import StudyError
from platonic_ray.metrics.own import is_import_path
from platonic_ray.study import DatasetEntry, ModelEntry, Study

MOST_BYTES = 400 * 2**20
"""Ray refuses packages beyond 500 MiB."""


def pack(study: Study, folder: Path) -> None:
    """Lay out in a folder what a job needs: the library, its job script, the study, its files and modules.

    :raises StudyError: if a file or module is missing or lies where it cannot be sent from, or if all of
        them are too large to be sent.
    :raises DataError: if a table whose columns name files cannot be read.
    """
    package = Path(__file__).resolve().parent.parent
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(package, folder / "platonic_ray", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "jobs").mkdir()
    (folder / "jobs" / "align.py").write_text(_JOB)
    packed = _Packed(folder)
    sent = study.model_copy(
        update={
            "dataset": _with_its_files(study.dataset, packed),
            "models": tuple(_with_its_weights(model, packed) for model in study.models),
        }
    )
    for path in own_modules(study):
        packed.add_module(path)
    (folder / "study.toml").write_text(sent.to_toml(), encoding="utf-8")


_OF_STRUCTS = (".parquet", ".arrow", ".feather")  # tables whose columns may be structs
_JOB = '''"""Runs the study that was sent along with it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from platonic_ray.cli import run_as_job

if __name__ == "__main__":
    run_as_job(["run", *sys.argv[1:]])
'''


def _with_its_files(dataset: DatasetEntry, packed: _Packed) -> DatasetEntry:
    columns = {view.column for view in dataset.views.values() if view.kind != "text"}

    def sent(source: str) -> str:
        return packed.add_table(Path(source), columns) if _is_path(source) else source

    return dataset.model_copy(update={"source": sent(dataset.source), "join": tuple(map(sent, dataset.join))})


def _with_its_weights(model: ModelEntry, packed: _Packed) -> ModelEntry:
    if model.weights_path is None:
        return model
    return model.model_copy(update={"weights": packed.add(Path(model.weights_path))})


class _Packed:
    """Files that go along, each source under a number, so that no two collide; modules beside the library."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count, self._bytes = folder, 0, 0

    def add_table(self, path: Path, columns: Set[str]) -> str:
        """Copy a table, and the files that it names in `columns` and in structs {bytes, path}; return as `add`."""
        target = self.add(path)
        path = path.expanduser()
        if path.is_file() and (columns or path.suffix in _OF_STRUCTS):
            for name in _files_named(path, columns):
                self._copy(path.parent / name, Path(target).parent / name)
        return target

    def add(self, path: Path) -> str:
        """Copy a file or folder; return its path relative to the study."""
        path = path.expanduser()
        if not path.exists():
            raise StudyError(f"{path} is not there: it cannot be sent along.")
        target = Path("files") / str(self._count) / path.name
        self._count += 1
        self._copy(path, target)
        return f"./{target}"

    def add_module(self, path: Path) -> None:
        """Copy a module or package to where the job imports from."""
        if (self._folder / path.name).exists():
            raise StudyError(
                f"The module {path} cannot be sent along: the job has a {path.name} of its own. Rename it."
            )
        self._copy(path, Path(path.name))

    def _copy(self, path: Path, target: Path) -> None:
        for file in [path] if path.is_file() else _files_below(path):
            self._bytes += file.stat().st_size
            if self._bytes > MOST_BYTES:
                raise StudyError(
                    f"The files of the study come to more than {MOST_BYTES / 2**20:.0f} MiB with {path}: too much to "
                    "send along. Put them where the cluster's nodes see them, and name them there."
                )
            place = self._folder / target / file.relative_to(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)


def _files_below(root: Path) -> Iterator[Path]:
    """Yield the files of a folder; none that is hidden, and none of a hidden folder."""
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in names:
            if not name.startswith(".") and (Path(folder) / name).is_file():
                yield Path(folder) / name


def _files_named(path: Path, columns: Set[str]) -> list[str]:
    """Return the files that a table names, in some columns and in its structs {bytes, path}, relative to its folder.

    :raises StudyError: for one that is not below the folder, or is not there.
    """
    table = read_table(path)
    naming = {field.name for field in table.schema if field.name in columns or _is_of_structs(field.type)}
    names = {name for column in naming for name in _texts(table[column]) if name}
    for name in sorted(names):
        if Path(name).is_absolute() or name.startswith("~") or ".." in Path(name).parts:
            raise StudyError(
                f"{path} names the file {name}, which is not below its folder: it cannot be sent along. Name files "
                "relative to the table and below it, or put all of it where the cluster's nodes see it."
            )
        if not (path.parent / name).is_file():
            raise StudyError(f"{path} names the file {name}, which is not there: it cannot be sent along.")
    return sorted(names)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_of_structs(kind: pa.DataType) -> bool:
    if _is_list(kind):
        return _is_of_structs(kind.value_type)
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Return the paths of a column: of texts, of structs whose bytes are elsewhere, or of lists of either."""
    kind = column.type
    if _is_list(kind):
        return _texts(pc.list_flatten(column))
    if _is_of_structs(kind):
        bare = pc.is_null(pc.struct_field(column, "bytes"))
        return _texts(pc.struct_field(column, "path").filter(bare))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [str(text) for text in pc.unique(column).to_pylist() if text is not None]
    return []


def own_modules(study: Study) -> list[Path]:
    """Return the files and folders of the modules that a study names, and of what these import beside them.

    What is installed, here as on the cluster, is left to it; only what lies elsewhere is a user's own.

    :raises StudyError: for a module that is named and cannot be found.
    """
    paths = [metric.name for metric in study.metrics if is_import_path(metric.name)]
    paths += [model.weights for model in study.models if model.kind == "module" and model.weights]
    waiting = {path.partition(":")[0].partition(".")[0]: path for path in paths}
    found: dict[str, list[Path]] = {}
    while waiting:
        name, named_by = waiting.popitem()
        found[name] = _own_sources(name)
        if named_by in paths and not found[name] and not _is_there(name):
            raise StudyError(
                f"{named_by} cannot be sent along: there is no module {name!r} here. Put its folder on PYTHONPATH."
            )
        for source in found[name]:
            for imported in _imports(source) - found.keys():
                waiting.setdefault(imported, name)
    return [source for name in sorted(found) for source in found[name]]


def _own_sources(name: str) -> list[Path]:
    """Return where a top-level module lies, if it is neither installed nor a part of Python or of this library."""
    if not _is_there(name) or name in {"platonic_ray", *sys.stdlib_module_names}:
        return []
    spec = find_spec(name)
    assert spec is not None
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    installed = tuple(Path(sysconfig.get_path(where)).resolve() for where in ("stdlib", "purelib", "platlib"))
    return [
        path
        for path in map(Path, places)
        if path.exists()
        and not {"site-packages", "dist-packages"} & set(path.parts)
        and not any(path.resolve().is_relative_to(folder) for folder in installed)
    ]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # `__main__` of a notebook has no file
        return False


def _imports(source: Path) -> set[str]:
    """Return the top-level names that a module, or the modules of a package, import."""
    names: set[str] = set()
    for file in [source] if source.is_file() else source.rglob("*.py"):
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (SyntaxError, ValueError):
            continue  # it may never be imported; if it is, the job says so
        names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {name.partition(".")[0] for name in names if name}


def _is_path(source: str) -> bool:
    if source.startswith("hub:") or "://" in source:
        return False
    return bool(re.search(r"[./\\]", source)) or (source not in EMBEDDED and Path(source).exists())
