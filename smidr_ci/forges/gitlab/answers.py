"""Answers of the runner API, sorted by what to do next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.transport import Reply
from smidr_ci.text import printable

__all__ = [
    "MAX_INTERVAL_S",
    "JobReply",
    "Poll",
    "PollOutcome",
    "Verdict",
    "expiry_of",
    "job_reply_of",
    "poll_of",
]

MAX_INTERVAL_S: Final = 900.0
_RANGE_END: Final = re.compile(r"^\s*\d+-(\d{1,18})\s*$", re.ASCII)


class PollOutcome(StrEnum):
    """What came of asking for a job."""

    JOB = "job"
    NOTHING = "nothing"
    CONFLICT = "conflict"
    """Somebody else got it."""
    FORBIDDEN = "forbidden"
    """The runner's token is unknown, deleted or expired."""
    FAILED = "failed"
    """The server or the way to it is in trouble; polling goes on."""
    MISCONFIGURED = "misconfigured"
    """Certificate or address: polling again can't help."""


@dataclass(frozen=True)
class Poll:
    """The answer to one POST jobs/request."""

    outcome: PollOutcome
    payload: Any = field(default=None, repr=False)
    message: str = ""
    was_retried: bool = False
    correlation_id: str = ""

    @property
    def is_healthy(self) -> bool:
        """Whether the runner and its token are all right, as far as this answer shows."""
        return self.outcome not in {PollOutcome.FORBIDDEN, PollOutcome.MISCONFIGURED}


class Verdict(StrEnum):
    """What an answer about a job means."""

    OK = "ok"
    ACCEPTED = "accepted"
    """Final state taken, trace not yet stored: send it again after the interval."""
    RANGE = "range"
    """The trace is at another offset; go on at `JobReply.offset`."""
    TRACE_LOST = "trace-lost"
    """Send the trace from its beginning."""
    NOT_FOUND = "not-found"
    ABORT = "abort"
    """The job is no longer ours."""
    FAILED = "failed"
    """Try again later."""


@dataclass(frozen=True)
class JobReply:
    """The answer to a PUT or PATCH about a job."""

    verdict: Verdict
    is_canceling: bool = False
    """Somebody cancelled: stop, but run after_script and report."""
    interval_s: float | None = None
    """How long to wait before the next one; None when the server does not say."""
    offset: int = 0
    message: str = ""
    status: int = 0


_PUT_VERDICTS: Final = {
    200: Verdict.OK,
    202: Verdict.ACCEPTED,
    403: Verdict.ABORT,
    404: Verdict.NOT_FOUND,
    412: Verdict.TRACE_LOST,
}
_PATCH_VERDICTS: Final = {
    202: Verdict.OK,
    403: Verdict.ABORT,
    404: Verdict.NOT_FOUND,
    416: Verdict.RANGE,
}
_POLL_OUTCOMES: Final = {
    204: PollOutcome.NOTHING,
    403: PollOutcome.FORBIDDEN,
    409: PollOutcome.CONFLICT,
}


def poll_of(reply: Reply) -> Poll:
    """What came of POST jobs/request."""
    outcome = _POLL_OUTCOMES.get(reply.status, PollOutcome.FAILED)
    payload, message = None, f"{reply.status} {reply.message}".strip()
    if reply.status == 201:
        try:
            payload, outcome = reply.json(), PollOutcome.JOB
        except ForgeError as error:
            message = str(error)
    return Poll(outcome, payload, message, reply.attempts > 1, reply.correlation_id)


def job_reply_of(reply: Reply, end: int, *, is_patch: bool) -> JobReply:
    """What a PUT or PATCH came to; `end` is the offset behind what was sent."""
    job_status = reply.headers.get("Job-Status", "").strip().lower()
    verdict = (_PATCH_VERDICTS if is_patch else _PUT_VERDICTS).get(reply.status, Verdict.FAILED)
    if job_status in {"canceled", "failed"}:
        verdict = Verdict.ABORT
    return JobReply(
        verdict,
        is_canceling=job_status == "canceling",
        interval_s=_interval(reply),
        offset=_range_end(reply) if verdict is Verdict.RANGE else end,
        message=_told(reply, job_status),
        status=reply.status,
    )


def _interval(reply: Reply) -> float | None:
    text = reply.headers.get("X-GitLab-Trace-Update-Interval", "").strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) == 0:
        return None
    return min(float(text), MAX_INTERVAL_S)


def _range_end(reply: Reply) -> int:
    found = _RANGE_END.match(reply.headers.get("Range", ""))
    return int(found[1]) if found else 0


def _told(reply: Reply, job_status: str) -> str:
    parts = [str(reply.status), reply.message, job_status and f"job is {printable(job_status)}"]
    return " ".join(part for part in parts if part)


def expiry_of(answer: Mapping[str, Any]) -> datetime | None:
    """When the token of an answer expires; None for never, or when it makes no sense."""
    text = answer.get("token_expires_at")
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
