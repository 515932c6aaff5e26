"""Webhooks that did not arrive: sent again by GitHub, or read from its list without any port.

Facts: docs.github.com, "REST API endpoints for GitHub App webhooks". GitHub keeps deliveries for
30 days and repeats none by itself.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from smidr_ci.clock import Clock
from smidr_ci.errors import SmidrError
from smidr_ci.files import make_private_dir, write_atomic
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.auth import APP
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.events import Hint, hint_of
from smidr_ci.forges.github.exchange import Call

__all__ = ["HookPoller", "MissedHooks"]

log = logging.getLogger(__name__)

_WINDOW: Final = timedelta(hours=1)
_MOST: Final = 500
_MOST_SEEN: Final = 2000


class MissedHooks:
    """One App's deliveries; `accept` takes a hint, and may be given the same twice."""

    def __init__(
        self,
        client: GitHubClient,
        clock: Clock,
        accept: Callable[[Hint], None],
        state_file: Path,
    ) -> None:
        self._client = client
        self._clock = clock
        self._accept = accept
        self._state_file = state_file
        self._lock = threading.Lock()

    def redeliver(self) -> int:
        """Have GitHub send again what failed in the last hour; how many. Raises `SmidrError`."""
        with self._lock:
            seen = self._load()
            listed = list(self._recent())
            arrived = {item.get("guid") for item in listed if _has_arrived(item)}
            asked = 0
            for item in listed:
                guid = str(item.get("guid", ""))
                if not guid or guid in arrived or guid in seen or _has_arrived(item):
                    continue
                path = f"/app/hook/deliveries/{int(item['id']):d}/attempts"
                call = Call("POST", path, is_repeatable=False)
                with _unless_refused():
                    self._client.send(call, APP, action="have a webhook sent again")
                    asked += 1
                seen[guid] = True
                self._save(seen)  # each once, whatever happens to the rest
            return asked

    def fetch(self) -> int:
        """Read what GitHub tried to send in the last hour, arrived or not; how many were new."""
        with self._lock:
            seen = self._load()
            fresh = [
                item
                for item in self._recent()
                if str(item.get("guid", "")) not in seen and item.get("event") != "ping"
            ]
            for item in reversed(fresh):
                with _unless_refused():
                    self._take(item)
                seen[str(item.get("guid", ""))] = True
                self._save(seen)
            return len(fresh)

    def _take(self, item: dict[str, Any]) -> None:
        path = f"/app/hook/deliveries/{int(item['id']):d}"
        found = self._client.get(path, APP, action="read a webhook's delivery").object()
        request = found.get("request")
        payload = request.get("payload") if isinstance(request, dict) else None
        hint = hint_of(str(item.get("event")), str(item.get("guid")), payload)
        if hint is not None:
            self._accept(hint)

    def _recent(self) -> Iterator[dict[str, Any]]:
        """The newest first, back to an hour ago."""
        oldest = self._clock.now() - _WINDOW
        listed = self._client.pages(
            "/app/hook/deliveries", APP, action="list the App's webhook deliveries"
        )
        for count, item in enumerate(listed):
            if count >= _MOST or _moment(item.get("delivered_at"), oldest) < oldest:
                return
            if isinstance(item.get("id"), int):
                yield item

    def _load(self) -> dict[str, bool]:
        try:
            found = json.loads(self._state_file.read_bytes()[: 1 << 20])
        except (OSError, ValueError):
            return {}
        return dict.fromkeys(map(str, found), True) if isinstance(found, list) else {}

    def _save(self, seen: dict[str, bool]) -> None:
        try:
            make_private_dir(self._state_file.parent)
            write_atomic(self._state_file, json.dumps(list(seen)[-_MOST_SEEN:]), mode=0o600)
        except OSError as error:
            log.warning("can't remember which webhooks were seen: %s", error)


@contextmanager
def _unless_refused() -> Iterator[None]:
    """One delivery that GitHub no longer has must not keep the others from being seen to."""
    try:
        yield
    except ForgeError as error:
        if error.status not in {400, 404, 410, 422}:
            raise
        log.warning("passing over a webhook: %s", error)


def _has_arrived(item: dict[str, Any]) -> bool:
    code = item.get("status_code")
    return isinstance(code, int) and 200 <= code < 400


def _moment(text: object, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return otherwise


class HookPoller:
    """Looks in a thread of its own; trouble is logged once, and another look tells when it ends."""

    def __init__(self, name: str, look: Callable[[], int], every_s: float) -> None:
        self._name = name
        self._look = look
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem = ""
        """Why the last look failed; empty when it did not."""

    def start(self) -> None:
        """Look now, and from then on."""
        self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _loop(self) -> None:
        while not self._ended.is_set():
            problem = ""
            try:
                self._look()
            except SmidrError as error:
                problem = str(error)
            except Exception as error:
                log.exception("%s stumbled", self._name)
                problem = f"{type(error).__name__}"
            if problem and problem != self.problem:
                log.warning("%s: %s", self._name, problem)
            self.problem = problem
            self._ended.wait(self._every_s)
