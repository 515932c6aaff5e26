"""Registers this host with GitHub, once the App or token has shown that it is good for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.auth import APP, AppCredentials, Credentials, Scope, TokenCredentials
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.options import GitHubOptions
from smidr_ci.forges.github.rates import Pause
from smidr_ci.forges.github.runners.options import Mode, RunnerOptions
from smidr_ci.forges.github.runners.registering import RunnerDesk, needed_permission
from smidr_ci.forges.github.sender import OnCall, Sender
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Transport
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.home import Home

__all__ = [
    "APP_PERMISSIONS",
    "Checked",
    "app_manifest",
    "busy_runners",
    "client_for",
    "register",
    "unregister",
    "verify",
]

APP_PERMISSIONS: Final[Mapping[str, str]] = {
    "actions": "write",
    "checks": "write",
    "contents": "read",
    "metadata": "read",
    "pull_requests": "read",
}
"""What an App needs for checks, webhooks and trust; runners need more, by their level."""
_EVENTS: Final = ("check_run", "check_suite", "merge_group", "workflow_job")
_LEVELS: Final = {"": 0, "read": 1, "write": 2, "admin": 3}


@dataclass(frozen=True)
class Checked:
    """A registration that GitHub knows."""

    registration: Registration
    warnings: tuple[str, ...] = ()
    """What will not work, and why."""
    runners: str = ""
    """What GitHub has for its runners on demand, in a sentence; empty without them."""


def client_for(
    registration: Registration,
    *,
    clock: Clock | None = None,
    pause: Pause | None = None,
    transport: Transport | None = None,
    on_call: OnCall | None = None,
) -> GitHubClient:
    """A client that speaks as this registration; raises `ConfigError` and `UsageError`."""
    options, site = GitHubOptions.of(registration), Site.of(registration.url)
    tls = TlsFiles(registration.tls_ca_file, registration.tls_cert_file, registration.tls_key_file)
    sender = Sender(
        site.api, transport or Transport(tls, clock), clock=clock, pause=pause, on_call=on_call
    )
    credentials: Credentials
    if options.app_key_file is not None:
        credentials = AppCredentials(options.app_id, options.app_key_file, sender)
    else:
        assert registration.api_token_file is not None  # noqa: S101 - checked by the options
        credentials = TokenCredentials(registration.api_token_file)
    return GitHubClient(sender, credentials)


def register(
    registration: Registration,
    home: Home,
    *,
    clock: Clock | None = None,
    pause: Pause | None = None,
) -> Checked:
    """Check it with GitHub and store it; raises `ForgeError`, and then nothing is stored.

    Secrets stay in their files: a registration holds the paths only. A scale set is made.
    """
    now = (clock or SystemClock()).now()
    item = replace(registration, token="", token_obtained=now)
    with _client(item, clock, pause) as client:
        warnings = _warnings(client, item)
        told = RunnerDesk(item, client, clock=clock, pause=pause).check(makes=True)
    Registrations(home).save(item)
    return Checked(item, warnings, told)


def verify(
    registration: Registration, *, clock: Clock | None = None, pause: Pause | None = None
) -> Checked:
    """Ask GitHub whether the App or token is good for the address; raises `ForgeError`."""
    with _client(registration, clock, pause) as client:
        warnings = _warnings(client, registration)
        desk = RunnerDesk(registration, client, clock=clock, pause=pause)
        return Checked(registration, warnings, desk.check(makes=False))


def busy_runners(registration: Registration, home: Home) -> int:
    """Runners on demand that have a job now; raises `ForgeError`."""
    if RunnerOptions.of(registration).mode is Mode.ATTACH:
        return 0
    with _client(registration) as client:
        return RunnerDesk(registration, client).busy(home)


def unregister(registration: Registration, home: Home) -> None:
    """Delete what GitHub has for its runners, then forget it; raises `ForgeError`.

    An agent that works for it notices soon, and lets go of the rest.
    """
    if RunnerOptions.of(registration).mode is not Mode.ATTACH:
        with _client(registration) as client:
            RunnerDesk(registration, client).forget(home)
    Registrations(home).remove(registration.name)


@contextmanager
def _client(
    registration: Registration, clock: Clock | None = None, pause: Pause | None = None
) -> Iterator[GitHubClient]:
    item = registration
    tls = TlsFiles(item.tls_ca_file, item.tls_cert_file, item.tls_key_file)
    with Transport(tls, clock) as transport:
        yield client_for(item, clock=clock, pause=pause, transport=transport)


def _warnings(client: GitHubClient, registration: Registration) -> tuple[str, ...]:
    site, mode = Site.of(registration.url), RunnerOptions.of(registration).mode
    if client.credentials.is_app:
        needed = {**APP_PERMISSIONS, **needed_permission(site, mode)}
        return tuple(_app_warnings(client, site, needed))
    if site.repository:
        path = f"/repos/{site.repository}"
        client.get(path, Scope(), action=f"see {site.repository}")
    else:
        client.get("/rate_limit", Scope(), action="use the token")
    return ("without an App there are commit statuses, and neither checks nor webhooks",)


def _app_warnings(client: GitHubClient, site: Site, needed: Mapping[str, str]) -> list[str]:
    client.get("/app", APP, action="use the App's key")
    path = f"/repos/{site.repository}/installation"
    if not site.repository:
        path = f"/orgs/{site.owner}/installation"
    found = client.get(path, APP, action=f"find the App at {site.repository or site.owner}")
    installation = found.object()
    if installation.get("suspended_at"):
        raise ForgeError(
            "the App's installation is suspended",
            where=site.web,
            hint="Unsuspend it in the settings of the organisation, under GitHub Apps.",
        )
    given: Mapping[str, Any] = installation.get("permissions") or {}
    return [
        f"the App lacks the permission {name}: {level}"
        for name, level in needed.items()
        if _LEVELS.get(str(given.get(name, "")), 0) < _LEVELS[level]
    ]


def app_manifest(name: str, *, webhook_url: str = "", for_runners: str = "") -> dict[str, Any]:
    """What GitHub takes to make the App (docs.github.com, "Registering an App from a manifest").

    `for_runners` is `organization` or `repository` when it shall make runners too.
    """
    permissions = dict(APP_PERMISSIONS)
    if for_runners == "organization":
        permissions["organization_self_hosted_runners"] = "write"
    elif for_runners == "repository":
        permissions["administration"] = "write"
    return {
        "name": name,
        "url": "https://github.com/smidr/build",
        "public": False,
        "default_permissions": permissions,
        "default_events": list(_EVENTS),
        "hook_attributes": {
            "url": webhook_url or "https://example.com/smidr-polls-and-needs-no-webhook",
            "active": True,
        },
    }
