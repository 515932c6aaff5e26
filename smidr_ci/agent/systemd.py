"""What systemd is told of the agent, as sd_notify(3) and sd_watchdog_enabled(3) describe it.

Without systemd (no NOTIFY_SOCKET) nothing happens. Works with any supervisor that speaks the same.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.text import printable

__all__ = ["Notifier", "Watchdog"]

_log = logging.getLogger(__name__)

_SEND_S: Final = 1.0
_STATUS_CHARACTERS: Final = 500


class Notifier:
    """Tells the supervisor how it stands; never raises, and waits a second at most."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address` is a unix socket's path, or `@name` of an abstract one; empty for nobody."""
        self._address = address
        self.watchdog_s = watchdog_s
        """Seconds of silence after which the supervisor ends this process; None for never."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """Whoever NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID name."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            address = ""
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        is_meant = not pid or pid == str(os.getpid())
        is_number = usec.isascii() and usec.isdigit() and len(usec) < 20
        silence_s = int(usec) / 1_000_000 if is_number and address and is_meant else 0
        return cls(address, silence_s or None)

    def ready(self, status: str = "") -> None:
        """All is up, or settings have been read again."""
        self._send("READY=1", *_status(status))

    def reloading(self, clock: Clock) -> None:
        """Settings are being read again; `ready` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(clock.monotonic() * 1_000_000)}")

    def stopping(self, status: str = "") -> None:
        """The end has begun."""
        self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def alive(self) -> None:
        """Keep the watchdog quiet once more."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        # Abstract sockets have a zero byte where systemd writes @.
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_SEND_S)
                channel.sendto("\n".join(lines).encode(), name)
        except OSError as error:
            _log.warning("can't tell the supervisor %s: %s", lines[0], error)


class Watchdog:
    """Says that the process is alive as long as `is_alive` finds so, twice per allowed silence.

    Does nothing when the supervisor has no watchdog.
    """

    def __init__(self, notifier: Notifier, is_alive: Callable[[], bool]) -> None:
        self._notifier = notifier
        self._is_alive = is_alive
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, with a sign of life at once."""
        if self._notifier.watchdog_s is not None and self._thread is None:
            interval_s = self._notifier.watchdog_s / 2
            self._thread = threading.Thread(
                target=self._run, args=(interval_s,), name="watchdog", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End; the supervisor's patience runs on from the last sign of life."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, interval_s: float) -> None:
        while True:
            self._look()
            if self._ended.wait(interval_s):
                return

    def _look(self) -> None:
        try:
            is_alive = self._is_alive()
        except Exception:  # noqa: BLE001 - whoever can't tell is not well
            _log.exception("can't tell whether the agent is well")
            is_alive = False
        if is_alive:
            self._notifier.alive()
        else:
            _log.error("the agent is not well: the watchdog is not answered")


def _status(text: str) -> tuple[str, ...]:
    # A newline in the text would begin another assignment.
    line = printable(text)[:_STATUS_CHARACTERS]
    return (f"STATUS={line}",) if line else ()
