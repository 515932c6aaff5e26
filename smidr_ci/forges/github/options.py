"""What a registration with GitHub holds in its `settings`, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from smidr_ci.errors import ConfigError, SmidrError
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.webhooks import Hook
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.home import Home

__all__ = ["GitHubOptions", "hooks_of", "receiver_prefix"]

_APP_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_TEXTS: Final = ("app_id", "token_issuer", "public_url")
_FILES: Final = ("app_key_file", "webhook_secret_file")


@dataclass(frozen=True)
class GitHubOptions:
    """An App with its key, or else a plain token in the registration's `api_token_file`."""

    app_id: str = ""
    """Its number, or its client id; empty without an App."""
    app_key_file: Path | None = None
    webhook_secret_file: Path | None = None
    """Webhooks come to this host; without one they are read from GitHub's list."""
    token_issuer: str = ""
    """Of jobs' identity tokens, where an enterprise has an issuer of its own."""
    public_url: str = ""
    """Of the agent as readers of GitHub's pages reach it."""

    @classmethod
    def of(cls, registration: Registration) -> GitHubOptions:
        """Those of a registration; raises `ConfigError`."""
        found: Mapping[str, Any] = registration.settings
        values: dict[str, Any] = {name: found.get(name) or "" for name in _TEXTS}
        values |= {name: found.get(name) or None for name in _FILES}
        for name, value in values.items():
            if value is not None and not isinstance(value, str):
                raise _bad(registration, f"{name} must be a text")
        for name in _FILES:
            values[name] = Path(values[name]) if values[name] else None
        made = cls(**values)
        if bool(made.app_id) != bool(made.app_key_file):
            raise _bad(registration, "an App needs both app_id and app_key_file")
        if made.app_id and not _APP_ID.fullmatch(made.app_id):
            raise _bad(registration, "app_id is no App's number or client id")
        if not made.app_id and registration.api_token_file is None:
            raise _bad(registration, "there is neither an App nor a token")
        for name, url in (("token_issuer", made.token_issuer), ("public_url", made.public_url)):
            if url and not _is_url(url):
                raise _bad(registration, f"{name} must be an https URL")
        return made


def receiver_prefix(name: str) -> str:
    """How the receivers' names of a registration begin."""
    return f"github:{name}:"


def hooks_of(home: Home) -> Callable[[], tuple[Hook, ...]]:
    """The registrations that take webhooks, as their files are at the time of each call."""
    registrations = Registrations(home)
    folder = home.root / "registrations"
    known: dict[int, tuple[Hook, ...]] = {}

    def hooks() -> tuple[Hook, ...]:
        try:
            stamp = folder.stat().st_mtime_ns  # each write of a registration replaces a file
        except OSError:
            return ()
        if stamp not in known:
            found = _hooks(registrations)
            known.clear()
            known[stamp] = found
        return known.get(stamp, ())

    return hooks


def _hooks(registrations: Registrations) -> tuple[Hook, ...]:
    made = []
    for registration in registrations.load_all()[0]:
        if registration.forge != "github":
            continue
        try:
            secret_file = GitHubOptions.of(registration).webhook_secret_file
            site = Site.of(registration.url)
        except SmidrError:
            continue  # the agent tells of it where it uses the registration
        if secret_file is not None:
            made.append(Hook(receiver_prefix(registration.name), site, secret_file))
    return tuple(made)


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_local = parts.hostname in {"127.0.0.1", "localhost"}
    is_clean = url.isprintable() and " " not in url and not parts.query and not parts.fragment
    return is_clean and bool(parts.hostname) and (parts.scheme == "https" or is_local)


def _bad(registration: Registration, message: str) -> ConfigError:
    return ConfigError(
        message,
        where=f"registration {registration.name}",
        hint="Register again with 'smidr runner register --forge github'.",
    )
