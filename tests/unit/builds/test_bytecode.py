"""Bytecode that a builder image's Python made, put beside BitBake's modules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidr_ci.builds.bytecode import add_bytecode

PYC = "main.cpython-311.pyc"


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """A copy of a tree's `lib`, read-only as trees are."""
    folder = tmp_path / "lib" / "bb"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text("print()\n")
    folder.chmod(0o555)
    return tmp_path / "lib"


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """What the container wrote, in the layout of a pycache prefix."""
    folder = tmp_path / "compiled" / "bb"
    folder.mkdir(parents=True)
    (folder / PYC).write_bytes(b"code")
    return tmp_path / "compiled"


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_bytecode_lands_where_python_looks_for_it(lib: Path, compiled: Path) -> None:
    add_bytecode(lib, compiled)
    assert (lib / "bb" / "__pycache__" / PYC).read_bytes() == b"code"


@pytest.mark.parametrize(
    "name", ["other.cpython-311.pyc", "main.py", "main.so", "main.cpython-311.pyc.sh", "main..pyc"]
)
def test_only_bytecode_of_modules_that_exist_is_taken(lib: Path, compiled: Path, name: str) -> None:
    (compiled / "bb" / name).write_bytes(b"other")
    add_bytecode(lib, compiled)
    assert files_in(lib) == {"bb/main.py", f"bb/__pycache__/{PYC}"}


def test_a_symlink_from_the_container_is_not_followed(
    lib: Path, compiled: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("token")
    (compiled / "bb" / PYC).unlink()
    (compiled / "bb" / PYC).symlink_to(secret)
    with pytest.raises(OSError, match=r"main\.cpython"):
        add_bytecode(lib, compiled)
    assert files_in(lib) == {"bb/main.py"}


def test_a_symlinked_folder_of_the_repository_is_not_written_to(
    lib: Path, compiled: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "main.py").write_text("")
    (lib / "link").symlink_to(outside)
    os.rename(compiled / "bb", compiled / "link")
    add_bytecode(lib, compiled)
    assert files_in(outside) == {"main.py"}


def test_bytecode_that_the_repository_brings_stays(lib: Path, compiled: Path) -> None:
    (lib / "bb").chmod(0o755)
    (lib / "bb" / "__pycache__").mkdir()
    add_bytecode(lib, compiled)
    assert files_in(lib) == {"bb/main.py"}
