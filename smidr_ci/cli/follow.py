"""Show a build that an agent runs, as if it ran here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from smidr_ci.api.client import AgentClient
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.cli.watch import Watcher
from smidr_ci.errors import InternalError, SmidrError

__all__ = ["follow_build"]


def follow_build(
    client: AgentClient, build_id: str, watcher: Watcher, cancel: CancelToken
) -> BuildRecord:
    """Show the build until it is over, and pass a cancel on to the agent; the final record.

    Raises `AgentUnreachableError` when the agent stays away; the build itself goes on.
    """
    shown = _Shown(watcher)
    view: BuildView | None = None
    with _passing_on(client, build_id, watcher, cancel):
        for view in client.watch(build_id):
            shown.show(view)
    if view is None:
        raise InternalError(f"the agent said nothing of build {build_id}")
    return view.record if not view.record.is_summary else client.get(build_id)


class _Shown:
    """What the watcher was told already."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._state: BuildState | None = None
        self._waiting_for = ""

    def show(self, view: BuildView) -> None:
        if view.record.state is not self._state:
            self._state = view.record.state
            self._watcher.changed(view.record)
        if view.waiting_for and view.waiting_for != self._waiting_for:
            self._watcher.note(f"waiting: {view.waiting_for}")
        self._waiting_for = view.waiting_for
        for note in view.notes:
            self._watcher.note(note.text)
        if view.progress is not None:
            self._watcher.progressed(view.progress)


@contextmanager
def _passing_on(
    client: AgentClient, build_id: str, watcher: Watcher, cancel: CancelToken
) -> Iterator[None]:
    over = threading.Event()

    def pass_on(level: CancelLevel) -> None:
        while not over.is_set():
            if cancel.wait(0.5, level):
                try:
                    client.cancel(build_id, level)
                except SmidrError as error:
                    watcher.note(str(error))
                return

    threads = [
        threading.Thread(target=pass_on, args=(level,), name=f"cancel-{level}", daemon=True)
        for level in (CancelLevel.INTERRUPT, CancelLevel.KILL)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
