"""`tools/prepare-host`, on a host of fake commands: each says to a log what it was asked."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "prepare-host"

COMMANDS = {
    "id": 'echo "$FAKE_UID"',
    "git": "true",
    "git-lfs": "true",
    "mmdebstrap": "true",
    "apt-get": """
        echo "apt-get $*" >> "$FAKE_LOG"
        for name in "$@"; do
            if [ "$name" = docker.io ]; then
                cp "$FAKE_SPARE/docker" "$FAKE_SPARE/dockerd" "$FAKE_BIN"
            fi
        done""",
    "docker": '[ -e "$FAKE_STATE/engine-is-up" ] && echo 99.0',
    "dockerd": 'echo dockerd >> "$FAKE_LOG"; touch "$FAKE_STATE/engine-is-up"',
    "systemctl": 'echo dockerd >> "$FAKE_LOG"; touch "$FAKE_STATE/engine-is-up"',
    "python3": """
        case "$1 $2" in
            "-c import sys; sys.exit"*) exit "${FAKE_PYTHON_IS_OLD:-0}" ;;
            "-c import sys; print("*) echo "3.11" ;;
            "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
            "-m pip") ;;
            --version*) echo "Python 3.11.0" ;;
        esac
        if [ "$1" = -m ]; then echo "python3 $*" >> "$FAKE_LOG"; fi""",
}
SYSTEM = (
    "bash",
    "cat",
    "cp",
    "dirname",
    "mkdir",
    "nohup",
    "setsid",
    "sha256sum",
    "sleep",
    "tail",
    "timeout",
    "touch",
)


@dataclass(frozen=True)
class FakeHost:
    """A repository with the script, and a PATH with nothing but what the test put there."""

    root: Path

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def without(self, *commands: str) -> None:
        for command in commands:
            (self.bin / command).unlink()

    def start_engine(self) -> None:
        (self.root / "engine-is-up").touch()

    def run(self, uid: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        places = {
            "PATH": str(self.bin),
            "FAKE_UID": str(uid),
            "FAKE_LOG": str(self.root / "log"),
            "FAKE_BIN": str(self.bin),
            "FAKE_SPARE": str(self.root / "spare"),
            "FAKE_STATE": str(self.root),
        }
        command = [str(self.root / "tools" / "prepare-host")]
        return subprocess.run(
            command, env={**places, **environment}, capture_output=True, text=True, check=False
        )


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    for folder in ("bin", "spare"):
        (tmp_path / folder).mkdir()
        for name, text in COMMANDS.items():
            path = tmp_path / folder / name
            path.write_text(f"#!/bin/bash\n{text}\n")
            path.chmod(0o755)
    for name in SYSTEM:
        found = shutil.which(name)
        assert found
        (host.bin / name).symlink_to(found)
    (tmp_path / "tools").mkdir()
    shutil.copy(SCRIPT, tmp_path / "tools")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return host


def test_missing_tools_are_installed_by_root(host: FakeHost) -> None:
    host.without("git", "docker", "mmdebstrap")
    host.start_engine()
    run = host.run()
    assert run.returncode == 0, run.stderr
    assert "prepare-host: installing git docker.io mmdebstrap" in run.stdout
    assert "apt-get -qq -y install git docker.io mmdebstrap" in host.log


def test_missing_tools_are_named_to_a_user(host: FakeHost) -> None:
    host.without("git", "docker")
    run = host.run(uid=1000)
    assert run.returncode == 1
    assert "sudo apt-get update && sudo apt-get install -y git docker.io" in run.stderr
    assert host.log == []


def test_what_only_a_few_tests_want_is_installed_where_that_is_possible(host: FakeHost) -> None:
    host.without("git-lfs")
    host.start_engine()
    run = host.run()
    assert run.returncode == 0, run.stderr
    assert "apt-get -qq -y install git-lfs" in host.log


def test_what_only_a_few_tests_want_keeps_nobody_from_the_rest(host: FakeHost) -> None:
    host.without("git-lfs", "apt-get")
    host.start_engine()
    run = host.run()
    assert run.returncode == 0, run.stderr
    assert "git-lfs" not in run.stdout


def test_host_without_apt_is_told_what_it_lacks(host: FakeHost) -> None:
    host.without("mmdebstrap", "apt-get")
    run = host.run()
    assert run.returncode == 1
    assert "this host lacks: mmdebstrap" in run.stderr


def test_engine_that_does_not_answer_is_started_by_root(host: FakeHost) -> None:
    run = host.run()
    assert run.returncode == 0, run.stderr
    assert host.log.count("dockerd") == 1
    assert "Docker Engine 99.0 answers" in run.stdout


def test_an_engine_is_installed_where_only_its_client_is(host: FakeHost) -> None:
    host.without("dockerd")
    run = host.run()
    assert run.returncode == 0, run.stderr
    assert "apt-get -qq -y install docker.io" in host.log
    assert host.log.count("dockerd") == 1


def test_engine_that_does_not_answer_is_named_to_a_user(host: FakeHost) -> None:
    run = host.run(uid=1000)
    assert run.returncode == 1
    assert "Docker Engine" in run.stderr
    assert "sudo " in run.stderr
    assert "dockerd" not in host.log


def test_foreign_engine_is_not_started(host: FakeHost) -> None:
    run = host.run(DOCKER_HOST="tcp://engine.example:2375")
    assert run.returncode == 1
    assert "DOCKER_HOST=tcp://engine.example:2375" in run.stderr
    assert "dockerd" not in host.log


def test_second_run_does_and_says_nothing(host: FakeHost) -> None:
    assert host.run().returncode == 0
    before = host.log
    run = host.run()
    assert (run.returncode, run.stdout, host.log) == (0, "", before)


def test_changed_dependencies_are_installed_again(host: FakeHost) -> None:
    host.run()
    (host.root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    host.run()
    assert len([line for line in host.log if " -m pip install " in f" {line} "]) == 2


def test_old_python_is_refused(host: FakeHost) -> None:
    run = host.run(FAKE_PYTHON_IS_OLD="1")
    assert run.returncode == 1
    assert "smidr needs 3.11 or newer" in run.stderr
