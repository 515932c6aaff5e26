"""What the runner itself writes into a trace: coloured lines, and sections that fold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.forges.gitlab.trace import OUTPUT, Trace
from smidr_ci.text import printable

__all__ = ["TraceLog"]

_CLEAR: Final = "\x1b[0K"
_RESET: Final = "\x1b[0;m"
_CYAN: Final = "\x1b[36;1m"
_GREEN: Final = "\x1b[32;1m"
_YELLOW: Final = "\x1b[0;33m"
_RED: Final = "\x1b[31;1m"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]")


class TraceLog:
    """Implements `ports.JobLog` on a trace. Texts may be strangers': they are made harmless."""

    def __init__(self, trace: Trace, clock: Clock, *, has_sections: bool) -> None:
        self._trace = trace
        self._clock = clock
        self._has_sections = has_sections

    def __call__(self, text: str) -> None:
        """A plain line, or several."""
        self._line(text, _CLEAR, "")

    def info(self, text: str) -> None:
        """A green line."""
        self._line(text, _GREEN, _RESET)

    def warning(self, text: str) -> None:
        """A yellow line."""
        self._line(f"WARNING: {text}", _YELLOW, _RESET)

    def error(self, text: str) -> None:
        """A red line."""
        self._line(f"ERROR: {text}", _RED, _RESET)

    def result(self, text: str, *, succeeded: bool) -> None:
        """The last line of a job, which passes any limit."""
        self._line(text, _GREEN if succeeded else _RED, _RESET, is_needed=True)

    def needed(self, text: str) -> None:
        """Lines that the reader must see, whatever the limit."""
        self._line(text, _CLEAR, "", is_needed=True)

    def command(self, text: str) -> None:
        """A command of the script, before it runs."""
        first, *more = printable(text, keep_newlines=True).split("\n")
        note = " # collapsed multi-line command" if any(line.strip() for line in more) else ""
        self._line(f"$ {first}{note}", _GREEN, _RESET)

    def output(self, data: bytes, **marks: int) -> None:
        """What a command printed; `marks` say how far it was read."""
        self._trace.write(OUTPUT, data, **marks)

    @contextmanager
    def section(self, name: str, header: str = "", *, is_collapsed: bool = False) -> Iterator[None]:
        """Fold what is written inside; its header is the line that stays."""
        self.open_section(name, header, is_collapsed=is_collapsed)
        try:
            yield
        finally:
            self._trace.end_output()
            self.close_section(name)

    def open_section(self, name: str, header: str = "", *, is_collapsed: bool = False) -> None:
        """Begin a section that another call closes, maybe of another process."""
        start = ""
        if self._has_sections:
            options = "[collapsed=true]" if is_collapsed else ""
            start = f"section_start:{self._now}:{_as_name(name)}{options}\r{_CLEAR}"
        shown = printable(header)
        if header:
            start += f"{_CLEAR}{_CYAN}{shown}{_RESET}{_RESET}"
        if start:
            self._trace.write_line(f"{start}\n".encode())

    def close_section(self, name: str) -> None:
        """End a section."""
        if self._has_sections:
            end = f"section_end:{self._now}:{_as_name(name)}\r{_CLEAR}\n"
            self._trace.write_line(end.encode(), is_needed=True)

    @property
    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    def _line(self, text: str, before: str, after: str, *, is_needed: bool = False) -> None:
        shown = printable(text, keep_newlines=True).rstrip("\n")
        lines = "".join(f"{before}{line}{after}\n" for line in shown.split("\n"))
        self._trace.write_line(lines.encode(), is_needed=is_needed)


def _as_name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text)[:100]
