"""The action's own unit tests, by Node's test runner; and what keeps it free of a bundling step."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.fakes.step_harness import ACTION, node

SOURCES = sorted((ACTION / "action").rglob("*.js"))


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parent.glob("*.test.js")), ids=lambda p: p.name
)
def test_units_of_the_action_pass(path: Path) -> None:
    # In a test of its own, Node reports to whoever started it.
    environ = {name: value for name, value in os.environ.items() if name != "NODE_TEST_CONTEXT"}
    run = subprocess.run(
        [node(), "--test", str(path)],
        capture_output=True,
        text=True,
        env=environ,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.findall(r"tests (\d+)", run.stdout)[-1]) > 5


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_a_file_needs_nothing_but_node(path: Path) -> None:
    text = path.read_text()
    needed = re.findall(r"require\('([^']+)'\)", text)
    assert all(name.startswith(("node:", "./")) for name in needed), needed
    assert text.startswith("'use strict';\n")
    assert len(text.splitlines()) < 300
    assert not re.search(
        r"\b(import\s*\(|eval\b|shell: true|execSync|exec\()", text.replace(".exec(", "")
    )


def test_there_is_nothing_to_install_or_to_bundle() -> None:
    unwanted = ("package.json", "package-lock.json", "node_modules", "dist")
    found = [
        name for name in unwanted for base in (ACTION, ACTION / "action") if (base / name).exists()
    ]
    assert [name for name in found if name != "dist"] == []
    assert not (ACTION / "action" / "dist").exists()
