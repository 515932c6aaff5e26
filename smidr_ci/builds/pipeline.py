"""One build from request to record; reads like the list in docs/architecture.md."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from smidr_ci.artifacts.collect import collect
from smidr_ci.builds.attempts import run_attempts
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.builds.mounts import BUILD, DEPLOY
from smidr_ci.builds.observer import BuildObserver
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.places import Places, places_for
from smidr_ci.builds.preparation import Preparation, prepare
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.reserve import Reserve
from smidr_ci.builds.retention import forget_workspaces, retire
from smidr_ci.caches.layout import free_space
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import (
    BuildFailedError,
    CancelledError,
    FailureKind,
    HostError,
    SmidrError,
)
from smidr_ci.files import as_host_error
from smidr_ci.workspaces.model import Budget, Workspace

__all__ = ["run_build"]

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
    targets = request.project.config.require_targets(request.targets)
    build_id, claim = host.store.reserve(request.customer)
    with claim, Reserve(host.home.root) as reserve:
        record = _new_record(host, request, build_id, targets)
        host.store.add(record)
        journal = Journal(record, host.store, observer, host.clock, reserve)
        observer.changed(record)
        try:
            outcome = _stages(host, request, journal, cancel)
        except CancelledError as stop:
            outcome = _stopped(stop)
        except SmidrError as error:
            outcome = Outcome(BuildState.FAILED, error.kind.exit_code, error.kind, str(error))
        except OSError as error:
            failure = as_host_error(error, "can't go on", host.home.root)
            outcome = Outcome(BuildState.FAILED, 4, failure.kind, str(failure))
        except BaseException:
            journal.finish(_INTERNAL)
            raise
        return journal.finish(outcome)


def _new_record(
    host: Host, request: BuildRequest, build_id: str, targets: tuple[str, ...]
) -> BuildRecord:
    return BuildRecord(
        build_id=build_id,
        customer=request.customer,
        project=request.project.config.name,
        targets=targets,
        state=BuildState.QUEUED,
        created=host.clock.now(),
        config_text=request.project.text,
        config_path=str(request.project.path.absolute()),
        description=request.project.config.description,
        requested_by=request.requested_by,
        owner_pid=os.getpid(),
    )


def _stages(host: Host, request: BuildRequest, journal: Journal, cancel: CancelToken) -> Outcome:
    """Preparing, building, extracting artifacts: what each returns is what the next one needs."""
    places = places_for(request.project, host.agent, host.home)
    journal.enter(BuildState.PREPARING)
    _admit(host, places)
    record, observer = journal.record, journal.observer
    prepared = prepare(host, request, record.targets, places, observer.note, cancel)
    commits = {tree.name: tree.commit for tree in prepared.layers.trees}
    journal.note(layer_commits=commits, image=prepared.image.id)
    with (
        host.layer_store(places).lease(prepared.layers),
        _leased(host, places, journal) as lease,
    ):
        outcome = run_attempts(host, prepared, lease.workspace, journal, cancel)
        # What filled the disk would also keep every later build from starting.
        is_worth_keeping = outcome.state is BuildState.FAILED and outcome.kind != FailureKind.DISK
        lease.is_kept = request.keep_workspace or is_worth_keeping
        if outcome.state is BuildState.COMPLETED and not request.fetch_only:
            lease.is_kept = True  # until the artifacts are out
            _extract(host, prepared, lease.workspace, journal)
            lease.is_kept = request.keep_workspace
    days = request.project.config.cache.retention
    if days is not None:
        retire(host, host.workspace_store(places), journal.record, days, observer.note)
    return outcome


def _admit(host: Host, places: Places) -> None:
    """Refuse a build that would fill the disk; raises `HostError`."""
    wanted = host.agent.limits.min_free_disk
    for folder in (host.home.root, places.workspaces):
        free = free_space(folder).free_bytes
        if free < wanted:
            raise HostError(
                f"only {free / 1e9:.1f} GB are free, and a build wants {wanted / 1e9:.1f} GB",
                where=str(folder),
                hint="Free some space ('smidr artifacts clean' and 'smidr doctor' help), or lower"
                f" limits.min_free_disk in {host.home.agent_config}.",
                kind=FailureKind.DISK,
            )


@dataclass
class _Lease:
    workspace: Workspace
    is_kept: bool = False


@contextlib.contextmanager
def _leased(host: Host, places: Places, journal: Journal) -> Iterator[_Lease]:
    """A workspace of the build's own; released, and the kept ones trimmed to their budget."""
    store = host.workspace_store(places)
    record = journal.record
    key = f"{record.customer}-{record.project}"
    lease = _Lease(store.lease(key, record.build_id, places.private_roots))
    journal.note(workspace=str(lease.workspace.path))
    try:
        yield lease
    finally:
        journal.make_room()
        store.release(lease.workspace, keep=lease.is_kept)
        limits = host.agent.limits
        gone = store.sweep(Budget(limits.kept_workspaces_count, limits.kept_workspaces_size))
        forget_workspaces(host.store, gone)
        if not lease.is_kept or lease.workspace.path in {item.path for item in gone}:
            journal.note(workspace="")


def _extract(host: Host, prepared: Preparation, workspace: Workspace, journal: Journal) -> None:
    """Keep what the globs select; raises `BuildFailedError` when an explicit list finds nothing."""
    journal.enter(BuildState.EXTRACTING)
    globs = prepared.config.artifacts
    has_own_deploy = "deploy" in workspace.extra
    manifest = collect(
        workspace.extra["deploy"] if has_own_deploy else workspace.build / "tmp" / "deploy",
        globs,
        host.artifacts_of(journal.record),
        created=host.clock.now(),
        seen_as=DEPLOY if has_own_deploy else BUILD / "tmp" / "deploy",
        may_link=not prepared.request.keep_workspace,
    )
    for item in (*manifest.refused, *manifest.skipped):
        journal.observer.note(f"artifact left out: {item.path}: {item.reason}")
    for glob in manifest.unmatched:
        journal.observer.note(f"artifacts: nothing matches {glob}")
    # The globs describe what the config's own targets leave, not one chosen instead of them.
    if globs and not manifest.artifacts and not prepared.request.targets:
        raise BuildFailedError(
            f"nothing matches `artifacts`: {', '.join(globs)}",
            where=prepared.request.project.place(("artifacts",)),
            hint=f"The globs start at DEPLOY_DIR: `smidr shell --build {journal.record.build_id} --"
            " find tmp/deploy` shows what is there.",
            kind=FailureKind.ARTIFACTS,
        )
    journal.note(
        artifacts=tuple(
            ArtifactRecord(item.path, item.size_bytes, item.sha256) for item in manifest.artifacts
        )
    )


def _stopped(stop: CancelledError) -> Outcome:
    if stop.kind is FailureKind.CANCELLED:
        return Outcome(BuildState.CANCELLED, stop.kind.exit_code, stop.kind, stop.message)
    return Outcome(BuildState.FAILED, stop.kind.exit_code, stop.kind, stop.message)
