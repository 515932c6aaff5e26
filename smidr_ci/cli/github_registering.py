"""`smidr runner register --forge github`: an App, or a plain token."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from smidr_ci.config.host_files import read_secret
from smidr_ci.errors import ConflictError, UsageError
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.home import Home

if TYPE_CHECKING:  # slow to import
    from smidr_ci.forges.github.registering import Checked
    from smidr_ci.forges.github.site import Site

__all__ = [
    "github_options",
    "register_github",
    "running_jobs",
    "unregister_github",
    "verify_github",
]

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
    click.option(
        "--mode",
        type=click.Choice(["scale-set", "jit", "attach"]),
        help="GitHub: who brings runners. The agent, as many as a scale-set wants; or by jit "
        "configs, as many as jobs wait with its labels; or attach: you. The default is what "
        "--scale-set or --labels ask for, else attach.",
    ),
    click.option(
        "--labels", help="GitHub: labels of the agent's runners, parted by commas. jit: smidr."
    ),
    click.option(
        "--scale-set",
        metavar="NAME",
        help="GitHub: what jobs name in runs-on; one scale set per host. Default: smidr-<host>.",
    ),
    click.option(
        "--runner-group",
        metavar="NAME",
        help="GitHub: an organisation's runner group for the agent's runners.",
    ),
)

Command = TypeVar("Command", bound=Callable[..., Any])


def github_options(command: Command) -> Command:
    """Add the options that only GitHub needs."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def register_github(home: Home, options: Mapping[str, Any]) -> Checked:
    """Register as the options say.

    Raises `UsageError`, `ConfigError`, and `ForgeError` when GitHub does not know App or token.
    """
    from smidr_ci.forges.github.registering import register  # noqa: PLC0415 - slow to import

    return register(_wanted(home, options), home)


def verify_github(registration: Registration) -> str:
    """Ask whether App or token still hold; what GitHub has for runners. Raises `ForgeError`."""
    from smidr_ci.forges.github.registering import verify  # noqa: PLC0415 - slow to import

    return verify(registration).runners


def running_jobs(registration: Registration, home: Home) -> int:
    """Jobs of the agent's own runners; raises `ForgeError`."""
    from smidr_ci.forges.github.registering import busy_runners  # noqa: PLC0415 - see above

    return busy_runners(registration, home)


def unregister_github(registration: Registration, home: Home) -> None:
    """Delete what GitHub has for it, and forget it; raises `ForgeError`."""
    from smidr_ci.forges.github.registering import unregister  # noqa: PLC0415 - see above

    unregister(registration, home)


def _wanted(home: Home, options: Mapping[str, Any]) -> Registration:
    from smidr_ci.forges.github.options import GitHubOptions  # noqa: PLC0415 - see above
    from smidr_ci.forges.github.runners.options import RunnerOptions  # noqa: PLC0415 - the same
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
        **_of_runners(site, options),
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
    RunnerOptions.of(made)
    return made


def _of_runners(site: Site, options: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the settings about runners; raises `UsageError` for what makes no sense."""
    scale_set, labels, group = options["scale_set"], options["labels"], options["runner_group"]
    mode = options["mode"] or ("scale-set" if scale_set else "jit" if labels else "attach")
    if mode == "attach":
        for name in ("scale_set", "labels", "runner_group"):
            if options[name]:
                raise UsageError(
                    f"--{name.replace('_', '-')} is for runners that the agent starts",
                    hint="Give --mode scale-set or --mode jit.",
                )
        return {}
    if mode == "jit" and scale_set:
        raise UsageError("--scale-set and --mode jit", hint="Give one of them.")
    if group and site.repository:
        raise UsageError(
            "a repository has no runner groups", hint="Register the organisation, or leave it out."
        )
    named = [label.strip() for label in (labels or "").split(",") if label.strip()]
    if mode == "jit":
        return {"mode": mode, "labels": named or ["smidr"], "runner_group": group}
    return {
        "mode": mode,
        "labels": named,
        "scale_set": scale_set or _scale_set_of_host(),
        "runner_group": group,
    }


def _scale_set_of_host() -> str:
    name = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")
    return f"smidr-{name or 'host'}"[:63].strip("-")
