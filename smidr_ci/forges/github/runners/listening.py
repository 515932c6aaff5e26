"""Listens at a scale set's queue, for ever: what it hears is how many runners are wanted."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final, Protocol

from smidr_ci.clock import Clock
from smidr_ci.errors import SmidrError
from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.github.errors import RateLimitedError
from smidr_ci.forges.github.rates import Pause
from smidr_ci.forges.github.runners.actions_service import ServiceError
from smidr_ci.forges.github.runners.judging import ScaleSetJudge
from smidr_ci.forges.github.runners.messages import Item, ItemKind, Message, Statistics
from smidr_ci.forges.github.runners.pace import Backoff
from smidr_ci.forges.github.runners.scale_set import ScaleSet, ScaleSetRegistrar, ScaleSets
from smidr_ci.forges.github.runners.session import GoneError, QueueSession

__all__ = ["Listener", "ListeningHost"]

log = logging.getLogger(__name__)

_FIRST_S: Final = 2.0
_LONGEST_S: Final = 60.0
_RECREATE_S: Final = 5.0
"""Longer than the agent takes to notice that a registration was removed, and the set with it."""
_POLL_FAILURES: Final = 5
_QUICK_S: Final = 0.1
_MOST_IN_VAIN: Final = 20
_IN_VAIN_S: Final = 5.0
"""Between polls that bring nothing at once: GitHub holds them for most of a minute, and what stands
between us may not."""
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})


class ListeningHost(Protocol):
    """What a listener asks of and tells its host; from its own thread."""

    def capacity(self) -> int:
        """Runners that this host could have now."""

    def changed(self) -> None:
        """Other runners may be wanted now."""

    def began(self, name: str) -> None:
        """A runner has got its job."""

    def may_make(self) -> bool:
        """Whether a scale set that is not there is to be made."""


class Listener:
    """`run` belongs to one thread; the rest may be read from any."""

    def __init__(
        self,
        sets: ScaleSets,
        session: QueueSession,
        registrar: ScaleSetRegistrar,
        judge: ScaleSetJudge,
        host: ListeningHost,
        *,
        clock: Clock,
        pause: Pause,
    ) -> None:
        self._sets = sets
        self._session = session
        self._registrar = registrar
        self._judge = judge
        self._host = host
        self._pause = pause
        self._backoff = Backoff(clock, _FIRST_S, _LONGEST_S)
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._statistics = Statistics()
        self._floor = 0
        self.problem = ""
        """Why it hears nothing now; empty while it listens."""

    @property
    def statistics(self) -> Statistics:
        """What was told last."""
        with self._lock:
            return self._statistics

    @property
    def wanted(self) -> int:
        """Runners for the jobs that GitHub has given us, with those at work."""
        with self._lock:
            assigned = self._statistics.assigned or self._floor
        return max(assigned - self._judge.refused_count, 0)

    def end(self) -> None:
        """Let `run` come to its end; whoever ends the connections makes that soon."""
        self._ended.set()

    def run(self) -> None:
        """Listen until `end`; whatever happens, it goes on."""
        while not self._ended.is_set():
            try:
                self._serve()
            except GoneError as error:
                self._trouble(f"the scale set is gone: {error}", _RECREATE_S)
                self._registrar.current = None
            except RateLimitedError as error:
                self._trouble(error.message, error.after_s)
            except SmidrError as error:
                self._trouble(_told(error))
            except Exception as error:
                log.exception("listening at the scale set")
                self._trouble(f"a fault of smidr's: {type(error).__name__}")

    def _serve(self) -> None:
        current = self._sets.ensure() if self._host.may_make() else self._sets.find()
        if current is None:
            raise ForgeError("the scale set is gone, and this host takes no more jobs")
        self._registrar.current = current
        session = self._session.open(current.number)
        try:
            self._take(session.statistics, ())
            self._listen(current)
        finally:
            # The next session could not begin otherwise, ours or that of the next process.
            self._session.end()

    def _listen(self, current: ScaleSet) -> None:
        last, failures, in_vain = 0, 0, 0
        self._well()
        while not self._ended.is_set():
            began = time.monotonic()  # how long a server holds a call is no matter of our clock
            try:
                message = self._session.poll(last, self._host.capacity())
            except GoneError:
                if not self._sets.is_there(current.number):
                    raise
                raise ForgeError("the session is over, and is begun again") from None
            except ForgeError as error:
                failures += 1
                is_passing = isinstance(error, ForgeUnreachableError) or error.status in _PASSING
                if not is_passing or failures >= _POLL_FAILURES or self._ended.is_set():
                    raise
                self._trouble(_told(error))
                continue
            failures = 0
            self._well()
            self._judge.again()
            is_news = message is not None and message.message_id != last
            is_held = time.monotonic() - began >= _QUICK_S
            in_vain = 0 if is_news or is_held else in_vain + 1
            if message is not None:
                self._handle(message)
                last = message.message_id
            self._host.changed()
            if in_vain > _MOST_IN_VAIN and self._pause(_IN_VAIN_S):
                return

    def _handle(self, message: Message) -> None:
        """Confirmed last: what comes again changes nothing, and what is lost comes never."""
        self._acquire(message)
        self._judge.heard(message)
        self._take(message.statistics, message.items)
        for item in message.of_kind(ItemKind.STARTED):
            self._host.began(item.runner_name)
        for item in message.of_kind(ItemKind.COMPLETED):
            log.info("job %r is over: %s", item.job_name, item.result or "-")
        self._session.confirm(message.message_id)

    def _acquire(self, message: Message) -> None:
        offered = [
            item for item in message.of_kind(ItemKind.AVAILABLE) if self._judge.is_allowed(item)
        ]
        numbers = list(dict.fromkeys(item.request_id for item in offered if item.request_id))
        if not numbers:
            return
        try:
            got = self._session.acquire(numbers)
        except ServiceError as error:
            if error.status in _PASSING or error.status == 401:
                raise
            # Refused for good: they must not keep the messages behind them from coming.
            log.warning("%s", error)
            return
        if len(got) < len(numbers):
            log.info("of %d jobs that were to be had, %d are ours", len(numbers), len(got))

    def _take(self, told: Statistics | None, items: tuple[Item, ...]) -> None:
        assigned = {item.request_id for item in items if item.kind is ItemKind.ASSIGNED}
        with self._lock:
            if told is not None:
                self._statistics = told
                # Now and then the figures come later than the jobs themselves.
                self._floor = len(assigned)
        self._host.changed()

    def _well(self) -> None:
        self._backoff.worked()
        self.problem = ""

    def _trouble(self, message: str, at_least_s: float = 0.0) -> None:
        if self._ended.is_set():
            return
        if message != self.problem:
            log.warning("%s", message)
        self.problem = message
        self._host.changed()
        if self._pause(self._backoff.failed(message, at_least_s)):
            self._ended.set()


def _told(error: SmidrError) -> str:
    if isinstance(error, ServiceError) and error.status == 409:
        return f"another agent listens at the scale set, or did until a moment ago: {error.message}"
    return error.message
