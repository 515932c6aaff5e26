"""Texts cut to what GitHub takes.

GitHub speaks of characters for some limits and of bytes for others; bytes of UTF-8 satisfy both.
"""

from __future__ import annotations

from typing import Final

__all__ = ["OUTPUT_BYTES", "clip_bytes"]

OUTPUT_BYTES: Final = 65_535
"""Of a check run's summary and text each."""


def clip_bytes(text: str, limit: int, note: str = " ...") -> str:
    """At most `limit` bytes of UTF-8, never half a character; a cut ends with the note."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode()
    room = max(limit - len(note.encode()), 0)
    return raw[:room].decode("utf-8", "ignore") + note
