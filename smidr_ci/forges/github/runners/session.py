"""A session with a scale set's queue: there is one at a time, and it must be ended.

Facts: github.com/actions/scaleset, session_client.go.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from smidr_ci.files import make_private_dir, write_atomic
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.exchange import Reply
from smidr_ci.forges.github.runners.actions_service import (
    API_VERSION,
    ActionsService,
    ServiceError,
    checked_url,
    service_failure,
)
from smidr_ci.forges.github.runners.messages import Message, Statistics
from smidr_ci.forges.github.transport import Transport

__all__ = ["GoneError", "QueueSession", "Session", "SessionFile"]

log = logging.getLogger(__name__)

_SETS: Final = "_apis/runtime/runnerscalesets"
_MOST_ACQUIRED: Final = 1000


class GoneError(Exception):
    """The scale set or its queue is there no more."""


@dataclass(frozen=True)
class Session:
    """One that GitHub gave us."""

    scale_set: int
    session_id: str
    queue_url: str = field(repr=False)
    token: str = field(repr=False)
    statistics: Statistics = field(default_factory=Statistics)


class SessionFile:
    """Which session this host has, for who comes after a crash: GitHub keeps it for minutes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, scale_set: int, session_id: str) -> None:
        """Trouble with it costs the next process a wait only."""
        try:
            make_private_dir(self._path.parent)
            text = json.dumps({"scale_set": scale_set, "session": session_id})
            write_atomic(self._path, text, mode=0o600)
        except OSError as error:
            log.warning("can't remember the session: %s", error)

    def load(self) -> tuple[int, str] | None:
        """The session of an earlier process, if there may be one."""
        try:
            found = json.loads(self._path.read_bytes()[:10_000])
            scale_set, session_id = found["scale_set"], found["session"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_good = isinstance(scale_set, int) and isinstance(session_id, str) and session_id
        return (scale_set, session_id) if is_good else None

    def clear(self) -> None:
        """It was ended."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("can't forget the session: %s", error)


class QueueSession:
    """Calls of one session; for one thread, but for `end`.

    All methods raise `ForgeError`, and `GoneError` when there is no such scale set any more.
    """

    def __init__(
        self, service: ActionsService, polls: Transport, file: SessionFile, owner: str
    ) -> None:
        """`polls` has time limits that suit answers which come after most of a minute."""
        self._service = service
        self._polls = polls
        self._file = file
        self._owner = owner
        self._session: Session | None = None

    def open(self, scale_set: int) -> Session:
        """Begin; raises `ServiceError` with status 409 while another session is active."""
        self._end_old()
        path = f"{_SETS}/{scale_set:d}/sessions"
        with_owner = {"ownerName": self._owner}
        try:
            reply = self._service.call(
                "POST", path, body=with_owner, action="begin a session", attempts=1
            )
        except ServiceError as error:
            raise _gone_or(error) from error
        session = self._session_of(reply, scale_set)
        self._file.save(scale_set, session.session_id)
        self._session = session
        return session

    def refresh(self) -> None:
        """Get another token for the queue."""
        old = self._current()
        path = f"{_SETS}/{old.scale_set:d}/sessions/{old.session_id}"
        try:
            reply = self._service.call("PATCH", path, action="renew the session")
        except ServiceError as error:
            raise _gone_or(error) from error
        found = self._session_of(reply, old.scale_set)
        self._session = replace(found, session_id=found.session_id or old.session_id)

    def poll(self, last_message: int, capacity: int) -> Message | None:
        """Wait for the next message, most of a minute at most; None when there is none."""
        extra = {"X-ScaleSetMaxCapacity": str(capacity)}
        last = {"lastMessageId": str(last_message)} if last_message else {}
        reply = self._with_token("GET", "", last, extra=extra)
        if reply.status == 202:
            return None
        if reply.status != 200:
            raise _gone_or(service_failure(reply, "read the scale set's queue"))
        return Message.of(reply)

    def confirm(self, message_id: int) -> None:
        """Have a message sent no more; one that is gone is fine."""
        reply = self._with_token("DELETE", f"/{message_id:d}", {})
        if not reply.is_success and reply.status != 404:
            raise service_failure(reply, "confirm a message")

    def acquire(self, request_ids: Sequence[int]) -> list[int]:
        """Take jobs that are to be had; which of them we got. Empty for those that are gone."""
        current = self._current()
        reply = self._acquired(current, request_ids[:_MOST_ACQUIRED])
        if reply.status == 401:
            self.refresh()
            reply = self._acquired(self._current(), request_ids[:_MOST_ACQUIRED])
        if not reply.is_success:
            raise _gone_or(service_failure(reply, "take a job"))
        values = reply.object().get("value")
        return [item for item in (values if isinstance(values, list) else ()) if _is_number(item)]

    def end(self, attempts: int = 1) -> None:
        """Let go of the session; the next one can begin at once then."""
        current, self._session = self._session, None
        if current is not None:
            self._delete(current.scale_set, current.session_id, attempts)

    def _end_old(self) -> None:
        """What a process before us left behind when it was killed."""
        found = self._file.load()
        if found is not None:
            log.info("ending the session of an earlier process")
            self._delete(*found, attempts=1)

    def _delete(self, scale_set: int, session_id: str, attempts: int) -> None:
        path = f"{_SETS}/{scale_set:d}/sessions/{session_id}"
        try:
            self._service.call("DELETE", path, action="end the session", attempts=attempts)
        except ServiceError as error:
            if error.status != 404:
                log.warning("%s", error)
                return
        except ForgeError as error:
            log.warning("%s", error)
            return
        self._file.clear()

    def _current(self) -> Session:
        if self._session is None:
            raise ForgeError("there is no session with the scale set", where=self._service.site.web)
        return self._session

    def _with_token(
        self,
        method: str,
        suffix: str,
        query: Mapping[str, str],
        extra: Mapping[str, str] | None = None,
    ) -> Reply:
        """With a new token when this one is refused, once."""
        reply = self._at_queue(method, suffix, query, extra or {})
        if reply.status != 401:
            return reply
        self.refresh()
        return self._at_queue(method, suffix, query, extra or {})

    def _at_queue(
        self, method: str, suffix: str, query: Mapping[str, str], extra: Mapping[str, str]
    ) -> Reply:
        current = self._current()
        parts = urlsplit(current.queue_url)
        known = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **query}
        path = parts.path.rstrip("/") + suffix
        url = urlunsplit((parts.scheme, parts.netloc, path, urlencode(known), ""))
        headers = {**self._headers(current), **extra}
        return self._polls.exchange(method, url, headers)

    def _acquired(self, current: Session, request_ids: Sequence[int]) -> Reply:
        return self._service.call_with(
            f"Bearer {current.token}",
            "POST",
            f"{_SETS}/{current.scale_set:d}/acquirejobs",
            list(request_ids),
        )

    def _headers(self, current: Session) -> dict[str, str]:
        return {
            "Accept": f"application/json; api-version={API_VERSION}",
            "Authorization": f"Bearer {current.token}",
            "User-Agent": self._service.user_agent(),
        }

    def _session_of(self, reply: Reply, scale_set: int) -> Session:
        found: Mapping[str, Any] = reply.object()
        session_id, token = found.get("sessionId"), found.get("messageQueueAccessToken")
        if not found.get("messageQueueUrl"):  # so it is told of a scale set that was deleted
            raise GoneError("the scale set has no queue")
        url = checked_url(found.get("messageQueueUrl"), self._service.site)
        is_token = isinstance(token, str) and token.isascii() and token.isprintable() and token
        if not is_token or not isinstance(session_id, str) or not _is_id(session_id):
            raise ForgeError("the answer has no usable session", where=reply.url)
        statistics = Statistics.of(found.get("statistics"))
        return Session(scale_set, session_id, url, str(token), statistics)


def _gone_or(error: ServiceError) -> Exception:
    is_gone = error.status == 404 or error.is_a("RunnerScaleSetNotFoundException")
    return GoneError(error.message) if is_gone else error


def _is_id(text: str) -> bool:
    return 0 < len(text) <= 100 and text.isascii() and text.replace("-", "").isalnum()


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
