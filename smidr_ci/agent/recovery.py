"""After a restart: which builds to go on with, and what is left of those that can't go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from smidr_ci.builds.host import Host
from smidr_ci.builds.leftovers import find_leftovers
from smidr_ci.builds.model import BuildRecord
from smidr_ci.errors import SmidrError, UsageError
from smidr_ci.locks import KernelLock

__all__ = ["recover", "remove_leftovers"]

_log = logging.getLogger(__name__)


def recover(host: Host) -> Iterator[tuple[BuildRecord, KernelLock]]:
    """Builds of an agent that died, oldest first, each with the claim on it.

    A foreground command's build that nobody drives any more is marked as interrupted.
    """
    for orphan in host.store.find_orphans():
        try:
            if not orphan.is_resumable:
                host.store.mark_interrupted(orphan.build_id)
                continue
            claim = host.store.claim(orphan.build_id)
        except UsageError:
            continue  # another process has just taken it
        try:
            record = host.store.get(orphan.build_id, include_deleted=True)
        except BaseException:
            claim.release()
            raise
        yield record, claim


def remove_leftovers(host: Host) -> None:
    """Take away containers and workspaces that no build uses any more; trouble is only logged."""
    try:
        found = find_leftovers(host)
    except (SmidrError, OSError) as error:
        _log.warning("can't look for what a crash left: %s", error)
        return
    for item in found:
        _log.info("removing what a crash left: %s", item.text)
        try:
            item.remove()
        except (SmidrError, OSError) as error:  # the others can go all the same
            _log.warning("can't remove what a crash left: %s: %s", item.text, error)
