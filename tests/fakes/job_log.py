"""A job's log that a test can read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["RecordedLog"]


class RecordedLog:
    """Implements `forges.gitlab.ports.JobLog`; `lines` has all that was written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.sections: list[str] = []
        self.data = b""
        self.marks: dict[str, int] = {}

    def __call__(self, text: str) -> None:
        self.lines.append(text)

    def info(self, text: str) -> None:
        self.lines.append(text)

    def warning(self, text: str) -> None:
        self.lines.append(f"WARNING: {text}")

    def error(self, text: str) -> None:
        self.lines.append(f"ERROR: {text}")

    def output(self, data: bytes, **marks: int) -> None:
        self.marks |= marks
        self.data += data

    @contextmanager
    def section(self, name: str, header: str = "", *, is_collapsed: bool = False) -> Iterator[None]:
        self.sections.append(name)
        self.lines.append(header)
        yield
        del is_collapsed

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
