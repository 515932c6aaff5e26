"""Why a job failed, in GitLab's words: they drive `retry:when` in `.gitlab-ci.yml`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from smidr_ci.errors import FailureKind

__all__ = ["CANCELED", "SYSTEM", "TIMEOUT", "reason_for", "supported_reason"]

SCRIPT: Final = "script_failure"
SYSTEM: Final = "runner_system_failure"
TIMEOUT: Final = "job_execution_timeout"
CANCELED: Final = "job_canceled"

_ALWAYS: Final = frozenset({SCRIPT, SYSTEM, TIMEOUT})
# GitLab's own mapping for servers that don't know a reason.
_INSTEAD: Final = {
    "image_pull_failure": SYSTEM,
    "runner_configuration_error": SCRIPT,
    "runner_external_dependency_failure": SYSTEM,
    "": SCRIPT,
}
_BY_KIND: Final = {
    FailureKind.IMAGE: "image_pull_failure",
    FailureKind.TIMEOUT: TIMEOUT,
    FailureKind.CANCELLED: CANCELED,
}


def reason_for(kind: FailureKind | None) -> str:
    """The reason for a failure of this kind; the host's faults are never the script's."""
    if kind is None:
        return SCRIPT
    return _BY_KIND.get(kind) or (SYSTEM if kind.is_infrastructure else SCRIPT)


def supported_reason(reason: str, known: Collection[str]) -> str:
    """The reason itself when the server knows it (`features.failure_reasons`), else the nearest."""
    if reason in _ALWAYS or reason in known:
        return reason
    return _INSTEAD.get(reason, "unknown_failure")
