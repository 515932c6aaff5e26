"""Registers this host with a GitLab instance, asks whether that still holds, and undoes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import UsageError
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.rotation import with_credentials
from smidr_ci.forges.gitlab.runner import tls_files
from smidr_ci.forges.gitlab.transport import OnCall, Pause, Transport
from smidr_ci.forges.registration import Registration, Registrations, system_id
from smidr_ci.home import Home

__all__ = ["client_for", "is_runner_token", "register", "unregister", "verify"]

_RUNNER_TOKENS: Final = ("glrt-", "glrtr-")


def is_runner_token(token: str) -> bool:
    """Whether GitLab made the runner already; its tags and limits are settled there then."""
    return token.startswith(_RUNNER_TOKENS)


def client_for(
    registration: Registration,
    home: Home,
    *,
    on_call: OnCall | None = None,
    pause: Pause | None = None,
) -> RunnerClient:
    """A client that speaks as this registration."""
    transport = Transport(
        registration.url, tls=tls_files(registration, home), on_call=on_call, pause=pause
    )
    return RunnerClient(transport, token=registration.token, system_id=system_id(home))


def register(
    registration: Registration,
    home: Home,
    options: Mapping[str, Any] | None = None,
    *,
    clock: Clock | None = None,
    pause: Pause | None = None,
) -> Registration:
    """Register with the token that the registration holds, and store what comes of it.

    A runner's token (`glrt-`) is only verified; anything else is a legacy registration token,
    for which `options` are those of `RunnerClient.register`. Raises `ForgeError`, and `UsageError`
    for options that GitLab takes from nobody but its own pages.
    """
    options = {key: value for key, value in (options or {}).items() if value not in (None, "")}
    client = client_for(registration, home, pause=pause)
    if not is_runner_token(registration.token):
        answer = client.register({"description": registration.name, **options})
    elif options:
        raise UsageError(
            f"{', '.join(sorted(options))} can't be set with a token that begins with glrt-",
            hint="Set them in GitLab, on the page of the runner.",
        )
    else:
        answer = client.verify()
    now = (clock or SystemClock()).now()
    made = with_credentials(registration, answer, now)
    Registrations(home).save(made)
    return made


def verify(registration: Registration, home: Home, *, pause: Pause | None = None) -> Registration:
    """Ask whether the token still holds, and store its expiry; raises `ForgeError` if not."""
    answer = client_for(registration, home, pause=pause).verify()
    now = registration.token_obtained or SystemClock().now()
    found = with_credentials(registration, answer, now)
    checked = replace(found, token=registration.token)
    if checked != registration:
        Registrations(home).save(checked)
    return checked


def unregister(registration: Registration, home: Home, *, pause: Pause | None = None) -> None:
    """Tell GitLab, then forget it here; raises `ForgeError`, and keeps it then.

    Of a runner made in GitLab only this machine is removed, one made with a legacy registration
    token is deleted.
    """
    client = client_for(registration, home, pause=pause)
    if registration.token.startswith("glrt-"):
        client.unregister_machine()
    else:
        client.unregister()
    Registrations(home).remove(registration.name)
