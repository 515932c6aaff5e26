"""What the API can do, whatever the protocol: check who asks and what for, then pass it on."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from smidr_ci.agent.status import AgentStatus
from smidr_ci.api.artifact_files import OpenArtifact, kept_artifacts, open_artifact
from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.client import StartRequest
from smidr_ci.api.limits import check_start_request
from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.ids import customer_of
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.service import BuildService, BuildView
from smidr_ci.builds.store import BuildStore
from smidr_ci.cancel import CancelLevel
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import ForbiddenError, InternalError, NotFoundError, SmidrError, UsageError
from smidr_ci.files import as_host_error, remove_marked_tree
from smidr_ci.home import Home
from smidr_ci.trust import Trust

__all__ = ["AgentPort", "Operations", "Places"]

_MAX_PAGE: Final = 1000
_LONGEST_REF: Final = 512
_ID_BEGINNING: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class AgentPort(BuildService, Protocol):
    """The agent behind the API. All calls may come from any thread."""

    def status(self) -> AgentStatus:
        """The agent's own state."""

    def drain(self) -> None:
        """Take nothing new, and end when what runs is over; returns at once."""

    def stop(self, *, cancel_builds: bool) -> None:
        """End; builds that run go on, or are cancelled first. Returns at once."""


class Places(Protocol):
    """Where a host keeps what builds leave; `builds.host.Host` is one."""

    @property
    def home(self) -> Home:
        """The layout of `$SMIDR_HOME`."""

    @property
    def artifacts_root(self) -> Path:
        """Where artifacts are kept, `<customer>/<build-id>/`."""

    def control_of(self, build_id: str) -> Path:
        """Where the driver of a build writes, in the build's own directory."""


class Operations:
    """One agent's API; blocking and thread-safe.

    Every method checks the caller's scope (`ForbiddenError`) and raises `SmidrError` with what is
    wrong; a build id may be a unique beginning (`NotFoundError`). Records come without their
    order, which may hold another client's variables. `receive_bundle` unpacks a tar.gz, or nothing,
    into a fresh marked directory below `Home.incoming`.
    """

    def __init__(
        self,
        agent: AgentPort,
        store: BuildStore,
        places: Callable[[], Places],
        receive_bundle: Callable[[bytes], Path],
        clock: Clock | None = None,
    ) -> None:
        self._agent = agent
        self._store = store
        self._places = places
        self._receive_bundle = receive_bundle
        self._clock = clock or SystemClock()

    def status(self, caller: Caller) -> AgentStatus:
        """The agent's own state."""
        caller.require(Scope.READ)
        return self._agent.status()

    def start(
        self,
        caller: Caller,
        request: StartRequest,
        *,
        private_cache_key: str = "",
        is_judged: bool = False,
    ) -> BuildRecord:
        """Queue a build; its record is on disk when this returns.

        Only a local caller may name a directory of this host; all others' builds are confined to
        their bundle. The key is for untrusted ones, see `Order`. `is_judged` says that a forge has
        told how far it is trusted. Raises `UsageError`, `TooLargeError`, `ConfigError` or
        `BusyError`.
        """
        caller.require(Scope.BUILD)
        if caller.within is not None and not is_judged:
            request = replace(request, is_untrusted=True)
        check_start_request(request)
        if request.directory is not None:
            directory = _directory_of(caller, request.directory)
            order = _order(caller, request, directory, is_confined=False)
            order = replace(order, private_cache_key=private_cache_key)
            return _shown(self._agent.submit(order))
        source = self._receive_bundle(request.bundle)
        try:
            order = _order(caller, request, source, is_confined=True)
            return _shown(self._agent.submit(order, source))
        except BaseException:
            with suppress(OSError, InternalError):
                remove_marked_tree(source, self._places().home.incoming)
            raise

    def get(self, caller: Caller, build_id: str) -> BuildRecord:
        """One build, whole."""
        caller.require(Scope.READ)
        return _shown(self._find(build_id))

    def view(self, caller: Caller, build_id: str) -> BuildView:
        """One build with its progress and notes, as it is now."""
        caller.require(Scope.READ)
        view = self._agent.view(_checked(build_id))
        return replace(view, record=_shown(view.record))

    def subscribe(
        self, caller: Caller, build_id: str, wake: Callable[[], None]
    ) -> Callable[[], None]:
        """Have `wake` called from any thread after each change; returns what ends that."""
        caller.require(Scope.READ)
        return self._agent.subscribe(self._find(build_id).build_id, wake)

    def list(
        self,
        caller: Caller,
        *,
        limit: int = 50,
        state: BuildState | None = None,
        customer: str | None = None,
        before: str | None = None,
    ) -> list[BuildRecord]:
        """At most a thousand summaries, newest first; `before` is the last page's last id."""
        caller.require(Scope.READ)
        if not 1 <= limit <= _MAX_PAGE:
            raise UsageError(f"limit is {limit}; it must be from 1 to {_MAX_PAGE}")
        if before is not None:
            _checked(before)
        return self._store.list(limit=limit, state=state, customer=customer, before=before)

    def log_path(self, caller: Caller, build_id: str) -> tuple[str, Path]:
        """The whole id, and the file that the build's console goes to; it may not be there yet."""
        caller.require(Scope.READ)
        found = self._find(build_id).build_id
        return found, self._places().control_of(found) / CONTROL_FILES["console"]

    def is_over(self, build_id: str) -> bool:
        """Whether nothing more will happen to the build with exactly this id; cheap."""
        try:
            return self._store.state_of(build_id).is_final
        except NotFoundError:  # purged meanwhile
            return True

    def cancel(
        self, caller: Caller, build_id: str, level: CancelLevel = CancelLevel.INTERRUPT
    ) -> BuildRecord:
        """Ask for a stop; the record as it is now. A build that is over stays as it is."""
        caller.require(Scope.BUILD)
        if level is CancelLevel.NONE:
            raise UsageError("a cancel has the level interrupt or kill")
        found = self._find(build_id).build_id
        return _shown(self._agent.cancel(found, f"Cancelled by {caller.name}.", level))

    def artifacts(self, caller: Caller, build_id: str) -> tuple[ArtifactRecord, ...]:
        """What the build left and is still kept."""
        caller.require(Scope.READ)
        return kept_artifacts(self._artifacts_of(self._find(build_id)))

    def artifacts_directory(self, caller: Caller, build_id: str) -> str:
        """Where they lie, for who may read this host's files; empty for any other caller."""
        caller.require(Scope.READ)
        return str(self._artifacts_of(self._find(build_id))) if caller.is_local else ""

    def summary(self, caller: Caller, build_id: str) -> str:
        """The result in Markdown, compared with the build before."""
        caller.require(Scope.READ)
        from smidr_ci.reports.summary import summary_of  # noqa: PLC0415 - not at every start

        return summary_of(self._store, self._find(build_id))

    def open_artifact(self, caller: Caller, build_id: str, path: str) -> OpenArtifact:
        """One file of `artifacts`, opened; `NotFoundError` for any other path."""
        caller.require(Scope.READ)
        return open_artifact(self._artifacts_of(self._find(build_id)), path)

    def delete(self, caller: Caller, build_id: str) -> None:
        """Hide a build that is over (else `ConflictError`); `purge` removes it for good."""
        caller.require(Scope.ADMIN)
        self._store.soft_delete(self._find(build_id).build_id)

    def purge(self, caller: Caller, before: datetime | None = None) -> tuple[str, ...]:
        """Remove hidden builds (hidden before a time) with logs and artifacts; their ids.

        Raises what kept the first one from being removed, when the others are gone.
        """
        caller.require(Scope.ADMIN)
        before = before or self._clock.now()
        doomed, errors = set(), []
        for build_id in self._store.hidden(before):
            if self._store.is_owned(build_id):
                continue
            try:  # files first: what a crash interrupts is purged the next time
                self._remove_files(build_id)
            except SmidrError as error:
                errors.append(error)
            else:
                doomed.add(build_id)
        gone = tuple(self._store.purge(before, among=doomed))
        if errors:
            raise errors[0]
        return gone

    def drain(self, caller: Caller) -> None:
        """Let the agent finish what runs, take nothing new, and end."""
        caller.require(Scope.ADMIN)
        self._agent.drain()

    def stop(self, caller: Caller, *, cancel_builds: bool = False) -> None:
        """End the agent; builds that run go on without it, or are cancelled."""
        caller.require(Scope.ADMIN)
        self._agent.stop(cancel_builds=cancel_builds)

    def _find(self, build_id: str) -> BuildRecord:
        return self._store.get(_checked(build_id))

    def _artifacts_of(self, record: BuildRecord) -> Path:
        return self._places().artifacts_root / record.customer / record.build_id

    def _remove_files(self, build_id: str) -> None:
        places = self._places()
        left = (
            (places.control_of(build_id).parent, places.home.builds),
            (places.artifacts_root / customer_of(build_id) / build_id, places.artifacts_root),
        )
        for folder, root in left:
            try:
                remove_marked_tree(folder, root)
            except OSError as error:
                raise as_host_error(error, "can't remove a build's files", folder) from error


