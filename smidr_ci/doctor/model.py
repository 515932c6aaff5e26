"""A check and what it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Check", "CheckResult", "Status", "failed", "fine", "warned"]


class Status(StrEnum):
    """How bad it is: nothing to do, builds may suffer, builds can't work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class CheckResult:
    """One line of the doctor's report."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    """What to run or to change; empty when nothing is wrong."""


@dataclass(frozen=True)
class Check:
    """Something to look at; `run` may take its time, the caller has a limit."""

    name: str
    run: Callable[[], Sequence[CheckResult]]
    if_hung: Status = Status.WARN
    """What it means when `run` does not come back."""


def fine(name: str, detail: str) -> CheckResult:
    """A result with nothing to do."""
    return CheckResult(name, Status.OK, detail)


def warned(name: str, detail: str, remedy: str) -> CheckResult:
    """A result that builds may suffer from."""
    return CheckResult(name, Status.WARN, detail, remedy)


def failed(name: str, detail: str, remedy: str) -> CheckResult:
    """A result that keeps builds from working."""
    return CheckResult(name, Status.FAIL, detail, remedy)
