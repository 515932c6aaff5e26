"""Follows a job's build into its trace: stages as sections, notes, the console, the result."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from smidr_ci.bitbake.progress import render_line
from smidr_ci.builds.logbook import CHUNK_BYTES, LogReader
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import BuildService, BuildView
from smidr_ci.builds.worth import work_sentence
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.clock import Clock
from smidr_ci.errors import FailureKind
from smidr_ci.forges.gitlab.joblog import TraceLog
from smidr_ci.forges.gitlab.trace import OUTPUT, Trace

__all__ = ["BuildFollower", "tell_result"]

_LOOK_S: Final = 1.0
_PROGRESS_S: Final = 10.0
_LONGEST_LINE: Final = 64 * 1024
_FINDINGS: Final = 10
_HEADERS: Final = {
    BuildState.QUEUED: "Waiting for a place on this host",
    BuildState.PREPARING: "Preparing the build",
    BuildState.BUILDING: "Building with BitBake",
    BuildState.EXTRACTING: "Collecting artifacts",
}
_STAGES: Final = tuple(_HEADERS)
# What BitBake says of each of thousands of tasks; the progress line sums it up.
_ROUTINE: Final = re.compile(
    rb"NOTE: (?:Running (?:setscene )?task \d+ of \d+ "
    rb"|recipe \S+: task do_\S+: (?:Started|Succeeded))"
)


class BuildFollower:
    """Copies what a build says into a trace; what was copied is known after a restart too."""

    def __init__(
        self,
        service: BuildService,
        build_id: str,
        console: Path,
        trace: Trace,
        log: TraceLog,
        clock: Clock,
    ) -> None:
        self._service = service
        self._build_id = build_id
        self._console = console
        self._trace = trace
        self._log = log
        self._clock = clock
        self._notes = 0
        self._waiting_for = ""
        self._progress = ""
        self._progress_at = float("-inf")
        self._begun = clock.monotonic()

    def run(self, stop: CancelToken, leave: threading.Event) -> BuildRecord | None:
        """Follow until the build is over, or until told to leave it alone (None then).

        A `stop` is passed on to the build. Raises `UsageError` when there is no such build.
        """
        changed = threading.Event()
        end_watch = self._service.subscribe(self._build_id, changed.set)
        asked = CancelLevel.NONE
        try:
            with LogReader(self._console) as reader:
                while True:
                    changed.clear()
                    if leave.is_set():
                        return None
                    asked = self._pass_on(stop, asked)
                    view = self._service.view(self._build_id)
                    self._show(view)
                    self._copy(reader, is_last=view.record.state.is_final)
                    if view.record.state.is_final:
                        self._enter(None)
                        return view.record
                    self._wait(changed, stop, asked)
        finally:
            end_watch()

    def _wait(self, changed: threading.Event, stop: CancelToken, asked: CancelLevel) -> None:
        # Conflated: a build that changes all the time is looked at a few times in a second.
        if asked < stop.level:
            return
        changed.wait(_LOOK_S)
        stop.wait(0.1, CancelLevel(min(asked + 1, CancelLevel.KILL)))

    def _pass_on(self, stop: CancelToken, asked: CancelLevel) -> CancelLevel:
        if stop.level > asked:
            self._service.cancel(self._build_id, stop.reason, stop.level)
            return stop.level
        return asked

    def _show(self, view: BuildView) -> None:
        state = view.record.state
        if not state.is_final:
            self._enter(state)
        for note in view.notes:
            if note.number > self._notes:
                self._notes = note.number
                self._log(note.text)
        if view.waiting_for and view.waiting_for != self._waiting_for:
            self._log(view.waiting_for)
        self._waiting_for = view.waiting_for
        if view.progress is not None and state is BuildState.BUILDING:
            now = self._clock.monotonic()
            line = render_line(view.progress, now - self._begun)
            if line != self._progress and now - self._progress_at >= _PROGRESS_S:
                self._progress, self._progress_at = line, now
                self._log(line)

    def _enter(self, state: BuildState | None) -> None:
        """Close the section of the stage before, open this one's."""
        number = 0 if state is None else _STAGES.index(state) + 1
        current = self._trace.mark("stage")
        if number == current:
            return
        if current:
            self._trace.end_output()
            self._log.close_section(_section(_STAGES[current - 1]))
        if state is not None:
            self._log.open_section(_section(state), _HEADERS[state])
        self._trace.set_mark("stage", number)

    def _copy(self, reader: LogReader, *, is_last: bool) -> None:
        while True:
            offset = self._trace.mark("console")
            chunk = reader.read(offset, CHUNK_BYTES)
            if not chunk:
                if reader.was_replaced(offset):
                    reader.close()
                    self._trace.set_mark("console", 0)
                    continue
                return
            end = chunk.rfind(b"\n") + 1
            if not end and (is_last or len(chunk) >= _LONGEST_LINE):
                end = len(chunk)
            if not end:
                return
            shown = _without_routine(chunk[:end])
            self._trace.write(OUTPUT, shown, console=offset + end)


def _section(state: BuildState) -> str:
    return f"smidr_{state}".replace("-", "_")


def _without_routine(chunk: bytes) -> bytes:
    if b"NOTE: " not in chunk:
        return chunk
    lines = chunk.splitlines(keepends=True)
    return b"".join(line for line in lines if not _ROUTINE.match(line))


def tell_result(log: Callable[[str], None], record: BuildRecord) -> None:
    """The build's end in a few lines: what failed and why, or what there is now."""
    tasks = record.tasks
    if "total" in tasks:
        done = f"{tasks.get('executed', 0)} executed, {tasks.get('from_sstate', 0)} from sstate"
        log(f"Tasks: {tasks['total']}: {done}, {tasks.get('failed', 0)} failed")
    if record.work is not None:
        log(f"Cost: {work_sentence(record.work)}")
    if record.state is BuildState.COMPLETED:
        total = sum(item.size_bytes for item in record.artifacts)
        log(f"Build {record.build_id}: {len(record.artifacts)} artifacts, {total} bytes")
        return
    log(f"Build {record.build_id}: {record.state}")
    for finding in record.findings[:_FINDINGS]:
        for line in _finding_lines(finding):
            log(line)
    more = len(record.findings) - _FINDINGS
    if more > 0:
        log(f"and {more} more findings")
    has_told = bool(record.findings) and record.failure_kind in {
        FailureKind.BUILD,
        FailureKind.FETCH,
    }
    if not has_told and record.failure_message:
        log(record.failure_message)


def _finding_lines(finding: Mapping[str, Any]) -> list[str]:
    subject = " ".join(str(finding[key]) for key in ("recipe", "task") if finding.get(key))
    head = f"{finding.get('severity', 'error')}: {finding.get('category', '')}  {subject}"
    lines = [head.rstrip(), f"  {finding.get('message', '')}"]
    if finding.get("file"):
        line = f":{finding['line']}" if finding.get("line") else ""
        lines.append(f"  in {finding['file']}{line}")
    if finding.get("hint"):
        lines.append(f"  {finding['hint']}")
    return lines
