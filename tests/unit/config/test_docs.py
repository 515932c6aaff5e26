"""The configuration reference is made from the models and up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from smidr_ci.config.loader import load_project_text
from tests.fakes.config_keys import EXAMPLES

ROOT = Path(__file__).resolve().parents[3]


def test_the_generated_pages_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "tools" / "generate_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_key_has_a_line_in_the_table_of_its_section() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    project = page.split("## smidr.yaml\n", 1)[1].split("## agent.yaml\n", 1)[0]
    tables = {"": project.split("\n### ", 1)[0]}
    for part in project.split("\n### `")[1:]:
        section, _, table = part.partition("`\n")
        tables[section] = table
    for name in EXAMPLES:
        section, _, key = name.rpartition(".")
        assert f"\n| `{key}` | " in tables[section], name


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md"])
def test_the_configs_in_the_pages_are_valid(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        load_project_text(block, name, directory=ROOT, environ={})


def test_links_within_the_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "examples/hello/README.md"]
    for page in pages:
        for target in re.findall(r"\]\(([\w./-]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"
