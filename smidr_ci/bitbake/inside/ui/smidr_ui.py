"""A BitBake UI: knotty's console, unchanged, and a JSON line for each event beside it.

BitBake loads it as `bb.ui.smidr_ui`; `launch.py` has set `bb.ui.smidr_events` to the file's path.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import bb  # type: ignore[import-not-found]  # the container's own release
import bb.ui  # type: ignore[import-not-found]  # as above
from bb.ui import knotty
from smidr_inside.control import (  # type: ignore[import-not-found]  # its name in the container
    append_line,
    open_for_append,
)
from smidr_inside.translate import (  # type: ignore[import-not-found]  # as above
    EXTRA_EVENTS,
    Translator,
)

_QUIET_AFTER_BYTES = 64 * 1024 * 1024
_LAST = frozenset({"CommandCompleted", "CommandFailed", "CommandExit"})
_EXTRA = frozenset(name.rpartition(".")[2] for name in EXTRA_EVENTS)


class Recorder:
    """Writes records until something goes wrong, which is noted once and never raised."""

    def __init__(self, path: str) -> None:
        self._translator = Translator()
        self._left = _QUIET_AFTER_BYTES
        self._fd = -1
        self.is_complete = False
        """Whether the server has said that the command is over."""
        try:
            self._fd = open_for_append(path)
        except OSError as error:
            self._give_up(error)

    def record(self, event: Any) -> None:
        """Write one event, if it is one to write."""
        self.is_complete = self.is_complete or type(event).__name__ in _LAST
        if self._fd < 0:
            return
        try:
            found = self._translator.translate(event)
            if found is not None and (self._left > 0 or found["event"] != "log"):
                self._write(found)
        except Exception as error:  # noqa: BLE001 - a build must not fail for its progress bar
            self._give_up(error)

    def note(self, name: str, **fields: Any) -> None:
        """Write a record of our own; trouble with it stops nothing."""
        with contextlib.suppress(OSError):
            self._write({"t": round(time.time(), 3), "event": name, **fields})

    def _write(self, record: dict[str, Any]) -> None:
        if self._fd >= 0:
            self._left -= append_line(self._fd, record)

    def _give_up(self, error: Exception) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                append_line(fd, {"event": "note", "message": f"no more events: {error!r}"})
                os.close(fd)
        print(f"smidr: progress can't be followed any more: {error!r}")


class RecordingQueue:
    """BitBake's event queue, seen by knotty through the recorder."""

    def __init__(self, inner: Any, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    def waitEvent(self, delay: float) -> Any:  # noqa: N802 - BitBake's name
        """The next event that knotty asked for; what only we asked for is kept from it."""
        event = self._inner.waitEvent(delay)
        while event is not None:
            self._recorder.record(event)
            if type(event).__name__ not in _EXTRA:
                return event
            event = self._inner.waitEvent(0)
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class AskingServer:
    """BitBake's server, asked for some more kinds of events."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def runCommand(self, command: list[Any]) -> Any:  # noqa: N802 - BitBake's name
        """Pass the command on; an event mask with our names added."""
        if command and command[0] == "setEventMask" and isinstance(command[-1], list):
            mask = list(command[-1])
            command = [*command[:-1], [*mask, *(name for name in EXTRA_EVENTS if name not in mask)]]
        return self._inner.runCommand(command)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def main(server: Any, eventHandler: Any, params: Any) -> int | None:  # noqa: N803 - as called
    """What BitBake calls; returns its exit code."""
    recorder = Recorder(bb.ui.smidr_events)
    recorder.note("ui", bitbake=bb.__version__)
    code: int | None = knotty.main(
        AskingServer(server), RecordingQueue(eventHandler, recorder), params
    )
    recorder.note("ui-end", complete=recorder.is_complete)
    return code
