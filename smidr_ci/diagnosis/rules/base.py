"""What a rule is. Rules are data; `docs/diagnosis.md` says how to add one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from smidr_ci.diagnosis.model import Category

__all__ = ["Rule", "Weight", "Where"]


class Weight(IntEnum):
    """How well a line explains a failure; of several, the highest wins, then the earliest."""

    FRAME = 10  # says only that a task failed
    ECHO = 20  # a tool repeats another tool's failure: make's "Error 2"
    SIGN = 40  # something is odd, not necessarily the reason
    LIKELY = 50
    CAUSE = 60  # the usual case
    DETAIL = 70  # explains a CAUSE line of the same failure
    ROOT = 80  # explains everything else: killed for memory, disk full


class Where(IntEnum):
    """Which lines a rule looks at."""

    ANY = 0
    MESSAGE = 1  # text of an ERROR, FATAL or WARNING line of BitBake
    OUTPUT = 2  # what a tool printed


@dataclass(frozen=True)
class Rule:
    """One kind of line, and what it means.

    `pattern` is searched in the line without its `ERROR: label do_task: ` or `| `. Named groups
    `recipe version task file line column` fill the finding; any group can be used in `hint` as
    `{name}`. At least one of `needles` must be in the line, so that most rules cost nothing.
    """

    name: str
    category: Category
    pattern: str
    needles: tuple[str, ...]
    weight: int = Weight.CAUSE
    hint: str = ""
    retryable: bool = False
    where: Where = Where.ANY
    tasks: tuple[str, ...] = ()
    """Only in these tasks (prefixes such as `do_package`); empty for all."""
    needs_task: bool = False
    """With `tasks`: not even tried while the task is unknown."""
    by_task: bool = False
    """The task decides on the category (a missing file in do_install is an install failure)."""
    next_line: str = ""
    """The message is the first following line that matches this, if there is one."""
    next_within: int = 12
    also: str = ""
    """Searched in the following lines only for groups, such as `asker`."""
    is_generic: bool = False
    """Any other rule that matches is better, whatever its weight."""
    stands_alone: bool = False
    """A failure of its own (parsing, server, providers), not a line of a task's failure."""
    cause_visible: bool = True
    warning: bool = False
    """Also worth telling when it only is a WARNING."""

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern, compiled when a line first needs it."""
        return re.compile(self.pattern)

    @cached_property
    def follow(self) -> re.Pattern[str] | None:
        """The pattern of `next_line`, if there is one."""
        return re.compile(self.next_line) if self.next_line else None

    @cached_property
    def beside(self) -> re.Pattern[str] | None:
        """The pattern of `also`, if there is one."""
        return re.compile(self.also) if self.also else None
