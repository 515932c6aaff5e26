"""An agent without builds: it stores what it is asked for, and the test says what happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smidr_ci.agent.status import AgentStatus
from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.service import BuildView, Note
from smidr_ci.builds.store import BuildStore
from smidr_ci.cancel import CancelLevel
from smidr_ci.errors import BusyError
from smidr_ci.files import make_marked_dir
from smidr_ci.home import Home

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_record(state: BuildState = BuildState.QUEUED) -> BuildRecord:
    """A record that is in no store."""
    return BuildRecord(
        build_id="acme-12345678",
        customer="acme",
        project="demo",
        targets=("core-image-minimal",),
        state=state,
        created=STARTED,
    )


class FakeBuildService:
    """Implements `builds.service.BuildService` and the agent's status, drain and stop.

    Builds stay queued until the test moves them with `change`; `log_of` is a build's console.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.store = BuildStore.at(home)
        self.orders: list[Order] = []
        self.cancelled: list[tuple[str, str, CancelLevel]] = []
        self.is_draining = False
        self.stopped_with: bool | None = None
        self.failure: Exception | None = None
        """Raised by every call, once set."""
        self._lock = threading.Lock()
        self._version = 0
        self._live: dict[str, dict[str, Any]] = {}
        self._wakers: dict[str, list[Callable[[], None]]] = {}

    def submit(self, order: Order, source: Path | None = None) -> BuildRecord:
        self._fail()
        if self.is_draining:
            raise BusyError("the agent drains", hint="Ask another one.")
        build_id, claim = self.store.reserve(order.customer)
        with claim:
            record = BuildRecord(
                build_id=build_id,
                customer=order.customer,
                project="demo",
                targets=order.targets,
                state=BuildState.QUEUED,
                created=datetime.now(UTC),
                config_text=order.config_text,
                config_path=order.config_name,
                requested_by=order.requested_by,
                is_resumable=True,
                order=order.to_json(),
            )
            self.store.add(record)
        make_marked_dir(self.home.builds / build_id)
        self.log_of(build_id).parent.mkdir()
        self.orders.append(order)
        self.source = source
        return record

    def cancel(
        self, build_id: str, reason: str, level: CancelLevel = CancelLevel.INTERRUPT
    ) -> BuildRecord:
        self._fail()
        record = self.store.get(build_id)
        self.cancelled.append((record.build_id, reason, level))
        if record.state.is_final:
            return record
        return self.change(record.build_id, state=BuildState.CANCELLED, cancel_reason=reason)

    def view(self, build_id: str) -> BuildView:
        self._fail()
        record = self.store.get(build_id)
        with self._lock:
            live = dict(self._live.get(record.build_id, {}))
            return BuildView(version=self._version, record=record, **live)

    def subscribe(self, build_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        self._fail()
        full_id = self.store.get(build_id).build_id
        with self._lock:
            self._wakers.setdefault(full_id, []).append(wake)

        def unsubscribe() -> None:
            with self._lock, suppress(ValueError):  # it may be asked twice, as the agent may
                self._wakers[full_id].remove(wake)

        return unsubscribe

    def status(self) -> AgentStatus:
        self._fail()
        waiting = self.store.list(state=BuildState.QUEUED)
        return AgentStatus(
            version="1.2.3",
            pid=4711,
            started=STARTED,
            is_draining=self.is_draining,
            running=(),
            queued={item.build_id: "it is the fake's" for item in reversed(waiting)},
            max_running=2,
        )

    def drain(self) -> None:
        self._fail()
        self.is_draining = True

    def stop(self, cancel_builds: bool) -> None:
        self._fail()
        self.stopped_with = cancel_builds

    def log_of(self, build_id: str) -> Path:
        """Where the build's console is."""
        return self.home.builds / build_id / "control" / CONTROL_FILES["console"]

    def watchers_of(self, build_id: str) -> int:
        """How many are subscribed."""
        with self._lock:
            return len(self._wakers.get(build_id, ()))

    def change(self, build_id: str, **fields: object) -> BuildRecord:
        """Store other values of a record's fields and wake who watches."""
        record = self.store.update(build_id, **fields)
        if record.state.is_final:
            with self._lock:
                self._live.pop(build_id, None)
        self._tell(build_id)
        return record

    def show(
        self,
        build_id: str,
        *,
        progress: Progress | None = None,
        notes: tuple[str, ...] = (),
        waiting_for: str = "",
    ) -> None:
        """Set what a view has besides the record; notes are added to earlier ones."""
        with self._lock:
            live = self._live.setdefault(build_id, {"notes": ()})
            first = len(live["notes"]) + 1
            more = tuple(Note(number, text) for number, text in enumerate(notes, first))
            live |= {"progress": progress, "waiting_for": waiting_for}
            live["notes"] = (*live["notes"], *more)
        self._tell(build_id)

    def finish(self, build_id: str, **fields: object) -> BuildRecord:
        """Let a build succeed, with these fields besides."""
        values: Mapping[str, object] = {"ended": datetime.now(UTC), "exit_code": 0, **fields}
        return self.change(build_id, state=BuildState.COMPLETED, **values)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _tell(self, build_id: str) -> None:
        with self._lock:
            self._version += 1
            wakers = list(self._wakers.get(build_id, ()))
        for wake in wakers:
            wake()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
