"""One build from request to record; reads like the list in docs/architecture.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from smidr_ci.builds.accept import request_for
from smidr_ci.builds.admission import admission_of
from smidr_ci.builds.attempts import run_attempts
from smidr_ci.builds.checkpoint import Checkpoint, Trail
from smidr_ci.builds.enlist import enlist
from smidr_ci.builds.extraction import extract
from smidr_ci.builds.gc import ready_caches
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.observer import BuildObserver
from smidr_ci.builds.order import order_of
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.places import Places, places_for
from smidr_ci.builds.preparation import Preparation, furnish, prepare
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.reserve import Reserve
from smidr_ci.builds.retention import retire
from smidr_ci.builds.tenancy import Tenancy, clear_away, leased, take_over
from smidr_ci.builds.uses import note_uses
from smidr_ci.builds.warmth import damage_of
from smidr_ci.builds.work import note_work
from smidr_ci.caches.private import PRIVATE_CACHE
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError, FailureKind, SmidrError
from smidr_ci.files import as_host_error
from smidr_ci.locks import KernelLock
from smidr_ci.workspaces.model import Workspace
from smidr_ci.workspaces.store import WorkspaceStore

__all__ = ["drive", "run_build"]

_INTERNAL: Final = Outcome(
    BuildState.FAILED, FailureKind.INTERNAL.exit_code, FailureKind.INTERNAL, "A fault of smidr's."
)


def run_build(
    host: Host, request: BuildRequest, cancel: CancelToken, observer: BuildObserver
) -> BuildRecord:
    """Run a build to its end and return its final record.

    A build that fails is a record, not an exception; raises `SmidrError` only when there can be no
    record: a target that makes no sense, or a store that can't be written.
    """
    record, claim = enlist(host, request)
    try:
        return drive(host, record, claim, cancel, observer, request)
    finally:
        if host.own_readers is not None:
            host.own_readers.stop()


def drive(
    host: Host,
    record: BuildRecord,
    claim: KernelLock,
    cancel: CancelToken,
    observer: BuildObserver,
    request: BuildRequest | None = None,
) -> BuildRecord:
    """Bring a build to its end from wherever another process left it; returns its final record.

    Without a request the record's order is read again. Raises `SmidrError` only when the store
    can't be written.
    """
    reserve = Reserve(host.home.root)
    journal = Journal(record, host.store, observer, host.clock, reserve)
    trail = Trail(host.home.builds / record.build_id, is_kept=record.is_resumable)
    with claim:
        observer.changed(record)
        try:
            request = request or request_for(host, order_of(record))
            outcome = _stages(host, request, journal, trail, cancel)
        except CancelledError as stop:
            outcome = _stopped(stop)
        except SmidrError as error:
            outcome = Outcome.of(error)
        except OSError as error:
            where = Path(error.filename) if isinstance(error.filename, str) else host.home.root
            outcome = Outcome.of(as_host_error(error, "can't go on", where))
        except BaseException:
            journal.finish(_INTERNAL)
            raise
        finally:
            reserve.give_back()
            clear_away(host, record, journal, trail)
        final = journal.finish(outcome)
        trail.forget()
        return final


def _stages(
    host: Host, request: BuildRequest, journal: Journal, trail: Trail, cancel: CancelToken
) -> Outcome:
    """Preparing, building, extracting artifacts: what each returns is what the next one needs."""
    record = journal.record
    places = trail.last.places if trail.last else _places(host, request)
    workspaces = host.workspace_store(places)
    left = take_over(host, workspaces, journal, trail)
    if trail.last is None:
        prepared = _prepared(host, request, places, journal, cancel)
    elif trail.last.final is not None:
        return trail.last.final
    else:
        prepared = trail.last.preparation(request, record.targets)
    with host.layer_store(places).lease(prepared.layers):
        outcome = _housed(host, prepared, workspaces, trail, journal, cancel, left=left)
    days = request.project.config.cache.retention
    if days is not None and request.is_trusted:
        retire(host, workspaces, journal.record, days, journal.observer.note)
    return outcome


def _places(host: Host, request: BuildRequest) -> Places:
    return places_for(request.project, host.agent, host.home, request.trust)


def _prepared(
    host: Host, request: BuildRequest, places: Places, journal: Journal, cancel: CancelToken
) -> Preparation:
    cancel.raise_if_cancelled()
    journal.enter(BuildState.PREPARING)
    journal.hold_room()
    ready_caches(host)
    admission_of(host.agent, host.home).require(places.written)
    targets, report = journal.record.targets, journal.observer.note
    prepared = prepare(host, request, targets, places, report, cancel)
    commits = {tree.name: tree.commit for tree in prepared.layers.trees}
    journal.note(layer_commits=commits, image=prepared.image.id)
    return prepared


def _housed(
    host: Host,
    prepared: Preparation,
    workspaces: WorkspaceStore,
    trail: Trail,
    journal: Journal,
    cancel: CancelToken,
    *,
    left: Workspace | None,
) -> Outcome:
    """Build in a workspace; in a fresh one after all, when a warm one was damaged."""
    with leased(host, workspaces, prepared, journal, left) as tenancy:
        outcome = _build(host, prepared, tenancy, trail, journal, cancel)
        sign = damage_of(tenancy.workspace, outcome, journal.record.findings)
        if not sign:
            return _settled(host, prepared, tenancy, outcome, trail, journal)
        tenancy.is_kept = tenancy.is_sound = False
        trail.forget()
    cancel.raise_if_cancelled()
    journal.observer.note(f"building again in a fresh workspace, the warm one is damaged: {sign}")
    with leased(host, workspaces, prepared, journal, None, is_anew=True) as tenancy:
        outcome = _build(host, prepared, tenancy, trail, journal, cancel)
        return _settled(host, prepared, tenancy, outcome, trail, journal)


def _settled(
    host: Host,
    prepared: Preparation,
    tenancy: Tenancy,
    outcome: Outcome,
    trail: Trail,
    journal: Journal,
) -> Outcome:
    """Write down what the build came to and what becomes of its workspace, before it does."""
    if (private := tenancy.workspace.extra.get(PRIVATE_CACHE)) is not None:
        host.kept_caches.bring_back(prepared.request.private_cache_key, private)
    tenancy.settle(outcome, journal.record.findings)
    trail.keep(
        final=outcome, is_workspace_kept=tenancy.is_kept, is_workspace_sound=tenancy.is_sound
    )
    return outcome


def _build(
    host: Host,
    prepared: Preparation,
    tenancy: Tenancy,
    trail: Trail,
    journal: Journal,
    cancel: CancelToken,
) -> Outcome:
    """Run BitBake in the workspace and keep the artifacts; says what the build came to."""
    request, workspace = prepared.request, tenancy.workspace
    if trail.last is None:
        control = host.control_of(workspace.build_id)
        spec, plan = furnish(host, prepared, workspace, control)
        trail.begin(Checkpoint(prepared.places, prepared.layers, prepared.image, spec, plan))
    outcome = trail.require().outcome
    if outcome is None:
        outcome = run_attempts(host, prepared, workspace, trail, journal, cancel)
        tmp = workspace.extra.get("tmp", workspace.build / "tmp")
        note_uses(host, workspace.build_id, tmp)
        note_work(host, journal, tmp, prepared.sstate_of(workspace))
        trail.keep(outcome=outcome)
    if outcome.state is BuildState.COMPLETED and not request.fetch_only:
        tenancy.is_kept = True  # until the artifacts are out
        try:
            extract(host, prepared, workspace, journal)
        except SmidrError as error:
            return Outcome.of(error)
    # What filled the disk would also keep every later build from starting.
    is_worth_keeping = outcome.state is BuildState.FAILED and outcome.kind != FailureKind.DISK
    tenancy.is_kept = request.keep_workspace or is_worth_keeping
    return outcome


def _stopped(stop: CancelledError) -> Outcome:
    if stop.kind is FailureKind.CANCELLED:
        return Outcome(BuildState.CANCELLED, stop.kind.exit_code, stop.kind, stop.message)
    return Outcome(BuildState.FAILED, stop.kind.exit_code, stop.kind, stop.message)
