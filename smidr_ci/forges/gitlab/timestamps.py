"""A time before every line of a trace, as GitLab's log page understands it (FF_TIMESTAMPS)."""

from __future__ import annotations

import codecs
from typing import Any, Final

from smidr_ci.clock import Clock

__all__ = ["LONGEST_LINE", "Timestamper"]

LONGEST_LINE: Final = 8 * 1024


class Timestamper:
    """Text of one stream to lines with a 32-byte head; invalid UTF-8 becomes U+FFFD.

    Without `is_stamping` only the latter. Not thread-safe.
    """

    def __init__(self, clock: Clock, stream: int, *, is_stamping: bool = True) -> None:
        self._clock = clock
        self._tag = f"{stream:02x}O"
        self._is_stamping = is_stamping
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._continues = False

    def feed(self, data: bytes, *, is_last: bool = False) -> bytes:
        """All that is complete by now."""
        text = self._decoder.decode(data, is_last)
        if not self._is_stamping:
            return text.encode()
        *whole, rest = (self._line + text).split("\n")
        shown = [piece for line in whole for piece in self._pieces(line)]
        # Half a character may be missing to eight KiB: a line is split where one ends.
        while len(rest) * 4 > LONGEST_LINE and len(rest.encode()) > LONGEST_LINE:
            head = rest.encode()[:LONGEST_LINE].decode("utf-8", "ignore")
            shown.append(self._stamped(head, is_open=True))
            rest = rest[len(head) :]
        if "\r" in rest or (is_last and rest):
            shown.append(self._stamped(rest, is_open=not is_last))
            rest = ""
        self._line = rest
        return "".join(shown).encode()

    def end(self) -> bytes:
        """What waited, with a line's end; the next text begins a line."""
        shown = self.feed(b"", is_last=True)
        self._decoder.reset()
        self._continues = False
        return shown

    def dump(self) -> dict[str, Any]:
        """What it holds, for JSON."""
        pending = self._decoder.getstate()[0].decode("latin-1")
        return {"line": self._line, "bytes": pending, "continues": self._continues}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `dump` gave."""
        self._line, self._continues = state["line"], state["continues"]
        self._decoder.setstate((state["bytes"].encode("latin-1"), 0))

    def _pieces(self, line: str) -> list[str]:
        pieces = []
        while len(line) * 4 > LONGEST_LINE and len(line.encode()) > LONGEST_LINE:
            head = line.encode()[:LONGEST_LINE].decode("utf-8", "ignore")
            pieces.append(self._stamped(head, is_open=True))
            line = line[len(head) :]
        return [*pieces, self._stamped(line, is_open=False)]

    def _stamped(self, text: str, *, is_open: bool) -> str:
        moment = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mark = "+" if self._continues else " "
        self._continues = is_open
        return f"{moment} {self._tag}{mark}{text}\n"
