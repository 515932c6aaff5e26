"""`smidr cache push`, and what `smidr cache stats` says of uploads."""

from __future__ import annotations

from dataclasses import asdict

import click

from smidr_ci.builds.host import Host
from smidr_ci.builds.uploads import ShareFacts, upload
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.options import json_option
from smidr_ci.cli.output import human_size, local_time, print_columns, print_json
from smidr_ci.cli.signals import cancel_on_signals
from smidr_ci.text import printable

__all__ = ["print_share", "push", "share_as_dict"]

_SHOWN_DAMAGE = 5


@click.command()
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Ask the store for all that the caches hold, not only for what is new: when it lost some.",
)
@json_option
def push(everything: bool, as_json: bool) -> None:
    """Upload what is new in sstate and downloads to the shared cache, now.

    An agent does that by itself after builds. For hosts without one, and after the store was away.
    """
    host = Host.open()
    cancel = CancelToken()
    with cancel_on_signals(cancel, lambda _: None):
        done = upload(host, cancel, _note, everything=everything)
    if as_json:
        print_json(asdict(done))
        return
    click.echo(
        f"{done.uploaded} uploaded ({human_size(done.uploaded_bytes)}), {done.present} were there, "
        f"{done.damaged} damaged, {done.unproven} without proof"
    )


def share_as_dict(found: ShareFacts | None) -> dict[str, object] | None:
    """For `--json`."""
    if found is None:
        return None
    ended = found.last_round
    return {**asdict(found), "last_round": ended.isoformat() if ended else None}


def print_share(found: ShareFacts) -> None:
    """A block of lines."""
    size = human_size(found.uploaded_bytes)
    sent = f"{found.uploaded} ({size}), {found.waiting} waiting"
    last = local_time(found.last_round) if found.last_round else "never"
    rows = [("Shared", found.url)]
    if found.is_uploading:
        rows += [("Uploaded", sent), ("Last complete", last)]
    else:
        rows.append(("Uploaded", "nothing, this host only reads"))
    if found.last_error:
        rows.append(("Last error", printable(found.last_error)))
    rows += [("Damaged", printable(item)) for item in found.damaged[:_SHOWN_DAMAGE]]
    if len(found.damaged) > _SHOWN_DAMAGE:
        rows.append(("Damaged", f"and {len(found.damaged) - _SHOWN_DAMAGE} more"))
    print_columns(rows)


def _note(line: str) -> None:
    click.echo(printable(line), err=True)
