"""The way down: interrupt, interrupt again, kill; each rung with its time."""

from __future__ import annotations

import signal
import time
from typing import Any, Callable

from .control import Control
from .processes import Family, send

__all__ = ["Stop"]

_KILL_S = 10.0
_STEPS = ("", "interrupt", "interrupt-again", "kill")


class Stop:
    """Whether and how hard BitBake is being stopped. BitBake: knotty, "Keyboard Interrupt".

    The first interrupt lets running tasks finish, the second ends them.
    """

    def __init__(
        self,
        plan: dict[str, Any],
        family: Family,
        control: Control,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._family = family
        self._control = control
        self._now = now
        self._graces = (plan["interrupt_grace_s"], plan["kill_grace_s"])
        limit = plan["time_limit_s"]
        self._deadline: float | None = None if limit is None else now() + limit
        self.level = 0
        self.timed_out = False

    @property
    def is_asked(self) -> bool:
        """Whether anything has asked for a stop."""
        return self.level > 0

    def seconds_left(self) -> float | None:
        """Time until the next rung; None when nothing presses."""
        return None if self._deadline is None else max(0.0, self._deadline - self._now())

    def supervise(self, pid: int) -> int:
        """Wait for the child's end, stopping it when that is asked for; its exit code."""
        if self.is_asked:
            send(pid, signal.SIGINT)
        while True:
            code = self._family.take_exit(pid)
            if code is not None:
                return code
            left = self.seconds_left()
            if left == 0.0:
                self._expire(pid)
            else:
                self._note(self._family.wait(left), pid)

    def hear(self, number: int) -> None:
        """Take note of a signal that somebody else's wait has caught."""
        self._note(number, None)

    def look(self) -> None:
        """Take note of what has been asked for meanwhile, without waiting."""
        self._note(self._family.wait(0.0), None)
        if self.level == 0 and self.seconds_left() == 0.0:
            self._expire(None)

    def _expire(self, pid: int | None) -> None:
        if self.level == 0:
            self.timed_out = True
        self._harder(pid, "time limit" if self.level == 0 else "grace is over")

    def _note(self, number: int | None, pid: int | None) -> None:
        if number is not None:
            self._harder(pid, signal.Signals(number).name)

    def _harder(self, pid: int | None, reason: str) -> None:
        self.level = min(self.level + 1, 3)
        self._control.event("stop", step=_STEPS[self.level], reason=reason)
        if self.level < 3:
            self._deadline = self._now() + self._graces[self.level - 1]
            if pid is not None:
                send(pid, signal.SIGINT)
        else:
            self._deadline = self._now() + _KILL_S
            self._family.kill_all(_KILL_S)
