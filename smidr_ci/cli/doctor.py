"""`smidr doctor`: what is wrong with this host, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Final

import click

from smidr_ci.builds.host import Host
from smidr_ci.builds.leftovers import Leftover, find_leftovers
from smidr_ci.builds.reconcile import mark_interrupted_builds
from smidr_ci.cli.options import json_option
from smidr_ci.cli.output import print_columns, print_json
from smidr_ci.config.stores import StoreSettings
from smidr_ci.doctor.model import Check, CheckResult, Status, fine, warned
from smidr_ci.doctor.run import Subject, run_checks
from smidr_ci.engine import Engine
from smidr_ci.errors import FailureKind

__all__ = ["doctor"]

_ENGINE_TIMEOUT_S: Final = 3.0


@click.command()
@click.option(
    "--clean", is_flag=True, help="Remove the containers and workspaces that crashed builds left."
)
@json_option
def doctor(clean: bool, as_json: bool) -> int:
    """Check engine, disk, kernel, namespaces, registry and git; say how to mend what is wrong.

    Ends with 4 when something keeps builds from working.
    """
    host = Host.open()
    mark_interrupted_builds(host.store)
    removed = _clean(find_leftovers(host)) if clean else []
    more = [Check("leftovers", lambda: _check_leftovers(host)), *_store_checks(host)]
    results = run_checks(_subject(host), more)
    if as_json:
        print_json({"checks": [asdict(result) for result in results], "removed": removed})
    else:
        for text in removed:
            click.echo(f"removed: {text}")
        _print(results)
    is_broken = any(result.status is Status.FAIL for result in results)
    return FailureKind.HOST.exit_code if is_broken else 0


def _subject(host: Host) -> Subject:
    chosen = host.agent.directories
    named = {
        name: path
        for name in ("downloads", "sstate", "layers", "workspaces", "artifacts")
        if (path := getattr(chosen, name)) is not None
    }
    return Subject(
        home=host.home,
        engine=Engine(host.agent.engine.url, environ=host.environ, timeout_s=_ENGINE_TIMEOUT_S),
        user=host.user,
        directories=named,
        min_free_bytes=host.agent.limits.min_free_disk,
        default_base=host.image_settings.default_base,
        environ=host.environ,
    )


def _store_checks(host: Host) -> Iterator[Check]:
    """Of the stores that are set up."""
    external, share = host.agent.artifacts.external_store, host.agent.cache.share
    stores = {
        "artifacts.external_store": external,
        "cache.share": share.written if share is not None and share.upload else None,
    }
    for name, settings in stores.items():
        if settings is not None:
            yield Check(name, partial(_check_store, name, settings))


def _check_store(name: str, settings: StoreSettings) -> Sequence[CheckResult]:
    from smidr_ci.doctor.stores import check_store  # noqa: PLC0415 - few hosts have one

    return check_store(name, settings)


def _clean(leftovers: Sequence[Leftover]) -> list[str]:
    for leftover in leftovers:
        leftover.remove()
    return [leftover.text for leftover in leftovers]


def _check_leftovers(host: Host) -> Sequence[CheckResult]:
    found = find_leftovers(host)
    if not found:
        return [fine("leftovers", "nothing is left of crashed builds")]
    remedy = "smidr doctor --clean"
    return [warned("leftovers", leftover.text, remedy) for leftover in found]


def _print(results: Sequence[CheckResult]) -> None:
    print_columns((str(item.status).upper(), item.name, item.detail) for item in results)
    remedies = [item for item in results if item.remedy]
    for item in remedies:
        click.echo(f"\n{item.name}: {item.detail}\n  {item.remedy}")
