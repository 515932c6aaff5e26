"""Reads one log and sorts what it finds into failures and warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from smidr_ci.diagnosis.evidence import Evidence, Failure
from smidr_ci.diagnosis.frames import (
    Head,
    TaskRef,
    head_of,
    is_frame_message,
    running_function,
    task_reference,
)
from smidr_ci.diagnosis.match import (
    ECHO_RULE,
    FRAME_RULE,
    MESSAGE_RULE,
    NAMED_RULE,
    PARSE_RULE,
    RETRY_RULE,
    Matched,
    best_match,
    plain,
)
from smidr_ci.diagnosis.model import ExcerptLine
from smidr_ci.diagnosis.names import from_work_path
from smidr_ci.diagnosis.pending import Pending
from smidr_ci.diagnosis.position import source_position
from smidr_ci.diagnosis.reader import Hit, LogReader
from smidr_ci.diagnosis.register import FailureRegister
from smidr_ci.diagnosis.rules.base import Weight
from smidr_ci.diagnosis.standalone import StandaloneFailures
from smidr_ci.diagnosis.summary import SummaryReader

__all__ = ["Collector"]

_MAX_LINES_EACH: Final = 5000
_DECISIVE: Final = (b"ERROR: Task ", b"Logfile of ", b"Killed", b"o space left", b"ummary: ")
_SOURCE_LINE: Final = re.compile(r"^\s{2,60}(?:>\s{1,60})?raise\s")
"""What a traceback shows of the code is no message."""
_PREAMBLES: Final = ("Traceback (most recent", "Server log for this session", "Last ")
"""Messages that only introduce what follows."""
_IMPORTANT: Final = (*_DECISIVE, b"ERROR: ", b"FATAL: ")
_MAX_WARNINGS: Final = 200
_MAX_SEEN: Final = 60_000
_ECHOES: Final = (
    "oe_runmake failed",
    "meson failed",
    "configure failed",
    "bb_fatal",
    "Build failed",
)


class Collector:
    """State of one pass; `register`, `warnings` and `summary` are the result."""

    def __init__(self) -> None:
        self.register = FailureRegister()
        self.warnings: list[tuple[Evidence, Head]] = []
        self.summary = SummaryReader()
        self._alone = StandaloneFailures(self.register.new)
        self._current: Failure | None = None
        self._pending = Pending()
        self._after_warning = False
        self._seen: set[int] = set()
        self._spent: dict[int, int] = {}
        self._log = "console"

    def read(self, reader: LogReader, log: str = "console") -> None:
        """Go through a console log."""
        self._log = log
        for hit in reader:
            key = hash((id(self._current), hit.raw))
            if key in self._seen:
                continue
            if len(self._seen) > _MAX_SEEN:
                self._seen.clear()
            self._seen.add(key)
            if self._may_spend_time_on(hit.raw):
                self._take(hit)
        self.summary.lines += reader.lines
        self.summary.bytes += reader.bytes

    def read_task_log(self, reader: LogReader, log: str) -> None:
        """Go through the log of one task: all of it belongs to that task's failure."""
        self._log = log
        self._flush_pending_alone()
        reference = task_reference(f"Logfile of failure stored in: {log}")
        owner = self.register.owner_of_log(log, reference)
        self._current = owner
        for hit in reader:
            text = hit.text
            found = best_match(hit, head_of(text.body), owner.task)
            if found and found.rule.weight > Weight.FRAME and owner.wants(found.weight):
                owner.add(self._evidence(hit, found, in_block=True))
            elif name := from_work_path(text.body):
                owner.learn(name, exact=False)
        self._current = None

    def finish(self) -> None:
        """Settle what is still open, once all logs are read."""
        self._flush_pending_alone()

    # Lines

    def _may_spend_time_on(self, raw: bytes) -> bool:
        """After thousands of different lines of one failure only decisive ones are looked at."""
        owner = self._current.order if self._current else -1
        spent = self._spent[owner] = self._spent.get(owner, 0) + 1
        if spent <= _MAX_LINES_EACH:
            return True
        words = _IMPORTANT if spent <= 10 * _MAX_LINES_EACH else _DECISIVE
        return any(word in raw for word in words)

    def _take(self, hit: Hit) -> None:
        text = hit.text
        if not text.in_block and self.summary.take(text.body, hit):
            return
        reference = (
            task_reference(text.body) if hit.is_complete or text.body.endswith("'") else None
        )
        if reference and not reference.hint_only:
            self._take_reference(reference, hit)
            if reference.ends or "Logfile of failure" in text.body:
                return
        elif reference:
            is_failure = text.in_block or "ailed" in text.body or " exit " in text.body
            self._take_hint(reference if is_failure else replace(reference, task=""))
        head = head_of(text.body)
        if head and head.level == "DEBUG" and (running := running_function(head.message)):
            self._pending.note_running(running)
        if head and head.level == "OUTPUT":
            self._take_labelled_output(head, hit)
        elif (head and not text.in_block) or (head and head.task and head.level == "ERROR"):
            self._take_message(head, hit)
        else:
            self._take_output(hit, head, in_block=text.in_block)

    def _take_message(self, head: Head, hit: Hit) -> None:
        if head.level in {"NOTE", "DEBUG"}:
            self._after_warning = True
            self._alone.note(head.message)
            if "server" in head.message and "etrying" in head.message and not self.register.all:
                self._pending.hold(self._evidence(hit, plain(RETRY_RULE, hit)))
            return
        self._after_warning = head.level == "WARNING"
        if head.level == "WARNING":
            self._take_warning(head, hit)
            return
        self.summary.errors += 1
        if head.message.startswith(_PREAMBLES):
            return
        found = best_match(hit, head, head.task)
        if head.task:
            self._take_task_message(head, hit, found)
        elif head.recipe_file and (found is None or found.rule.is_generic):
            self._current = self._alone.add(self._evidence(hit, plain(PARSE_RULE, hit)), head)
        elif found and found.rule.stands_alone:
            self._current = self._alone.add(self._evidence(hit, found), head)
        else:
            if found is None or found.rule.is_generic:
                found = _fallback(head, hit)
            self._pending.note(head.name)
            if self._current is None or self._current.category is not None:
                self._current = None
                self._pending.hold(self._evidence(hit, found))
            else:
                self._current.add(self._evidence(hit, found))

    def _take_task_message(self, head: Head, hit: Hit, found: Matched | None) -> None:
        failure = self.register.find(head.name, head.task, head.label)
        if failure is None:
            failure = self.register.new()
        failure.take_head(head)
        found = found or _fallback(head, hit)
        failure.add(self._evidence(hit, found))
        self._current = failure

    def _take_labelled_output(self, head: Head, hit: Hit) -> None:
        found = best_match(hit, head, head.task)
        if found is None:
            return
        failure = self.register.find(head.name, head.task, head.label)
        if failure is None and found.rule.weight >= Weight.CAUSE:
            failure = self.register.new()
            failure.take_head(head)
        if failure is not None and failure.wants(found.weight):
            failure.add(self._evidence(hit, found, in_block=True))

    def _take_warning(self, head: Head, hit: Hit) -> None:
        self.summary.warnings += 1
        found = best_match(hit, head, head.task)
        if found and found.rule.warning and len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append((self._evidence(hit, found), head))

    def _take_output(self, hit: Hit, head: Head | None, *, in_block: bool) -> None:
        current = self._current
        text = hit.text
        if _SOURCE_LINE.match(text.body) or (not in_block and self._alone.continuation(text.body)):
            return
        found = best_match(hit, head, current.task if current else self._pending.task)
        if head and (found is None or found.rule.is_generic):
            found = _echo_or_frame(head, hit) or found
        name = from_work_path(text.body)
        if name and current is None:
            self._pending.note(name)
        if not found:
            return
        item = self._evidence
        belongs = current is not None and current.category is None and not current.ended
        if found.rule.stands_alone and not in_block and not belongs:
            self._current = self._alone.add(item(hit, found), None)
        elif belongs and current is not None:
            if (in_block or not self._after_warning) and current.wants(found.weight):
                current.add(item(hit, found, in_block=in_block))
        elif current is not None and current.category is not None and not in_block:
            if not self._after_warning and current.wants(found.weight):
                current.add(item(hit, found))
        else:
            self._pending.hold(item(hit, found, in_block=in_block))

    # Who failed

    def _take_reference(self, reference: TaskRef, hit: Hit) -> None:
        failure = self.register.find(reference.name, reference.task, None)
        if failure is None:
            failure = self.register.new()
            failure.task = reference.task
        failure.learn(reference.name, exact=True)
        if not failure.evidence:
            failure.add(self._evidence(hit, plain(NAMED_RULE, hit)))
        failure.recipe_file = failure.recipe_file or reference.recipe_file
        failure.task_log = failure.task_log or reference.task_log
        self._pending.give_to(failure, hit.number)
        self._after_warning = False
        failure.ended = reference.ends
        self._current = None if reference.ends else failure

    def _take_hint(self, reference: TaskRef) -> None:
        if self._current is None:
            self._pending.note_reference(reference)
        elif self._current.category is None:
            self._current.learn(reference.name, exact=False)

    def _flush_pending_alone(self) -> None:
        known = [failure for failure in self.register.all if failure.evidence or failure.task]
        items = self._pending.settle(known, is_console=self.summary.is_console)
        if items or (self._pending.task and not known):
            failure = self.register.new()
            failure.task = self._pending.task or self._pending.running
            failure.learn(self._pending.name, exact=False)
            for item in items:
                failure.add(item)
        self._pending.clear()

    def _evidence(self, hit: Hit, found: Matched, *, in_block: bool = False) -> Evidence:
        return Evidence(
            rule=found.rule,
            weight=found.weight,
            message=found.message,
            groups=source_position(hit, found.groups),
            number=found.number,
            offset=found.offset,
            log=self._log,
            in_block=in_block,
            is_error=hit.text.body.startswith(("ERROR:", "FATAL:", "CRITICAL:")),
            excerpt=tuple(_excerpt(hit)),
        )


def _excerpt(hit: Hit) -> Iterator[ExcerptLine]:
    for near in hit.before(3):
        yield ExcerptLine(near.number, near.offset, near.text.shown[:500])
    yield ExcerptLine(hit.number, hit.offset, hit.text.shown[:1000])
    for near in hit.after(6):
        yield ExcerptLine(near.number, near.offset, near.text.shown[:500])


def _fallback(head: Head, hit: Hit) -> Matched:
    known = _echo_or_frame(head, hit)
    return known or plain(MESSAGE_RULE, hit, skip_head=not head.message.strip())


def _echo_or_frame(head: Head, hit: Hit) -> Matched | None:
    if is_frame_message(head.message):
        return plain(FRAME_RULE, hit)
    return plain(ECHO_RULE, hit) if head.message.startswith(_ECHOES) else None
