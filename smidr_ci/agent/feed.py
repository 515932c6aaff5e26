"""What watchers see of the builds of this agent: the latest of each, and a call when it changes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.service import BuildView, Note

__all__ = ["Feed", "FeedObserver"]

_NOTES: Final = 1000

Wake = Callable[[], None]


class _Topic:
    """One build that is not over."""

    def __init__(self, record: BuildRecord) -> None:
        self.record = record
        self.progress: Progress | None = None
        self.notes: deque[Note] = deque(maxlen=_NOTES)
        self.noted = 0
        self.waiting_for = ""
        self.version = 0


class Feed:
    """Keeps the newest view of each build that is not over; thread-safe.

    Watchers are woken, and ask. So a slow one holds nothing back and misses only what is older
    than the newest view.
    """

    def __init__(self, first_version: int) -> None:
        """`first_version` must be higher than any version of an agent before this one."""
        self._lock = threading.Lock()
        self._version = first_version
        self._topics: dict[str, _Topic] = {}
        self._wakes: dict[str, dict[object, Wake]] = {}

    def observer(self, record: BuildRecord) -> FeedObserver:
        """Begin with a build; what the observer hears, watchers see."""
        with self._lock:
            self._topics[record.build_id] = _Topic(record)
        return FeedObserver(self, record.build_id)

    def close(self, build_id: str) -> None:
        """The build is over and its record in the store: watchers look once more."""
        with self._lock:
            self._topics.pop(build_id, None)
            self._version += 1
        self.wake(build_id)

    def view(self, build_id: str) -> BuildView | None:
        """The build as it is now; None when it is over or not of this agent."""
        with self._lock:
            topic = self._topics.get(build_id)
            if topic is None:
                return None
            notes = tuple(topic.notes)
            return BuildView(topic.version, topic.record, topic.progress, notes, topic.waiting_for)

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Say of each queued build why it waits; of all others that they don't."""
        with self._lock:
            changed = {
                build_id: reasons.get(build_id, "")
                for build_id, topic in self._topics.items()
                if topic.waiting_for != reasons.get(build_id, "")
            }
        for build_id, reason in changed.items():
            self.change(build_id, _because(reason))

    @property
    def version(self) -> int:
        """Higher than that of any view so far, or as high."""
        with self._lock:
            return self._version

    def subscribe(self, build_id: str, wake: Wake) -> Callable[[], None]:
        """Call `wake` after each change; returns what ends that."""
        key = object()
        with self._lock:
            self._wakes.setdefault(build_id, {})[key] = wake

        def unsubscribe() -> None:
            with self._lock:
                wakes = self._wakes.get(build_id, {})
                wakes.pop(key, None)
                if not wakes:
                    self._wakes.pop(build_id, None)

        return unsubscribe

    def change(self, build_id: str, apply: Callable[[_Topic], None]) -> None:
        """Change what is known of a build, and wake its watchers."""
        with self._lock:
            topic = self._topics.get(build_id)
            if topic is None:
                return
            apply(topic)
            self._version += 1
            topic.version = self._version
        self.wake(build_id)

    def wake(self, build_id: str) -> None:
        """Have the watchers of a build look again."""
        with self._lock:
            wakes = list(self._wakes.get(build_id, {}).values())
        for wake in wakes:
            wake()


def _because(reason: str) -> Callable[[_Topic], None]:
    def apply(topic: _Topic) -> None:
        topic.waiting_for = reason

    return apply


class FeedObserver:
    """The `BuildObserver` of one build."""

    def __init__(self, feed: Feed, build_id: str) -> None:
        self._feed = feed
        self._build_id = build_id

    def changed(self, record: BuildRecord) -> None:
        """The build reached another stage or its final state."""

        def apply(topic: _Topic) -> None:
            # A cancel is written by the agent, not by the journal whose record this is.
            reason = record.cancel_reason or topic.record.cancel_reason
            topic.record = replace(record, cancel_reason=reason)

        self._feed.change(self._build_id, apply)

    def note(self, text: str) -> None:
        """One line about preparation."""

        def apply(topic: _Topic) -> None:
            topic.noted += 1
            topic.notes.append(Note(topic.noted, text))

        self._feed.change(self._build_id, apply)

    def progressed(self, progress: Progress) -> None:
        """BitBake went on."""

        def apply(topic: _Topic) -> None:
            topic.progress = progress

        self._feed.change(self._build_id, apply)

    def cancelling(self, reason: str) -> None:
        """Somebody asked for a stop."""

        def apply(topic: _Topic) -> None:
            topic.record = replace(topic.record, cancel_reason=topic.record.cancel_reason or reason)

        self._feed.change(self._build_id, apply)
