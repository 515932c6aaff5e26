"""The commands around a build, as processes: JSON, logs in bytes and on a terminal, pipes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from docker import APIClient

from tests.fakes.fault_recipes import add_fault_recipes, wait_for_console
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
) -> HelloProject:
    made = make_hello_project(tmp_path_factory.mktemp("commands"))
    add_fault_recipes(made)
    return made


@pytest.fixture(scope="module")
def smidr(
    tmp_path_factory: pytest.TempPathFactory, project: HelloProject, docker_client: APIClient
) -> Smidr:
    assert docker_client.ping()
    return Smidr(tmp_path_factory.mktemp("home"), project.work)


@pytest.fixture(scope="module")
def built(smidr: Smidr) -> dict[str, Any]:
    """The record of a whole build."""
    return smidr.build()


def on_a_terminal(smidr: Smidr, *arguments: str) -> tuple[int, bytes]:
    """Run a command with a terminal as its three streams; exit code and all it wrote."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "smidr_ci", *arguments]
    environment = {
        **os.environ,
        "SMIDR_HOME": str(smidr.home),
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm",
        "COLUMNS": "120",
    }
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, cwd=smidr.directory, env=environment
    ) as process:
        os.close(its)
        said = b""
        with contextlib.suppress(OSError):  # EIO: the last writer has closed the terminal
            while chunk := os.read(mine, 65536):
                said += chunk
    os.close(mine)
    return process.returncode, said


def test_a_record_tells_stages_figures_layers_image_and_artifacts(
    smidr: Smidr, built: dict[str, Any]
) -> None:
    record = smidr("status", built["build_id"], "--json").json
    assert record == {**built, "waiting_for": ""}
    names = [stage["name"] for stage in record["stages"]]
    assert names == ["preparing", "building", "extracting-artifacts"]
    times = [record["created"], record["started"]]
    for stage in record["stages"]:
        times += [stage["started"], stage["ended"]]
    moments = [datetime.fromisoformat(text) for text in (*times, record["ended"])]
    assert moments == sorted(moments)
    assert all(moment.utcoffset() is not None for moment in moments)
    assert record["tasks"]["executed"] > 0
    assert record["sstate"]["missed"] == record["sstate"]["wanted"] > 0
    assert {len(commit) for commit in record["layer_commits"].values()} == {40}
    assert record["image"].startswith("sha256:")
    assert len(record["artifacts"]) == 3
    assert record["exit_code"] == 0
    assert record["workspace"] == ""
    assert record["owner_pid"] is None


def test_a_build_is_found_by_the_beginning_of_its_id(smidr: Smidr, built: dict[str, Any]) -> None:
    build_id = built["build_id"]
    for command in (["status"], ["logs"], ["artifacts", "show"]):
        assert smidr(*command, build_id[:-2]).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "default-ffffffff"],
        ["status", "--no-such-option"],
        ["artifacts", "show", "nothing"],
        ["artifacts", "clean", "--keep", "many"],
        ["build", "-c", "none.yaml"],
        ["build", "--customer", "../x"],
        ["build", "-t", "-k"],
        ["config", "check", "-c", "none.yaml"],
        ["config", "show", "-c", "none.yaml"],
        ["lock", "-c", "none.yaml"],
        ["list", "--state", "nonsense"],
    ],
)
def test_an_error_is_one_json_document_when_json_is_asked_for(
    smidr: Smidr, arguments: list[str]
) -> None:
    answer = smidr(*arguments, "--json")
    assert answer.code == 2, answer.text
    error = answer.json["error"]
    assert error["kind"] in {"usage", "config"}
    assert error["message"]
    assert error["hint"]
    assert answer.err == ""


def test_each_command_answers_in_json(smidr: Smidr, built: dict[str, Any]) -> None:
    builds = smidr("list", "--json").json["builds"]
    assert built["build_id"] in {one["build_id"] for one in builds}
    (kept,) = [
        one
        for one in smidr("artifacts", "list", "--json").json["artifacts"]
        if one["build_id"] == built["build_id"]
    ]
    assert kept["files"] == 3
    assert kept["size_bytes"] > 0
    shown = smidr("artifacts", "show", built["build_id"], "--json").json
    assert {item["path"] for item in shown["artifacts"]} == {
        item["path"] for item in built["artifacts"]
    }
    cleaned = smidr("artifacts", "clean", "--dry-run", "-k", "0", "-d", "0", "--json").json
    assert str(kept["path"]) in {item["path"] for item in cleaned["removed"]}
    assert Path(kept["path"]).is_dir()
    checks = smidr("doctor", "--json").json["checks"]
    assert "leftovers" in {check["name"] for check in checks}


