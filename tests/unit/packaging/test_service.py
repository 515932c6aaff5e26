"""The systemd unit is valid, fits the program, and gives few rights."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from smidr_ci.cli.main import smidr
from smidr_ci.errors import FailureKind

ROOT = Path(__file__).resolve().parents[3]
PACKAGING = ROOT / "packaging"
UNIT = PACKAGING / "smidr.service"
MOST_EXPOSED = 20
"""Tenths of systemd's exposure level, which goes from 0 to 100 here; below 2.0 of 10 reads "OK"."""


def settings() -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def tool(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"needs {name}: apt-get install systemd")
    return program


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is installed here."""
    text = UNIT.read_text()
    assert text.count("/opt/smidr/bin/smidr ") == 1
    place = tmp_path / UNIT.name
    place.write_text(text.replace("/opt/smidr/bin/smidr ", "/bin/true "))
    return place


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_finds_no_fault_in_the_unit(unit: Path) -> None:
    done = run(tool("systemd-analyze"), "verify", "--man=no", str(unit))
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_unit_gives_few_rights(unit: Path) -> None:
    program = tool("systemd-analyze")
    command = (program, "security", "--offline=true", "--no-pager", str(unit))
    done = run(*command, f"--threshold={MOST_EXPOSED}")
    assert done.returncode == 0, done.stdout
    assert run(*command, "--threshold=1").returncode != 0, "the tool would pass anything"


def test_the_unit_starts_a_command_that_there_is() -> None:
    (line,) = settings()["ExecStart"]
    program, *arguments = shlex.split(line)
    assert program == "/opt/smidr/bin/smidr"
    answer = CliRunner().invoke(smidr, [*arguments, "--help"])
    assert answer.exit_code == 0, answer.output
    assert "foreground" in answer.output


def test_the_home_is_the_one_directory_that_the_unit_may_write_to() -> None:
    found = settings()
    (state,) = found["StateDirectory"]
    assert f"SMIDR_HOME=/var/lib/{state}" in found["Environment"]
    assert found["ProtectSystem"] == ["strict"]
    assert "ReadWritePaths" not in found


def test_what_a_restart_can_not_mend_is_not_restarted() -> None:
    assert settings()["RestartPreventExitStatus"] == [str(FailureKind.CONFIG.exit_code)]


def test_the_user_is_made_with_access_to_the_engine(tmp_path: Path) -> None:
    program = tool("systemd-sysusers")
    (tmp_path / "etc").mkdir()
    with (PACKAGING / "smidr.sysusers").open() as wanted:
        command = [program, f"--root={tmp_path}", "-"]
        done = subprocess.run(command, stdin=wanted, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (user,) = [
        line.split(":")
        for line in (tmp_path / "etc/passwd").read_text().splitlines()
        if line.startswith("smidr:")
    ]
    assert user[5] == "/var/lib/smidr"
    assert user[6].endswith("nologin")
    assert re.search(r"^docker:.*:smidr$", (tmp_path / "etc/group").read_text(), re.MULTILINE)
    assert settings()["User"] == ["smidr"]


def test_the_page_names_files_that_there_are() -> None:
    page = (PACKAGING / "README.md").read_text()
    named = set(re.findall(r"packaging/[\w.-]+", page))
    assert named == {"packaging/smidr.service", "packaging/smidr.sysusers"}
    assert all((ROOT / name).is_file() for name in named)
