"""`smidr runner`: register this host with forges, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smidr_ci.builds.views import plain
from smidr_ci.cli.connection import Connection
from smidr_ci.cli.daemon import start_options
from smidr_ci.cli.github_registering import (
    github_options,
    register_github,
    running_jobs,
    unregister_github,
    verify_github,
)
from smidr_ci.cli.options import json_option
from smidr_ci.cli.output import local_time, print_columns, print_json
from smidr_ci.cli.registering import VARIABLE, wanted_registration
from smidr_ci.errors import ConflictError, SmidrError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.registration import Registration, Registrations, short_token
from smidr_ci.home import Home

if TYPE_CHECKING:  # slow to import
    from smidr_ci.forges.github.registering import Checked

__all__ = ["runner"]

_File = click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True)


@click.group()
def runner() -> None:
    """Work for GitLab or GitHub: register this host, and see to its registrations.

    The agent does the jobs. It notices within seconds what these commands change.
    """


@runner.command()
@click.option(
    "--forge",
    type=click.Choice(["gitlab", "github"]),
    default="gitlab",
    show_default=True,
    help="What it is.",
)
@click.option(
    "--url",
    envvar="CI_SERVER_URL",
    show_envvar=True,
    help="Its address, with a path if it has one.",
)
@click.option(
    "--token",
    help="The token of a runner made in GitLab (glrt-...), or a registration token. Other users "
    f"see it in the list of processes: better use {VARIABLE} or --token-file.",
)
@click.option("--token-file", type=_File, metavar="FILE", help="A file with the token.")
@click.option("--name", help="What to call it here; the default is made from the address.")
@click.option("--limit", type=click.IntRange(0, 1000), default=0, help="Jobs at the same time.")
@click.option(
    "--request-concurrency",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Requests for jobs at the same time, at most.",
)
@click.option(
    "--customer", default="", help="Whose builds the jobs become; the default is one per project."
)
@click.option(
    "--api-token-file",
    type=_File,
    metavar="FILE",
    help="A file with an access token (scope api) for notes on merge requests and commit statuses.",
)
@click.option(
    "--tls-ca-file", type=_File, metavar="FILE", help="Authority of its certificate, PEM."
)
@click.option("--tls-cert-file", type=_File, metavar="FILE", help="Our certificate for it, PEM.")
@click.option("--tls-key-file", type=_File, metavar="FILE", help="The key of that, PEM.")
@click.option("--paused", is_flag=True, help="Take no jobs until `smidr runner resume`.")
@click.option("--non-interactive", is_flag=True, help="Ask for nothing that is missing.")
@click.option("--tags", help="Only with a registration token: tags, parted by commas.")
@click.option(
    "--run-untagged/--no-run-untagged", default=None, help="Same: take jobs without tags."
)
@click.option("--locked/--unlocked", default=None, help="Same: for this project only.")
@click.option(
    "--access-level",
    type=click.Choice(["not_protected", "ref_protected"]),
    help="Same: whether to take only jobs of protected refs.",
)
@click.option("--maximum-timeout", type=click.IntRange(600), metavar="SECONDS", help="Same.")
@click.option("--maintenance-note", help="Same: for administrators to read.")
@github_options
@json_option
def register(**options: Any) -> None:  # noqa: ANN401 - click's, of many types
    """Register this host with a forge.

    Make the runner in GitLab (Settings, CI/CD, Runners), with its tags, and give its token here.
    Without --token and --token-file it is taken from SMIDR_RUNNER_TOKEN, or asked for. For GitHub
    give an organisation or repository as --url, and an App with its key or a --token-file; the
    agent starts official runners for waiting jobs with --scale-set, or with --labels.
    """
    from smidr_ci.forges.gitlab import registering  # noqa: PLC0415 - slow to import

    home = Home.from_environment()
    if options["forge"] == "github":
        _tell_registered(register_github(home, options), as_json=options["as_json"])
        return
    wanted = wanted_registration(home, options)
    names = ("run_untagged", "locked", "access_level", "maximum_timeout", "maintenance_note")
    legacy = {"tag_list": options["tags"], **{name: options[name] for name in names}}
    made = registering.register(wanted, home, legacy)
    if options["as_json"]:
        print_json(_as_dict(made))
        return
    click.echo(f"Registered with {made.url} as {made.name} (runner {made.runner_id or '?'}).")
    click.echo(_next_step())


def _tell_registered(checked: Checked, *, as_json: bool) -> None:
    made, told = checked.registration, checked.runners
    if as_json:
        print_json({**_as_dict(made), "warnings": list(checked.warnings), "runners": told})
        return
    click.echo(f"Registered with {made.url} as {made.name}.")
    if told:
        click.echo(f"Runners: {told}.")
    for warning in checked.warnings:
        click.echo(f"Note: {warning}")
    click.echo(_next_step())


def _next_step() -> str:
    from smidr_ci.api.local_client import find_agent  # noqa: PLC0415 - only here

    found = find_agent(Home.from_environment())
    if found is None:
        return "No agent runs here yet: start it with `smidr runner run`, or by systemd."
    found.close()
    return "The agent begins to take its jobs now."


@runner.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the registrations of this host; their tokens are not shown."""
    found, problems = Registrations(Home.from_environment()).load_all()
    if as_json:
        print_json(
            {"registrations": [_as_dict(item) for item in found], "problems": _told(problems)}
        )
        return
    if not found and not problems:
        click.echo("No registrations yet: smidr runner register")
    elif found:
        header = ("NAME", "FORGE", "URL", "STATE", "TOKEN", "EXPIRES")
        print_columns((_row(item) for item in found), header)
    for problem in problems:
        click.echo(f"Problem: {problem}", err=True)


