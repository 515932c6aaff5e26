"""`smidr runner` with a GitHub on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smidr_ci.cli.options import CliState
from smidr_ci.cli.runner import runner
from smidr_ci.errors import ConfigError, ConflictError, UsageError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.runners.names import RunnerNames
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.home import Home
from tests.fakes.github.server import Fault, GitHubServer, serve
from tests.fakes.github.state import APP_ID, rsa_key_pem


class Shell:
    def __init__(self, folder: Path, server: GitHubServer) -> None:
        self.folder, self.server = folder, server
        self.home = folder / "home"

    def __call__(self, *arguments: str) -> Result:
        shell = CliRunner(env={"SMIDR_HOME": str(self.home), "COLUMNS": "200"})
        return shell.invoke(runner, list(arguments), obj=CliState())

    def register(self, *arguments: str, url: str = "") -> Result:
        where = ("--forge", "github", "--url", url or self.server.url)
        return self("register", *where, *arguments)

    def secret(self, name: str, text: str, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def app(self) -> tuple[str, ...]:
        key = self.secret("app.pem", rsa_key_pem())
        return ("--app-id", str(APP_ID), "--app-key-file", key)


@pytest.fixture
def smidr(tmp_path: Path) -> Iterator[Shell]:
    with serve() as server:
        server.state.now = datetime.now(UTC)
        yield Shell(tmp_path, server)


def test_an_app_is_registered_shown_verified_and_forgotten(smidr: Shell) -> None:
    hook = smidr.secret("hook", "a secret")
    done = smidr.register(*smidr.app(), "--webhook-secret-file", hook)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "as github-acme-bsp" in done.output
    assert "Note: the App lacks the permission checks: write" in done.output
    stored = Registrations(Home(smidr.home)).load("github-acme-bsp")
    assert stored.settings["webhook_secret_file"] == hook
    assert "github-acme-bsp" in smidr("list").output
    assert "is known" in smidr("verify").output
    with smidr.server.lock:
        smidr.server.state.installations.clear()
    found = json.loads(smidr("verify", "--json").output)
    assert "find the App" in found["registrations"][0]["problem"]
    assert smidr("unregister", "github-acme-bsp").exit_code == 0
    assert Registrations(Home(smidr.home)).load_all() == ([], [])


def test_a_plain_token_stays_in_its_file(smidr: Shell) -> None:
    token = smidr.server.state.plain_token()
    done = smidr.register("--token-file", smidr.secret("token", token), "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "commit statuses" in json.loads(done.output)["warnings"][0]
    assert token not in (smidr.home / "registrations" / "github-acme-bsp.json").read_text()
    again = smidr.register("--token-file", smidr.secret("token", token))
    assert isinstance(again.exception, ConflictError)


def test_what_does_not_fit_together_is_refused_and_nothing_stored(smidr: Shell) -> None:
    token = smidr.secret("token", "x")
    open_key = smidr.secret("open.pem", rsa_key_pem(), 0o644)
    cases: list[tuple[tuple[str, ...], type[Exception]]] = [
        ((), ConfigError),
        (("--app-id", "1"), ConfigError),
        (("--app-id", "1", "--app-key-file", open_key), ConfigError),
        ((*smidr.app(), "--token-file", token), UsageError),
        ((*smidr.app(), "--tags", "x"), UsageError),
        ((*smidr.app(), "--public-url", "ftp://x"), ConfigError),
        ((*smidr.app(), "--name", "../x"), UsageError),
    ]
    for arguments, kind in cases:
        assert isinstance(smidr.register(*arguments).exception, kind), arguments
    elsewhere = smidr.register(*smidr.app(), url="https://github.com")
    assert isinstance(elsewhere.exception, UsageError)
    assert Registrations(Home(smidr.home)).load_all() == ([], [])


def stored(smidr: Shell) -> Registration:
    return Registrations(Home(smidr.home)).load("github-acme-bsp")


def test_a_scale_set_is_made_shown_verified_and_deleted(smidr: Shell) -> None:
    done = smidr.register(*smidr.app(), "--scale-set", "smidr-lab1", "--labels", "yocto")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "Runners: scale set smidr-lab1 (number 7)" in done.output
    assert "lacks the permission administration: write" in done.output
    assert stored(smidr).settings["mode"] == "scale-set"
    sets = smidr.server.scale_sets
    assert sets.only.body["name"] == "smidr-lab1"
    assert "scale set smidr-lab1 (number 7), for jobs with" in smidr("verify").output
    found = json.loads(smidr("verify", "--json").output)["registrations"]
    assert "number 7" in found[0]["runners"]
    home = Home(smidr.home)
    with smidr.server.lock:
        lost = RunnerNames(home, "github-acme-bsp").fresh()
        smidr.server.state.runners.add("/repos/acme/bsp", lost)
        smidr.server.state.runners.add("/repos/acme/bsp", "somebody-elses")
    done = smidr("unregister", "github-acme-bsp")
    assert done.exit_code == 0, (done.output, done.exception)
    assert sets.sets == {}
    names = {item["name"] for item in smidr.server.state.runners.known.values()}
    assert names == {"somebody-elses"}
    assert Registrations(home).load_all() == ([], [])


def test_a_scale_set_with_jobs_at_work_is_not_deleted_without_force(smidr: Shell) -> None:
    smidr.register(*smidr.app(), "--scale-set", "smidr-lab1")
    name = RunnerNames(Home(smidr.home), "github-acme-bsp").fresh()
    with smidr.server.lock:
        smidr.server.state.runners.add("/repos/acme/bsp", name, busy=True, status="online")
    assert isinstance(smidr("unregister", "github-acme-bsp").exception, ConflictError)
    assert len(smidr.server.scale_sets.sets) == 1
    assert smidr("unregister", "--force", "github-acme-bsp").exit_code == 0
    assert smidr.server.scale_sets.sets == {}


def test_a_scale_set_that_can_not_be_deleted_keeps_its_registration(smidr: Shell) -> None:
    smidr.register(*smidr.app(), "--scale-set", "smidr-lab1")
    pattern = r"DELETE .*/runnerscalesets/\d+"
    smidr.server.faults.append(Fault(pattern, status=403, body={"message": "no"}, count=9))
    done = smidr("unregister", "github-acme-bsp")
    assert isinstance(done.exception, ForgeError)
    assert "--only-here" in done.exception.hint
    assert stored(smidr).name == "github-acme-bsp"
    assert smidr("unregister", "--only-here", "github-acme-bsp").exit_code == 0


def test_runners_by_label_are_registered_once_github_lists_them(smidr: Shell) -> None:
    done = smidr.register(*smidr.app(), "--labels", "smidr, lab1", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    told = json.loads(done.output)
    assert told["settings"]["labels"] == ["smidr", "lab1"]
    assert told["settings"]["mode"] == "jit"
    assert "GitHub lists 0 runners" in told["runners"]
    assert smidr("unregister", "github-acme-bsp").exit_code == 0


def test_a_mode_alone_chooses_what_jobs_ask_for(smidr: Shell) -> None:
    assert smidr.register(*smidr.app(), "--mode", "jit").exit_code == 0
    assert stored(smidr).settings["labels"] == ["smidr"]
    smidr("unregister", "github-acme-bsp")
    assert smidr.register(*smidr.app(), "--mode", "scale-set").exit_code == 0
    assert stored(smidr).settings["scale_set"].startswith("smidr-")


def test_without_the_right_to_make_runners_nothing_is_registered(smidr: Shell) -> None:
    path = "POST /repos/acme/bsp/actions/runners/registration-token"
    said = {"message": "Resource not accessible by integration"}
    smidr.server.faults.append(Fault(path, status=403, body=said, count=9))
    done = smidr.register(*smidr.app(), "--scale-set", "smidr-lab1")
    assert isinstance(done.exception, ForgeError)
    assert Registrations(Home(smidr.home)).load_all() == ([], [])


@pytest.mark.parametrize(
    "options",
    [
        ("--mode", "jit", "--scale-set", "x"),
        ("--mode", "attach", "--labels", "x"),
        ("--mode", "attach", "--scale-set", "x"),
        ("--runner-group", "builders"),
        ("--mode", "jit", "--runner-group", "builders"),
        ("--labels", "self-hosted"),
        ("--labels", "a b"),
        ("--scale-set", "../../x"),
        ("--scale-set", "self-hosted"),
    ],
)
def test_runners_that_make_no_sense_are_refused(smidr: Shell, options: tuple[str, ...]) -> None:
    done = smidr.register(*smidr.app(), *options)
    assert isinstance(done.exception, UsageError | ConfigError), (options, done.output)
    assert smidr.server.requests == []


def test_an_organisations_runner_group_must_be_there(smidr: Shell) -> None:
    url = f"{smidr.server.web}/acme"
    options = (*smidr.app(), "--name", "acme", "--labels", "smidr", "--runner-group")
    assert isinstance(smidr.register(*options, "nobody", url=url).exception, ForgeError)
    assert smidr.register(*options, "Builders", url=url).exit_code == 0
