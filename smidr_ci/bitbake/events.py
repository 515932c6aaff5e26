"""Read `events.jsonl`, which the driver and the UI module write inside the container.

Any recipe of the build could write there as well: what is not a record is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from smidr_ci.files import open_untrusted

__all__ = ["MAX_LINE_BYTES", "Event", "EventReader"]

Event = Mapping[str, Any]
"""One record: `t` (Unix time), `event` (its kind), and the fields of `inside/translate.py`."""

MAX_LINE_BYTES: Final = 1024**2
_CHUNK_BYTES: Final = 256 * 1024
_AT_ONCE: Final = 16 * 1024**2


class EventReader:
    """Reads a growing file by offset; memory does not grow with it.

    `offset` is behind the last whole line that was read: hand it to a new reader to go on there.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset
        self._skipping = False

    def read(self) -> list[Event]:
        """The records that are new since the last call, at most what 16 MiB hold.

        A file that is missing, or is no regular file, has none.
        """
        return list(self._records(_AT_ONCE))

    def drain(self) -> Iterator[Event]:
        """All records up to the end of the file as it is now, one by one."""
        while events := self.read():
            yield from events

    def _records(self, limit: int) -> Iterator[Event]:
        for line in self._lines(limit):
            record = _parse(line)
            if record is not None:
                yield record

    def _lines(self, limit: int) -> Iterator[bytes]:
        """Whole lines without their end; an oversized one is left out."""
        try:
            file = open_untrusted(self._path)
        except OSError:
            return
        with file:
            file.seek(self.offset)
            rest, taken = b"", 0
            while taken < limit and (chunk := file.read(_CHUNK_BYTES)):
                taken += len(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield from self._whole(line)
                if len(rest) > MAX_LINE_BYTES:
                    self._skipping, self.offset, rest = True, self.offset + len(rest), b""

    def _whole(self, line: bytes) -> Iterator[bytes]:
        self.offset += len(line) + 1
        if self._skipping:
            self._skipping = False
        elif len(line) <= MAX_LINE_BYTES:
            yield line


def _parse(line: bytes) -> Event | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(record, dict) and isinstance(record.get("event"), str):
        return record
    return None
