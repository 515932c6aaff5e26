"""From the options of `smidr runner register` to a registration that the forge has not seen yet."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from smidr_ci.config.host_files import read_secret
from smidr_ci.errors import ConflictError, UsageError
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.home import Home

__all__ = ["VARIABLE", "wanted_registration"]

VARIABLE: Final = "SMIDR_RUNNER_TOKEN"
"""Holds the runner's token, which as an option others could see."""


def wanted_registration(home: Home, options: Mapping[str, Any]) -> Registration:
    """What the options of `smidr runner register` ask for; raises `UsageError`, `ConfigError`.

    On a terminal it asks for what is missing, unless told not to.
    """
    asks = not options["non_interactive"] and sys.stdin.isatty()
    url = options["url"] or (click.prompt("Address of GitLab", err=True) if asks else "")
    if not url:
        raise UsageError("which GitLab?", hint="Give --url https://gitlab.example.com.")
    for name in ("tls_cert_file", "tls_key_file"):
        if (options["tls_cert_file"] is None) != (options["tls_key_file"] is None):
            raise UsageError("a certificate and its key go together", where=f"--{name}")
    if options["api_token_file"] is not None:
        read_secret(options["api_token_file"])
    known, _ = Registrations(home).load_all()
    token = _token(options, asks=asks)
    for other in known:
        if other.token == token and other.url.rstrip("/") == url.rstrip("/"):
            raise ConflictError(f"this token is registered already, as {other.name}")
    name = options["name"] or _free_name(url, {item.name for item in known})
    Registrations(home).check_name(name)
    if any(other.name == name for other in known):
        raise ConflictError(
            f"there is a registration {name} already",
            hint=f"Choose another --name, or forget that one: smidr runner unregister {name}",
        )
    concurrency = options["request_concurrency"]
    return Registration(
        name=name,
        forge=options["forge"],
        url=url,
        token=token,
        is_paused=options["paused"],
        limit=options["limit"],
        customer=_customer(options["customer"]),
        tls_ca_file=options["tls_ca_file"],
        tls_cert_file=options["tls_cert_file"],
        tls_key_file=options["tls_key_file"],
        api_token_file=options["api_token_file"],
        settings={"request_concurrency": concurrency} if concurrency > 1 else {},
    )


def _customer(name: str) -> str:
    from smidr_ci.builds.ids import check_customer  # noqa: PLC0415 - only where one is named

    return check_customer(name) if name else ""


def _token(options: Mapping[str, Any], *, asks: bool) -> str:
    if options["token"] and options["token_file"]:
        raise UsageError("two tokens", hint="Give --token or --token-file, not both.")
    token = options["token"] or ""
    if options["token_file"] is not None:
        token = read_secret(options["token_file"])
    token = token or os.environ.get(VARIABLE, "")
    if not token and asks:
        token = click.prompt("Token of the runner", hide_input=True, err=True)
    token = token.strip()
    if not token or any(sign.isspace() or not sign.isprintable() for sign in token):
        raise UsageError(
            "the token can't be used" if token else "without a token GitLab refuses",
            hint=f"Set {VARIABLE}, or give --token-file FILE.",
        )
    return token


def _free_name(url: str, taken: set[str]) -> str:
    """Such as `gitlab.example.com`, or with the path, or with a number behind."""
    text = re.sub(r"^[a-z]+://(?:[^/@]*@)?", "", url.lower())
    base = re.sub(r"[^a-z0-9.]+", "-", text)[:40].strip("-.") or socket.gethostname().lower()[:40]
    names = (base if number == 1 else f"{base}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
