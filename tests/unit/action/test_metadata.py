"""action.yml and the example workflows against GitHub's schemas and zizmor's audits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.step_harness import ACTION

METADATA = ACTION / "action.yml"
WORKFLOWS = sorted((ACTION / "examples" / "github").glob("*.yml"))
SPECIFIED_INPUTS = {
    "config",
    "target",
    "customer",
    "clean",
    "machine",
    "artifacts",
    "upload",
    "fail-on",
    "working-directory",
}
SPECIFIED_OUTPUTS = {
    "build-id",
    "result",
    "artifacts-path",
    "images",
    "sstate-reuse",
    "summary-path",
}


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    return found


def check(*command: str) -> str:
    program = Path(sys.executable).parent / command[0]
    run = subprocess.run(
        [str(program), *command[1:]], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_action_yml_fits_the_schema_of_actions() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.github-actions", str(METADATA))


def test_there_are_example_workflows() -> None:
    assert {path.name for path in WORKFLOWS} >= {"build.yml", "machines.yml", "hosted.yml"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_an_example_fits_the_schema_of_workflows(path: Path) -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path))


@pytest.mark.parametrize("path", [METADATA, *WORKFLOWS], ids=lambda path: path.name)
def test_zizmor_has_nothing_to_say_of_it(path: Path) -> None:
    assert "No findings" in check("zizmor", "--offline", str(path))


def test_inputs_outputs_and_files_are_the_specified_ones() -> None:
    metadata = load(METADATA)
    assert set(metadata["inputs"]) == SPECIFIED_INPUTS
    assert set(metadata["outputs"]) == SPECIFIED_OUTPUTS
    runs = metadata["runs"]
    assert runs["using"] == "node24"
    assert runs["post-if"] == "always()"
    assert (ACTION / runs["main"]).is_file()
    assert (ACTION / runs["post"]).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_an_example_uses_the_action_s_own_inputs_and_outputs(path: Path) -> None:
    ours = [
        step
        for job in load(path)["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith("smidr/build@")
    ]
    assert ours
    for step in ours:
        assert "config" in step["with"]
        assert set(step["with"]) <= SPECIFIED_INPUTS
    used = set(re.findall(r"steps\.build\.outputs\.([a-z-]+)", path.read_text()))
    assert used <= SPECIFIED_OUTPUTS


def test_every_input_and_output_has_a_line_in_the_documentation() -> None:
    text = (ACTION / "docs" / "github.md").read_text()
    for name in SPECIFIED_INPUTS | SPECIFIED_OUTPUTS:
        assert f"| `{name}` |" in text, name