def _told(problems: Iterable[SmidrError]) -> list[str]:
    return [str(problem) for problem in problems]


def _row(item: Registration) -> Sequence[str]:
    state = "paused" if item.is_paused else "active"
    token = short_token(item.token)
    return item.name, item.forge, item.url, state, token, local_time(item.token_expires)


def _as_dict(item: Registration) -> dict[str, Any]:
    shown = plain(replace(item, token=short_token(item.token)))
    return {("short_token" if key == "token" else key): value for key, value in shown.items()}


@runner.command()
@json_option
def status(as_json: bool) -> None:
    """Show what the agent does for each registration now."""
    with Connection(None, None, None, None, None).open() as agent:
        found = agent.status().registrations
    if as_json:
        print_json({"registrations": [plain(item) for item in found]})
        return
    if not found:
        click.echo("The agent has no registrations.")
    for item in found:
        why = f": {item.detail}" if item.detail else ""
        print_columns(
            [(item.name, f"{item.state}{why}", item.url), *(("", job, "") for job in item.jobs)]
        )


@runner.command()
@click.argument("names", nargs=-1)
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> int:
    """Ask the forges whether they still know the registrations NAMES, or all.

    Ends with exit code 5 when one is not known.
    """
    from smidr_ci.forges.gitlab import registering  # noqa: PLC0415 - slow to import

    home = Home.from_environment()
    registrations = Registrations(home)
    problems: dict[str, SmidrError] = {}
    runners: dict[str, str] = {}
    chosen = [registrations.load(name) for name in names] or registrations.load_all()[0]
    for item in chosen:
        try:
            if item.forge == "github":
                runners[item.name] = verify_github(item)
            else:
                registering.verify(item, home)
        except SmidrError as error:
            problems[item.name] = error
        if not as_json:
            known = "; ".join(filter(None, ("is known", runners.get(item.name, ""))))
            click.echo(f"{item.name}: {problems.get(item.name, known)}")
    if as_json:
        listed = [
            {
                "name": item.name,
                "problem": str(problems.get(item.name, "")),
                "runners": runners.get(item.name, ""),
            }
            for item in chosen
        ]
        print_json({"registrations": listed})
    return ForgeError.kind.exit_code if problems else 0


@runner.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also while jobs of it run; these go on to their end.")
@click.option(
    "--only-here", is_flag=True, help="Don't tell the forge: it is gone, or knows it no more."
)
@json_option
def unregister(name: str, force: bool, only_here: bool, as_json: bool) -> None:
    """Take no more jobs of registration NAME, and forget it.

    Of a runner made in GitLab only this host is removed; one made with a registration token is
    deleted. A scale set at GitHub is deleted, with its runners that have no job.
    """
    from smidr_ci.forges.gitlab import registering  # noqa: PLC0415 - slow to import

    home = Home.from_environment()
    item = Registrations(home).load(name)
    is_gitlab = item.forge == "gitlab"
    with _saying_how_to_forget(name):
        jobs = _running(item, home, only_here=only_here)
    if jobs and not force:
        raise ConflictError(
            f"{jobs} {'job' if jobs == 1 else 'jobs'} of {name} are not over",
            hint=f"Take no more with `smidr runner pause {name}`, and wait; or give --force.",
        )
    if only_here:
        Registrations(home).remove(name)
    else:
        with _saying_how_to_forget(name):
            (registering.unregister if is_gitlab else unregister_github)(item, home)
    if as_json:
        print_json({"name": name, "state": "unregistered"})
    else:
        click.echo(f"Unregistered {name}.")


def _running(item: Registration, home: Home, *, only_here: bool) -> int:
    if item.forge == "gitlab":
        from smidr_ci.forges.gitlab.jobstore import JobFolder  # noqa: PLC0415 - slow to import

        return sum(1 for _ in JobFolder.find_all(home.root / "jobs", item.name))
    return 0 if only_here else running_jobs(item, home)


@contextmanager
def _saying_how_to_forget(name: str) -> Iterator[None]:
    try:
        yield
    except ForgeError as error:
        hint = f"To forget it here all the same: smidr runner unregister --only-here {name}"
        message = f"{error.message}\n  {error.hint}" if error.hint else error.message
        raise ForgeError(message, where=error.where, hint=hint, status=error.status) from error


@runner.command()
@click.argument("name")
@json_option
def pause(name: str, as_json: bool) -> None:
    """Take no more jobs of registration NAME; those that run go on."""
    _set_paused(name, is_paused=True, as_json=as_json)


@runner.command()
@click.argument("name")
@json_option
def resume(name: str, as_json: bool) -> None:
    """Take jobs of registration NAME again."""
    _set_paused(name, is_paused=False, as_json=as_json)


def _set_paused(name: str, *, is_paused: bool, as_json: bool) -> None:
    registrations = Registrations(Home.from_environment())
    registrations.save(replace(registrations.load(name), is_paused=is_paused))
    state = "paused" if is_paused else "active"
    if as_json:
        print_json({"name": name, "state": state})
    else:
        click.echo(f"{name} is {state}.")


@runner.command()
@start_options
def run(
    address: str | None, http_address: str | None, config_path: Path | None, insecure: bool
) -> None:
    """Be the agent, in the foreground: the same as `smidr daemon start`.

    It takes the jobs of all registrations, also of those that are made while it runs.
    """
    from smidr_ci.api.process import run_agent  # noqa: PLC0415 - only this command is the agent

    if not any(Registrations(Home.from_environment()).load_all()):
        click.echo(
            "No registrations yet; it takes those that `smidr runner register` makes.", err=True
        )
    run_agent(
        address=address, http_address=http_address, settings=config_path, is_insecure=insecure
    )
