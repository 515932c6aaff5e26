"""What is known of tasks: those that run, those that failed, those restored from sstate."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RunningTask", "SstateSummary", "TaskFailure"]


@dataclass(frozen=True)
class SstateSummary:
    """OE-Core's "Sstate summary" of one run; dunfell counts mirrors as local."""

    wanted: int
    local: int
    mirrors: int
    missed: int
    current: int


@dataclass(frozen=True)
class RunningTask:
    """A task that a worker runs now."""

    pn: str
    task: str
    started: float
    """Unix time inside the container."""
    mc: str = ""

    @property
    def label(self) -> str:
        """`recipe:task`, with the multiconfig in front when there is one."""
        return f"{f'mc:{self.mc}:' if self.mc else ''}{self.pn}:{self.task}"


@dataclass(frozen=True)
class TaskFailure:
    """A task that failed; a setscene task that failed is none, since the real task then runs."""

    task: str
    file: str
    """Recipe file in the container; may begin with `virtual:native:`."""
    pn: str = ""
    """Recipe; empty when the worker died before it could say."""
    pv: str = ""
    mc: str = ""
    exit_code: int | None = None
    logfile: str = ""
    """Container path of the task's log; empty when there is none."""
