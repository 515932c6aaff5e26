"""`smidr runner register --forge github`: an App, or a plain token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from smidr_ci.config.host_files import read_secret
from smidr_ci.errors import ConflictError, UsageError
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.home import Home

__all__ = ["github_options", "register_github", "verify_github"]

_File = click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True)
_ONLY_GITLAB: Final = (
    "token",
    "tags",
    "run_untagged",
    "locked",
    "access_level",
    "maximum_timeout",
    "maintenance_note",
    "api_token_file",
)
_OPTIONS: Final = (
    click.option("--app-id", help="GitHub: number or client id of the App."),
    click.option("--app-key-file", type=_File, metavar="FILE", help="GitHub: the App's key, PEM."),
    click.option(
        "--webhook-secret-file",
        type=_File,
        metavar="FILE",
        help="GitHub: secret of the App's webhooks. Without it GitHub is asked for them.",
    ),
    click.option(
        "--public-url",
        metavar="URL",
        help="GitHub: where readers of its pages reach this agent, for links to big artifacts.",
    ),
)

Command = TypeVar("Command", bound=Callable[..., Any])


def github_options(command: Command) -> Command:
    """Add the options that only GitHub needs."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def register_github(home: Home, options: Mapping[str, Any]) -> tuple[Registration, tuple[str, ...]]:
    """Register as the options say; the registration, and what will not work.

    Raises `UsageError`, `ConfigError`, and `ForgeError` when GitHub does not know App or token.
    """
    from smidr_ci.forges.github.registering import register  # noqa: PLC0415 - slow to import

    checked = register(_wanted(home, options), home)
    return checked.registration, checked.warnings


def verify_github(registration: Registration) -> None:
    """Ask whether App or token still hold; raises `ForgeError`."""
    from smidr_ci.forges.github.registering import verify  # noqa: PLC0415 - slow to import

    verify(registration)


def _wanted(home: Home, options: Mapping[str, Any]) -> Registration:
    from smidr_ci.forges.github.options import GitHubOptions  # noqa: PLC0415 - see above
    from smidr_ci.forges.github.site import Site  # noqa: PLC0415 - the same

    for name in _ONLY_GITLAB:
        if options[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for GitLab")
    if options["app_id"] and options["token_file"]:
        raise UsageError("an App and a token", hint="Give --app-id or --token-file, not both.")
    url = options["url"] or ""
    site = Site.of(url)
    known = {item.name for item in Registrations(home).load_all()[0]}
    name = options["name"] or "-".join(filter(None, ("github", site.owner, site.name))).lower()
    name = name[:48].strip("-.")
    Registrations(home).check_name(name)
    if name in known:
        raise ConflictError(
            f"there is a registration {name} already",
            hint=f"Choose another --name, or forget that one: smidr runner unregister {name}",
        )
    files = ("app_key_file", "webhook_secret_file", "token_file")
    for path in (options[item] for item in files):
        if path is not None:
            read_secret(path)
    settings = {
        "app_id": options["app_id"],
        "app_key_file": options["app_key_file"] and str(options["app_key_file"]),
        "webhook_secret_file": options["webhook_secret_file"]
        and str(options["webhook_secret_file"]),
        "public_url": options["public_url"],
    }
    made = Registration(
        name=name,
        forge="github",
        url=url,
        token="",  # secrets stay in their files
        is_paused=options["paused"],
        limit=options["limit"],
        customer=options["customer"],
        tls_ca_file=options["tls_ca_file"],
        tls_cert_file=options["tls_cert_file"],
        tls_key_file=options["tls_key_file"],
        api_token_file=options["token_file"],
        settings={key: value for key, value in settings.items() if value},
    )
    GitHubOptions.of(made)
    return made
