"""Judge how a build ended: completed, failed with one kind and one sentence, or cancelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from smidr_ci.builds.execute import Execution
from smidr_ci.builds.model import BuildState
from smidr_ci.cancel import CancelToken
from smidr_ci.diagnosis.model import Category, Finding
from smidr_ci.errors import FailureKind, SmidrError

__all__ = ["Outcome", "judge"]

_KINDS: Final[Mapping[Category, FailureKind]] = MappingProxyType(
    {
        Category.FETCH: FailureKind.FETCH,
        Category.DISK_SPACE: FailureKind.DISK,
        Category.OUT_OF_MEMORY: FailureKind.OUT_OF_MEMORY,
    }
)


@dataclass(frozen=True)
class Outcome:
    """The final state of a build, or of one attempt."""

    state: BuildState
    exit_code: int
    kind: FailureKind | None = None
    message: str = ""

    @classmethod
    def of(cls, error: SmidrError) -> Outcome:
        """A failure that was no failure of BitBake's."""
        return cls(BuildState.FAILED, error.kind.exit_code, error.kind, str(error))


def judge(execution: Execution, cancel: CancelToken, findings: Sequence[Finding]) -> Outcome:
    """What a run of BitBake comes to.

    A cancel wins over what BitBake says of it: "failed" after an interrupt is no failure.
    """
    result = execution.result
    code = execution.exit.code if result is None else result.exit_code
    if code == 0 and execution.exit.code == 0 and result is not None and not result.interrupted:
        return Outcome(BuildState.COMPLETED, 0)
    if cancel.is_cancelled and cancel.kind is FailureKind.CANCELLED:
        return Outcome(BuildState.CANCELLED, code, FailureKind.CANCELLED, cancel.reason)
    kind, message = _why(execution, findings)
    return Outcome(BuildState.FAILED, code or 1, kind, message)


def _why(execution: Execution, findings: Sequence[Finding]) -> tuple[FailureKind, str]:
    result = execution.result
    cause = findings[0] if findings else None
    if execution.is_overdue or (result is not None and result.timed_out):
        return FailureKind.TIMEOUT, "The build ran longer than its time limit and was stopped."
    if execution.exit.oom_killed or (result is not None and result.oom_kills):
        return FailureKind.OUT_OF_MEMORY, _memory_message(cause)
    if result is None or result.interrupted:
        return FailureKind.INTERRUPTED, (
            f"The build's container was stopped from outside, with exit code {execution.exit.code}:"
            " by hand, or with the engine or the host. Nothing is wrong with the project."
        )
    if cause is None:
        ended = f"BitBake ended with exit code {result.exit_code}."
        return FailureKind.BUILD, result.error or ended
    return _KINDS.get(cause.category, FailureKind.BUILD), _headline(cause)


def _memory_message(cause: Finding | None) -> str:
    victim = f" while {_place(cause)} ran" if cause is not None and cause.recipe else ""
    return (
        f"The kernel killed a process for want of memory{victim}."
        " Raise container.memory, or lower build.bb_number_threads and build.parallel_make."
    )


def _headline(cause: Finding) -> str:
    place = _place(cause)
    return f"{place}: {cause.message}" if place else cause.message


def _place(cause: Finding) -> str:
    return ":".join(part for part in (cause.recipe, cause.task) if part)
