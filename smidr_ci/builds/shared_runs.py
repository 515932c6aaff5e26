"""One run for builds that would come to the same: how it begins, and what each takes of it.

The run is a build of its own, kept out of lists, that goes the usual way; so a cancel of any of
its builds leaves the others theirs, and a crash is mended as always. When it is over each build
takes over the record, and log and artifacts as files of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from smidr_ci.artifacts.duplicate import duplicate
from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.uses import USES_FILE
from smidr_ci.copying import copy_data
from smidr_ci.errors import FailureKind, SmidrError
from smidr_ci.files import make_marked_dir, open_untrusted, remove_marked_tree
from smidr_ci.locks import KernelLock

__all__ = [
    "begin_run",
    "forget_artifacts",
    "give_back",
    "has_built",
    "is_for_all",
    "is_run",
    "keep_up",
    "take_result",
]

_KNOWN_MEANWHILE: Final = ("state", "stages", "started", "image", "layer_commits")
_RESULT: Final = (
    *("stages", "started", "image", "layer_commits", "sstate", "tasks", "findings", "artifacts"),
    *("rebuilt", "warm_from", "work"),
)
_BITBAKE_FAILED: Final = frozenset(
    {
        FailureKind.BUILD,
        FailureKind.FETCH,
        FailureKind.ARTIFACTS,
        FailureKind.OUT_OF_MEMORY,
        FailureKind.TIMEOUT,
    }
)


def begin_run(
    host: Host, owner: BuildRecord, others: Sequence[str]
) -> tuple[BuildRecord, KernelLock]:
    """Store a run of `owner`'s order for it and the others, all queued; its record and claim.

    Raises `SmidrError`; then nothing has changed.
    """
    run_id, claim = host.store.reserve(owner.customer)
    run = replace(
        owner,
        build_id=run_id,
        created=host.clock.now(),
        requested_by=f"for {owner.build_id} and {len(others)} more"[:250],
        owner_pid=os.getpid(),
        order={**owner.order, "runs_for": owner.build_id},
    )
    try:
        host.store.add_run(run, (owner.build_id, *others))
    except BaseException:
        claim.release()
        raise
    return run, claim


def is_run(record: BuildRecord) -> bool:
    """Whether it is a run for others; of a whole record."""
    return bool(record.order.get("runs_for"))


def has_built(run: BuildRecord) -> bool:
    """Whether it has come as far as BitBake, so that the order's directory is needed no more."""
    return any(stage.name == BuildState.BUILDING for stage in run.stages)


def is_for_all(run: BuildRecord) -> bool:
    """Whether each build would have come to the same, as far as one can tell.

    Trouble of the host is not, and what fails before BitBake runs costs little to try again.
    """
    if run.state is BuildState.COMPLETED:
        return True
    is_failure = run.state is BuildState.FAILED and run.failure_kind in _BITBAKE_FAILED
    return is_failure and has_built(run)


def keep_up(host: Host, journal: Journal, run: BuildRecord) -> bool:
    """Show the build where its run is, with the log, which is the same file.

    False when there is no log yet: look again soon, since nobody tells when there is.
    """
    seen = journal.record
    news = {name: getattr(run, name) for name in _KNOWN_MEANWHILE}
    if not run.state.is_final and news != {name: getattr(seen, name) for name in news}:
        journal.note(**news)
        journal.observer.changed(journal.record)
    if not has_built(run):
        return True
    with contextlib.suppress(OSError):
        _take_log(host, run, journal.record, may_copy=False)
    return (host.control_of(seen.build_id) / CONTROL_FILES["console"]).exists()


def take_result(host: Host, journal: Journal, run: BuildRecord) -> BuildRecord:
    """End the build with what its run came to; may be repeated after a crash.

    Raises `HostError` when what the run left can't be taken over.
    """
    record = journal.record
    with contextlib.suppress(OSError):  # a build without its log is better than none
        _take_log(host, run, record, may_copy=True)
        _take_rest(host, run, record)
    if run.artifacts:
        duplicate(host.artifacts_of(run), host.artifacts_of(record))
    journal.note(**{name: getattr(run, name) for name in _RESULT})
    code = 1 if run.exit_code is None else run.exit_code
    return journal.finish(Outcome(run.state, code, run.failure_kind, run.failure_message))


def give_back(host: Host, journal: Journal) -> None:
    """Let the build wait again, for itself, since its run came to nothing.

    Its log goes first: that is also the others' file, and a container must not write to it.
    """
    record = journal.record
    folder = host.home.builds / record.build_id
    for name in ("control", "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        (folder / USES_FILE).unlink()
    remove_marked_tree(host.artifacts_of(record), host.artifacts_root)
    empty: dict[str, Any] = {
        name: getattr(BuildRecord("", "", "", (), BuildState.QUEUED, record.created), name)
        for name in _RESULT
    }
    journal.note(**empty, state=BuildState.QUEUED, shared_run="")
    journal.observer.changed(journal.record)


def forget_artifacts(host: Host, run: BuildRecord) -> None:
    """Remove the run's own name for what its builds have taken over; raises nothing."""
    with contextlib.suppress(OSError, SmidrError):
        remove_marked_tree(host.artifacts_of(run), host.artifacts_root)


def _take_log(host: Host, run: BuildRecord, record: BuildRecord, *, may_copy: bool) -> None:
    theirs, own = host.control_of(run.build_id), host.control_of(record.build_id)
    make_marked_dir(own.parent)
    own.mkdir(exist_ok=True)
    for name in ("console", "events"):
        _take(theirs / CONTROL_FILES[name], own / CONTROL_FILES[name], may_copy=may_copy)


def _take_rest(host: Host, run: BuildRecord, record: BuildRecord) -> None:
    theirs, own = (host.home.builds / item.build_id for item in (run, record))
    _take(theirs / USES_FILE, own / USES_FILE, may_copy=True)
    names = os.listdir(theirs / "logs") if (theirs / "logs").is_dir() else []
    if names:
        (own / "logs").mkdir(exist_ok=True)
    for name in names:
        _take(theirs / "logs" / name, own / "logs" / name, may_copy=True)


def _take(source: Path, target: Path, *, may_copy: bool) -> None:
    """A hard link to the file as it is now; a missing one takes its link along.

    Raises `OSError`.
    """
    try:
        reader = open_untrusted(source)
    except FileNotFoundError:
        target.unlink(missing_ok=True)
        return
    fresh = target.with_name(f".{target.name}.new")
    with reader:
        wanted = os.fstat(reader.fileno())
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(wanted, os.lstat(target)):
                return
        fresh.unlink(missing_ok=True)
        try:
            os.link(source, fresh, follow_symlinks=False)
            is_linked = os.path.samestat(wanted, os.lstat(fresh))
        except OSError:
            is_linked = False
        if not is_linked and may_copy:
            fresh.unlink(missing_ok=True)
            with open(fresh, "xb", buffering=0) as writer:
                copy_data(reader.fileno(), writer.fileno())
        if is_linked or may_copy:
            fresh.replace(target)
        else:
            fresh.unlink(missing_ok=True)