def _checked(build_id: str) -> str:
    if _ID_BEGINNING.fullmatch(build_id) is None:
        raise NotFoundError(
            f"there is no build {build_id[:80]!r}", hint="'smidr list' shows all builds."
        )
    return build_id


def _directory_of(caller: Caller, directory: Path) -> Path:
    if not caller.is_local:
        raise ForbiddenError(
            f"{caller.name} may not name a directory of the agent's host",
            hint="Send the layers that `path` names as a bundle; `smidr client start` does that.",
        )
    if not directory.is_absolute() or not directory.is_dir():
        raise UsageError(
            "the config's directory is no absolute path of a directory", where=str(directory)
        )
    if caller.within is not None and not _is_below(directory, caller.within):
        raise ForbiddenError(f"{caller.name} may not name this directory", where=str(directory))
    return directory


def _is_below(path: Path, top: Path) -> bool:
    return path.resolve().is_relative_to(top.resolve())


def _order(caller: Caller, request: StartRequest, directory: Path, *, is_confined: bool) -> Order:
    if len(request.ref) > _LONGEST_REF:
        raise UsageError(f"a ref of {len(request.ref)} characters is none")
    return Order(
        customer=request.customer,
        config_text=request.config_text,
        config_name=request.config_name,
        directory=directory,
        targets=request.targets,
        clean=request.clean,
        fresh=request.fresh,
        clean_image=request.clean_image,
        fetch_only=request.fetch_only,
        locked=request.locked,
        keep_workspace=request.keep_workspace,
        variables=request.variables,
        environment=request.environment,
        is_confined=is_confined,
        requested_by=caller.name,
        trust=Trust.UNTRUSTED if request.is_untrusted else Trust.TRUSTED,
        ref=request.ref,
    )


def _shown(record: BuildRecord) -> BuildRecord:
    return replace(record, order={})
