"""`smidr token`: who may use the agent's API from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any, Final

import click

from smidr_ci.api.callers import Scope
from smidr_ci.api.tokens import TokenInfo, TokenStore
from smidr_ci.builds.database import Database
from smidr_ci.cli.options import json_option
from smidr_ci.cli.output import local_time, print_columns, print_json
from smidr_ci.clock import SystemClock
from smidr_ci.errors import UsageError
from smidr_ci.home import Home

__all__ = ["token"]

_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@click.group()
def token() -> None:
    """Make, list and revoke the tokens for using the agent from elsewhere."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice([str(scope) for scope in Scope]),
    required=True,
    help="What it is good for: read sees all builds, build also starts and cancels them, admin "
    "also deletes builds and stops the agent.",
)
@click.option(
    "--expires", metavar="TIME", help="Good for so long: 12h, 30d, 8w. Default: for ever."
)
@json_option
def create(name: str, scope: str, expires: str | None, as_json: bool) -> None:
    """Make a token called NAME, and print it: this once, and on standard output alone."""
    until = SystemClock().now() + _duration(expires) if expires else None
    with _store() as store:
        info, secret = store.create(name, Scope(scope), until)
    if as_json:
        print_json({"token": secret, **_as_dict(info)})
        return
    life = f"until {local_time(info.expires)}" if info.expires else "until it is revoked"
    click.echo(
        f"Token {info.name} ({info.token_id}) may {info.scope} {life}.\n"
        "It is shown this once; clients take it from SMIDR_TOKEN or --token-file:",
        err=True,
    )
    click.echo(secret)


@token.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List all tokens; their secrets are not known any more."""
    with _store() as store:
        known = store.list()
    if as_json:
        print_json({"tokens": [_as_dict(info) for info in known]})
    elif not known:
        click.echo("No tokens yet.")
    else:
        header = ("NAME", "ID", "SCOPE", "STATE", "MADE", "EXPIRES", "LAST USED")
        print_columns((_row(info) for info in known), header)


@token.command()
@click.argument("token_name", metavar="NAME")
@json_option
def revoke(token_name: str, as_json: bool) -> None:
    """Let a token open nothing any more; NAME may be its id."""
    with _store() as store:
        info = store.revoke(token_name)
    if as_json:
        print_json(_as_dict(info))
    else:
        click.echo(f"Revoked {info.name} ({info.token_id}).")


@contextmanager
def _store() -> Iterator[TokenStore]:
    with closing(Database(Home.from_environment().database)) as database:
        yield TokenStore(database)


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"{text[:40]!r} is no time", hint="Write 12h, 30d or 8w.")
    return int(found[1]) * _UNITS[found[2]]


def _state(info: TokenInfo) -> str:
    return info.why_unusable(SystemClock().now()) or "good"


def _as_dict(info: TokenInfo) -> dict[str, Any]:
    times = {key: getattr(info, key) for key in ("created", "expires", "revoked", "last_used")}
    return {
        "token_id": info.token_id,
        "name": info.name,
        "scope": str(info.scope),
        "state": _state(info),
        **{key: moment.isoformat() if moment else None for key, moment in times.items()},
    }


def _row(info: TokenInfo) -> tuple[str, ...]:
    return (
        info.name,
        info.token_id,
        str(info.scope),
        _state(info),
        local_time(info.created),
        local_time(info.expires),
        local_time(info.last_used),
    )
