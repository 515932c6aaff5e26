from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from smidr_ci.cli.diagnose import diagnose
from smidr_ci.errors import UsageError

LOG = "ERROR: demo-1.0-r0 do_compile: oe_runmake failed\n| a.c:1:2: error: no\n"


def test_a_log_from_standard_input_is_diagnosed() -> None:
    result = CliRunner().invoke(diagnose, ["-", "--format", "json"], input=LOG)
    assert result.exit_code == 0
    assert json.loads(result.output)["findings"][0]["message"] == "| a.c:1:2: error: no"


def test_task_logs_and_formats_are_taken(tmp_path: Path) -> None:
    console, task = tmp_path / "console.log", tmp_path / "log.do_compile.1"
    console.write_text("ERROR: demo-1.0-r0 do_compile: oe_runmake failed\n")
    task.write_text("b.c:3:1: error: yes\n")
    result = CliRunner().invoke(diagnose, [str(console), "--task-log", str(task), "-f", "github"])
    assert result.exit_code == 0
    assert result.output.startswith("::error ")
    assert "b.c:3:1: error: yes" in result.output


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(diagnose, [str(tmp_path / "none.log")])
    assert isinstance(result.exception, UsageError)
    assert "none.log" in str(result.exception)
