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
from smidr_ci.forges.registration import Registrations
from smidr_ci.home import Home
from tests.fakes.github.server import GitHubServer, serve
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