def test_config_commands_check_resolve_and_describe(smidr: Smidr) -> None:
    assert smidr("config", "check", "--json").json["valid"] is True
    shown = smidr("config", "show")
    assert yaml.safe_load(shown.out)["base"]["machine"] == "hello-x86"
    assert smidr("config", "show", "--json").json["name"] == "hello"
    schema = smidr("config", "schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((smidr.directory / "smidr.yaml").read_text()), schema)


def test_init_writes_a_config_that_is_valid_and_keeps_one_that_is_there(
    smidr: Smidr, tmp_path: Path
) -> None:
    place = tmp_path / "new"
    assert smidr("init", str(place)).code == 0
    assert smidr("config", "check", "-c", str(place / "smidr.yaml")).code == 0
    again = smidr("init", str(place))
    assert again.code == 2, again.text
    assert str(place / "smidr.yaml") in again.text


def test_artifacts_are_copied_once_and_cleaned_when_asked(smidr: Smidr, tmp_path: Path) -> None:
    record = smidr.build("--customer", "cleaner")
    copied = smidr("artifacts", "copy", record["build_id"], str(tmp_path))
    assert sorted(copied.out.split()) == sorted(
        str(tmp_path / item["path"]) for item in record["artifacts"]
    )
    assert smidr("artifacts", "copy", record["build_id"], str(tmp_path)).code == 2
    gone = smidr("artifacts", "clean", "-k", "0", "-d", "0", "--customer", "cleaner")
    assert gone.out.startswith(f"removed {smidr.home}/artifacts/cleaner/{record['build_id']}")
    assert smidr("artifacts", "show", record["build_id"]).code == 2
    assert smidr("status", record["build_id"], "--json").json["artifacts"] == record["artifacts"]


def test_following_a_build_of_another_process_gives_every_byte_and_ends(
    smidr: Smidr, project: HelloProject
) -> None:
    build = smidr.start("build", "-t", "patient", "--customer", "followed")
    wait_for_console(smidr, "followed", "patient waits")
    followers = [
        smidr.start("logs", "--customer", "followed", "--follow", *more)
        for more in ([], ["--json"])
    ]
    (project.work / "go").touch()
    plain, lines = (follower.communicate(timeout=60)[0] for follower in followers)
    said, _ = build.communicate(timeout=60)
    (project.work / "go").unlink()
    assert build.returncode == 0, said
    (console,) = smidr.home.glob("builds/followed-*/control/console.log")
    assert plain == console.read_text()
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["text"] for record in records] == console.read_text().splitlines()
    raw = console.read_bytes()
    assert all(raw[one["offset"] :].startswith(one["text"].encode()) for one in records)


def test_logs_are_bytes_in_a_pipe_and_harmless_on_a_terminal(smidr: Smidr) -> None:
    record = smidr.build("-t", "hostile")
    (console,) = smidr.home.glob(f"builds/{record['build_id']}/control/console.log")
    raw = console.read_bytes()
    assert b"\x1b]0;owned\x07" in raw
    piped = subprocess.run(
        [sys.executable, "-m", "smidr_ci", "logs", record["build_id"]],
        env={**os.environ, "SMIDR_HOME": str(smidr.home)},
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    assert piped.stdout == raw
    code, shown = on_a_terminal(smidr, "logs", record["build_id"])
    assert code == 0
    assert b"plain" in shown
    assert b"\x1b]" not in shown
    assert b"\x07" not in shown
    assert b"owned" not in shown


def test_a_build_on_a_terminal_shows_a_live_line_and_takes_it_away(smidr: Smidr) -> None:
    code, said = on_a_terminal(smidr, "build")
    assert code == 0, said
    assert b"building: " in said
    hidden, shown = said.rfind(b"\x1b[?25l"), said.rfind(b"\x1b[?25h")
    assert shown > hidden >= 0, "the cursor stays hidden"
    end = said[said.rindex(b"\x1b[2K") :]
    assert b"Result" in end
    assert b"building: " not in end


def test_a_piped_build_says_plain_lines(smidr: Smidr) -> None:
    answer = smidr("build", "-t", "motd")
    assert answer.code == 0, answer.text
    assert "\x1b" not in answer.text
    assert "\r" not in answer.text
    assert answer.err.splitlines()[:2] == ["queued", "preparing"]


def test_a_build_goes_on_without_a_reader_and_keeps_its_exit_code(smidr: Smidr) -> None:
    script = f"set -o pipefail; {sys.executable} -m smidr_ci build -t broken 2>&1 | head -1"
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        env={**os.environ, "SMIDR_HOME": str(smidr.home), "PYTHONPATH": str(ROOT)},
        cwd=smidr.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (smidr.newest()["failure_kind"], done.stderr) == ("build", "")


def test_a_reader_that_goes_away_is_no_error(smidr: Smidr, built: dict[str, Any]) -> None:
    for command in (f"logs {built['build_id']}", "list", "config schema"):
        done = subprocess.run(
            ["/bin/bash", "-c", f"set -o pipefail; {sys.executable} -m smidr_ci {command} | :"],
            env={**os.environ, "SMIDR_HOME": str(smidr.home)},
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
