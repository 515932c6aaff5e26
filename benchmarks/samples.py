"""Repeated measurements: taken in turns, so that a busy machine slows all contenders alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Bound", "Comparison", "Goal", "Samples", "in_turns", "table"]


@dataclass(frozen=True)
class Samples:
    """Seconds (or another unit) of each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Median and the range around it."""
        if len(self.values) == 1:
            return f"{self.median:,.2f}"
        return f"{self.median:,.2f} ({min(self.values):,.2f}-{max(self.values):,.2f})"


@dataclass(frozen=True)
class Goal:
    """A bound on smidr's median: beyond the baseline's, or as a multiple of it."""

    at_most_longer_s: float | None = None
    at_most_ratio: float | None = None

    def is_met(self, baseline: Samples, smidr: Samples) -> bool:
        """Whether both bounds hold."""
        difference, ratio = smidr.median - baseline.median, smidr.median / baseline.median
        return (self.at_most_longer_s is None or difference <= self.at_most_longer_s) and (
            self.at_most_ratio is None or ratio <= self.at_most_ratio
        )

    def __str__(self) -> str:
        """Such as `<= +1.5 s`."""
        if self.at_most_longer_s is not None:
            return f"<= +{self.at_most_longer_s} s"
        return f"<= {self.at_most_ratio} x"


@dataclass(frozen=True)
class Comparison:
    """One row: smidr against a named baseline of the same run."""

    what: str
    baseline_name: str
    baseline: Samples
    smidr: Samples
    goal: Goal | None = None

    @property
    def is_met(self) -> bool | None:
        """None without a goal."""
        return self.goal.is_met(self.baseline, self.smidr) if self.goal else None

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        verdict = {True: "met", False: "NOT MET", None: ""}[self.is_met]
        return (
            self.what,
            f"{self.baseline_name}: {self.baseline}",
            str(self.smidr),
            f"{self.smidr.median - self.baseline.median:+.2f}",
            f"{self.smidr.median / self.baseline.median:.2f}",
            str(self.goal or ""),
            verdict,
        )

    def to_dict(self) -> dict[str, Any]:
        """The row for programs."""
        return {
            "what": self.what,
            "baseline": {"name": self.baseline_name, "values": self.baseline.values},
            "smidr": {"values": self.smidr.values},
            "ratio": self.smidr.median / self.baseline.median,
            "difference": self.smidr.median - self.baseline.median,
            "goal": str(self.goal) if self.goal else None,
            "is_met": self.is_met,
        }


@dataclass(frozen=True)
class Bound:
    """One row without a baseline: a figure of smidr's, and what it must keep to."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the figure keeps to its limit."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        goal, verdict = "", ""
        if self.at_most is not None:
            goal = f"<= {self.at_most:,g}"
        elif self.at_least is not None:
            goal = f">= {self.at_least:,g}"
        if goal:
            verdict = "met" if self.is_met else "NOT MET"
        return self.what, "", f"{_shown(self.value)} {self.unit}", "", "", goal, verdict

    def to_dict(self) -> dict[str, Any]:
        """The row for programs."""
        return {**asdict(self), "is_met": self.is_met}


def _shown(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def in_turns(
    contenders: Mapping[str, Callable[[], float]], rounds: int, note: Callable[[str], None]
) -> dict[str, Samples]:
    """Run each contender once a round, in another order each time; a contender times itself."""
    names = list(contenders)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            values[name].append(contenders[name]())
            note(f"round {number + 1}/{rounds}: {name}: {values[name][-1]:.2f} s")
    return {name: Samples(tuple(found)) for name, found in values.items()}


def table(found: Sequence[Comparison | Bound]) -> str:
    """All rows, aligned; medians with their range, in seconds."""
    head = ("what", "baseline [s]", "smidr [s]", "diff", "ratio", "goal", "")
    rows = [head, *(item.cells() for item in found)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(head))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
