"""docs/architecture.md names every room, and a room imports only rooms that stand below it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import smidr_ci

PACKAGE = Path(smidr_ci.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
ROOMS = re.findall(r"^\| `([a-z]+)` \| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{item.name}" for item in node.names)]
        elif isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "smidr_ci" and (PACKAGE / rest.split(".")[0]).is_dir() and rest:
                yield rest.split(".")[0]


def test_the_page_names_every_room_and_no_other() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(ROOMS) == folders


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    allowed = set(ROOMS[ROOMS.index(room) :])
    for path in (PACKAGE / room).rglob("*.py"):
        assert set(imported_rooms(path)) <= allowed, path


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for(room: str) -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert docstring


def test_the_modules_at_the_top_import_no_room() -> None:
    for path in PACKAGE.glob("*.py"):
        if path.name != "__main__.py":
            assert set(imported_rooms(path)) == set(), path
