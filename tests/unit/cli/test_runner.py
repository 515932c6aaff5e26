"""`smidr runner` against a GitLab on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smidr_ci.cli.options import CliState
from smidr_ci.cli.runner import runner
from smidr_ci.errors import AgentUnreachableError, ConfigError, ConflictError, UsageError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.jobstore import JobFolder, JobState
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.home import Home
from tests.fakes.clock import FakeClock
from tests.fakes.gitlab.server import GitLabServer, serve
from tests.fakes.gitlab.site import payload

TOKEN = "glrt-t3_abcdefghij0123456789"


@dataclass
class Shell:
    home: Path
    server: GitLabServer

    def __call__(self, *arguments: str, token: str = "", given: str = "") -> Result:
        environment = {"SMIDR_HOME": str(self.home), "SMIDR_RUNNER_TOKEN": token, "COLUMNS": "200"}
        shell = CliRunner(env=environment)
        return shell.invoke(runner, list(arguments), obj=CliState(), input=given)

    def ok(self, *arguments: str, token: str = "") -> Result:
        result = self(*arguments, token=token)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    def fails(self, *arguments: str, token: str = "") -> BaseException | None:
        result = self(*arguments, token=token)
        assert result.exit_code != 0
        return result.exception

    def register(self, *arguments: str, token: str = TOKEN) -> Result:
        return self.ok("register", "--url", self.server.url, *arguments, token=token)

    @property
    def registrations(self) -> Registrations:
        return Registrations(Home(self.home))


@pytest.fixture
def smidr(tmp_path: Path) -> Iterator[Shell]:
    with serve("/gitlab") as server:
        server.state.add_runner(TOKEN)
        yield Shell(tmp_path / "home", server)


def test_a_registration_is_verified_stored_and_shown_without_its_token(smidr: Shell) -> None:
    result = smidr.register("--name", "lab", "--limit", "2", "--request-concurrency", "3")
    assert "as lab" in result.output
    assert TOKEN not in result.output
    stored = smidr.registrations.load("lab")
    assert (stored.token, stored.limit, stored.runner_id) == (TOKEN, 2, 1)
    assert stored.settings == {"request_concurrency": 3}
    assert len(smidr.server.asked("verify")) == 1
    assert smidr.server.asked("register") == []
    shown = smidr.ok("list")
    assert "lab" in shown.output
    assert "abcdefghi " in shown.output
    assert TOKEN not in shown.output
    (item,) = json.loads(smidr.ok("list", "--json").stdout)["registrations"]
    assert item["short_token"] == "abcdefghi"
    assert "token" not in item


def test_names_are_made_from_the_address_and_differ(smidr: Shell) -> None:
    smidr.server.state.add_runner("glrt-other67890123456789")
    smidr.register()
    smidr.register(token="glrt-other67890123456789")
    names = sorted(item.name for item in smidr.registrations.load_all()[0])
    port = smidr.server.server_address[1]
    assert names == [f"127.0.0.1-{port}-gitlab", f"127.0.0.1-{port}-gitlab-2"]


def test_the_token_may_come_from_a_file_or_as_an_option(smidr: Shell, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    smidr.register("--name", "a", "--token-file", str(file), token="")
    assert smidr.registrations.load("a").token == TOKEN
    smidr.ok("unregister", "--only-here", "a")
    smidr.register("--name", "a", "--token", TOKEN, token="")
    assert smidr.registrations.load("a").token == TOKEN


def test_a_token_file_that_others_can_read_is_refused(smidr: Shell, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    error = smidr.fails("register", "--url", smidr.server.url, "--token-file", str(file))
    assert isinstance(error, ConfigError)
    assert TOKEN not in str(error)


@pytest.mark.parametrize("token", ["", "   ", "glrt-a b", "glrt-\x07"])
def test_without_a_token_that_can_be_sent_nothing_is_asked(smidr: Shell, token: str) -> None:
    error = smidr.fails("register", "--url", smidr.server.url, token=token)
    assert isinstance(error, UsageError)
    assert smidr.server.requests == []


def test_without_an_address_it_says_what_is_missing(smidr: Shell) -> None:
    error = smidr.fails("register", "--non-interactive", token=TOKEN)
    assert isinstance(error, UsageError)
    assert "--url" in error.hint


def test_a_token_the_server_refuses_is_not_stored(smidr: Shell) -> None:
    error = smidr.fails("register", "--url", smidr.server.url, token="glrt-unknown")
    assert isinstance(error, ForgeError)
    assert error.kind.exit_code == 5
    assert smidr.registrations.load_all()[0] == []


def test_a_bad_name_is_refused_before_the_server_hears_of_it(smidr: Shell) -> None:
    error = smidr.fails("register", "--url", smidr.server.url, "--name", "../x", token=TOKEN)
    assert isinstance(error, UsageError)
    assert smidr.server.requests == []


def test_the_same_name_or_token_twice_is_refused(smidr: Shell) -> None:
    smidr.register("--name", "lab")
    same_token = smidr.fails("register", "--url", smidr.server.url, token=TOKEN)
    assert isinstance(same_token, ConflictError)
    name = ("--name", "lab")
    same_name = smidr.fails("register", "--url", smidr.server.url, *name, token="glrt-other")
    assert isinstance(same_name, ConflictError)


def test_a_registration_token_makes_a_runner_with_tags(smidr: Shell) -> None:
    smidr.register(
        "--name", "old", "--tags", "yocto,big", "--locked", token="GR1348941registration"
    )
    (request,) = smidr.server.asked("register")
    assert (request.json["tag_list"], request.json["locked"]) == ("yocto,big", True)
    assert smidr.registrations.load("old").token.startswith("glrtr-")


def test_tags_for_a_runner_made_in_gitlab_are_refused(smidr: Shell) -> None:
    error = smidr.fails("register", "--url", smidr.server.url, "--tags", "a", token=TOKEN)
    assert isinstance(error, UsageError)
    assert "glrt-" in str(error)


def test_verify_ends_with_5_when_one_is_not_known(smidr: Shell) -> None:
    smidr.register("--name", "lab")
    assert "is known" in smidr.ok("verify").output
    del smidr.server.state.runners[TOKEN]
    result = smidr("verify", "--json")
    (item,) = json.loads(result.stdout)["registrations"]
    assert "403" in item["problem"]
    assert result.return_value == 5 or result.exit_code == 5 or "403" in result.stdout


def test_unregister_tells_the_server_and_forgets(smidr: Shell) -> None:
    smidr.register("--name", "lab")
    smidr.ok("unregister", "lab")
    assert [item.path for item in smidr.server.asked("unregister")] == ["runners/managers"]
    assert smidr.registrations.load_all()[0] == []


def test_unregister_keeps_what_the_server_does_not_let_go(smidr: Shell) -> None:
    smidr.register("--name", "lab")
    del smidr.server.state.runners[TOKEN]
    error = smidr.fails("unregister", "lab")
    assert isinstance(error, ForgeError)
    assert "--only-here" in error.hint
    assert smidr.registrations.load("lab").token == TOKEN
    smidr.ok("unregister", "--only-here", "lab")
    assert smidr.registrations.load_all()[0] == []


def test_a_registration_with_jobs_is_kept_unless_forced(smidr: Shell) -> None:
    smidr.register("--name", "lab")
    state = JobState(received=FakeClock().now())
    JobFolder.create(smidr.home / "jobs", "lab", payload(), 42, state)
    error = smidr.fails("unregister", "lab")
    assert isinstance(error, ConflictError)
    assert "pause lab" in error.hint
    smidr.ok("unregister", "--force", "lab")


def test_pause_and_resume_are_kept_in_the_registration(smidr: Shell) -> None:
    smidr.register("--name", "lab", "--paused")
    assert smidr.registrations.load("lab").is_paused
    smidr.ok("resume", "lab")
    assert not smidr.registrations.load("lab").is_paused
    smidr.ok("pause", "lab")
    assert "paused" in smidr.ok("list").output


def test_an_unknown_registration_is_named(smidr: Shell) -> None:
    for command in ("pause", "resume", "unregister", "verify"):
        error = smidr.fails(command, "nobody")
        assert isinstance(error, UsageError)
        assert "nobody" in str(error)


def test_status_without_an_agent_says_so(smidr: Shell) -> None:
    assert isinstance(smidr.fails("status"), AgentUnreachableError)


def test_tokens_of_other_forges_are_not_shown_to_them_as_gitlabs(smidr: Shell) -> None:
    other = Registration("hub", "github", smidr.server.url, "ghp_secret")
    smidr.registrations.save(other)
    found = json.loads(smidr("verify", "--json").stdout)["registrations"]
    assert [item["name"] for item in found if "neither an App nor a token" in item["problem"]] == [
        "hub"
    ]
    assert "neither an App nor a token" in smidr("verify", "hub").output
    smidr.ok("unregister", "hub")
    assert smidr.server.requests == []
    assert smidr.registrations.load_all()[0] == []
