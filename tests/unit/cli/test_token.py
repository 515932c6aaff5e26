"""`smidr token`: made, shown once, listed, revoked."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smidr_ci.api.secret import PATTERN
from smidr_ci.api.tokens import TokenInfo, TokenStore
from smidr_ci.builds.database import Database
from smidr_ci.cli.options import CliState
from smidr_ci.cli.token import token
from smidr_ci.errors import ConflictError, NotFoundError, UsageError


class Shell:
    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str) -> Result:
        runner = CliRunner(env={"SMIDR_HOME": str(self.home), "COLUMNS": "200"})
        return runner.invoke(token, list(arguments), obj=CliState())

    def ok(self, *arguments: str) -> Result:
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return result

    def fails(self, *arguments: str) -> BaseException | None:
        result = self(*arguments)
        assert result.exit_code != 0
        return result.exception

    def check(self, secret: str) -> TokenInfo | None:
        with closing(Database(self.home / "smidr.db")) as database:
            return TokenStore(database).check(secret)


@pytest.fixture
def smidr(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


def test_the_secret_alone_is_on_standard_output(smidr: Shell) -> None:
    result = smidr.ok("create", "ci-main", "--scope", "build")
    secret = result.stdout.strip()
    assert re.fullmatch(PATTERN, secret)
    assert secret not in result.stderr
    assert "ci-main" in result.stderr
    assert "until it is revoked" in result.stderr
    info = smidr.check(secret)
    assert info is not None
    assert info.scope == "build"


def test_json_has_the_secret_and_all_about_the_token(smidr: Shell) -> None:
    result = smidr.ok("create", "ci", "--scope", "read", "--expires", "12h", "--json")
    document = json.loads(result.stdout)
    assert result.stderr == ""
    assert smidr.check(document["token"]) is not None
    assert document["scope"] == "read"
    assert document["expires"] > document["created"]


def test_a_list_never_has_the_secret(smidr: Shell) -> None:
    assert smidr.ok("list").stdout == "No tokens yet.\n"
    secret = smidr.ok("create", "ci", "--scope", "admin", "--expires", "30d").stdout.strip()
    for arguments in (["list"], ["list", "--json"]):
        output = smidr.ok(*arguments).output
        assert "ci" in output
        assert secret not in output
        assert secret.rsplit("_", 1)[1] not in output
    assert json.loads(smidr.ok("list", "--json").stdout)["tokens"][0]["state"] == "good"


def test_a_revoked_token_is_good_for_nothing(smidr: Shell) -> None:
    secret = smidr.ok("create", "ci", "--scope", "build").stdout.strip()
    assert "Revoked ci" in smidr.ok("revoke", "ci").stdout
    assert smidr.check(secret) is None
    assert "revoked" in smidr.ok("list").stdout
    assert isinstance(smidr.fails("revoke", "ci"), NotFoundError)
    smidr.ok("create", "ci", "--scope", "build")  # the name is free again


def test_a_token_is_revoked_by_its_id_as_well(smidr: Shell) -> None:
    made = json.loads(smidr.ok("create", "ci", "--scope", "read", "--json").stdout)
    smidr.ok("revoke", made["token_id"], "--json")
    assert smidr.check(made["token"]) is None


@pytest.mark.parametrize("name", ["", " ", "-x", "a b", "a/b", "x" * 65, "a\nb", "ü"])
def test_a_bad_name_is_refused(smidr: Shell, name: str) -> None:
    assert isinstance(smidr.fails("create", "--scope", "read", "--", name), UsageError)


@pytest.mark.parametrize("time", ["30", "d", "0d", "-1d", "1.5d", "30 d", "999999d", "1y"])
def test_a_bad_time_is_refused_with_an_example(smidr: Shell, time: str) -> None:
    error = smidr.fails("create", "ci", "--scope", "read", f"--expires={time}")
    assert isinstance(error, UsageError)
    assert "30d" in error.hint


def test_a_name_in_use_is_refused(smidr: Shell) -> None:
    smidr.ok("create", "ci", "--scope", "read")
    assert isinstance(smidr.fails("create", "ci", "--scope", "admin"), ConflictError)


def test_a_scope_must_be_chosen(smidr: Shell) -> None:
    assert smidr("create", "ci").exit_code == 2
    assert smidr("create", "ci", "--scope", "root").exit_code == 2
