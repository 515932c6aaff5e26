"""Writes down what a build's tasks took and what shared state spared, when BitBake has ended."""

from __future__ import annotations

import logging
from pathlib import Path

from smidr_ci.bitbake.events import EventReader
from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.effort import restored_bytes, tally
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.recipes import RecipeStore, work_of
from smidr_ci.errors import HostError
from smidr_ci.trust import Trust

__all__ = ["note_work"]

_log = logging.getLogger(__name__)


def note_work(host: Host, journal: Journal, tmp: Path, sstate: Path) -> None:
    """Put `work` into the record, and let this host learn from a trusted build what recipes take.

    Never fails a build. `tmp` is its TMPDIR, `sstate` its SSTATE_DIR.
    """
    record = journal.record
    events = EventReader(host.control_of(record.build_id) / CONTROL_FILES["events"])
    work = tally(events.drain())
    if not work:
        return
    recipes = RecipeStore(host.store.database)
    try:
        known = recipes.find(list(work))
        size = restored_bytes(work, tmp, sstate)
        # First: when it is done again after a crash, what was learned here is known already, and
        # that makes no difference to what did not run.
        journal.note(work=work_of(work, known, size))
        if record.trust is Trust.TRUSTED:
            recipes.learn(record.build_id, work, host.clock.now())
    except HostError as error:
        _log.warning("it was not noted what build %s took: %s", record.build_id, error)
