"""Reads a stranger's tar archive as a stream, in constant memory.

Not `tarfile`: its versions without the data filter, as in Python 3.11.2, can be led into endless
loops and unbounded memory by headers. This reads what tar programs write for plain trees (POSIX
ustar and pax, GNU long names) and only names the rest. Formats: POSIX.1-2001 pax, GNU tar manual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

__all__ = ["Body", "Entry", "Kind", "Source", "TarError", "read_entries"]

_BLOCK: Final = 512
_CHUNK: Final = 1 << 16
_MAX_EXTENSION: Final = 8 << 10
_MAX_HEADERS: Final = 160_000
_MAX_RECORDS: Final = 64
_MAX_DIGITS: Final = 12
_OTHERS: Final = {
    b"1": "a hard link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}
_FILES: Final = frozenset({b"0", b"\0"})
_WITHOUT_DATA: Final = frozenset({b"1", b"3", b"4", b"6"})


class TarError(ValueError):
    """What is wrong, to be read after the archive's name: "ends in the middle"."""


class Source(Protocol):
    """Where the archive's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


class Kind(Enum):
    """What an entry is."""

    FILE = "file"
    FOLDER = "directory"
    LINK = "symbolic link"
    OTHER = "other thing"


@dataclass(frozen=True)
class Entry:
    """One entry as the archive has it: the name may be anything."""

    name: str
    kind: Kind
    size: int = 0
    """Bytes that follow, of a file."""
    mode: int = 0
    target: str = ""
    """Of a link."""
    mtime: int = 0
    """Seconds since 1970."""
    what: str = ""
    """What another thing is: "a device"."""


class Body:
    """A file's content; to be read before the next entry, or what is left is skipped."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._left = size
        self._padding = -size % _BLOCK

    def __iter__(self) -> Iterator[bytes]:
        while self._left:
            chunk = _exactly(self._source, min(_CHUNK, self._left))
            self._left -= len(chunk)
            yield chunk

    def skip(self) -> None:
        """Go to the next header."""
        for _ in self:
            pass
        _exactly(self._source, self._padding)
        self._padding = 0


def read_entries(
    source: Source, *, max_headers: int = _MAX_HEADERS
) -> Iterator[tuple[Entry, Body]]:
    """Each entry with its content, in order; raises `TarError`, and what the source raises."""
    longer: dict[str, str] = {}
    for _ in range(max_headers):
        header = _exactly(source, _BLOCK)
        if not any(header):
            while source.read(_CHUNK):  # padding; and gzip checks its sum at the very end
                pass
            return
        _check_sum(header)
        flag, size = header[156:157], _number(header[124:136])
        if flag in {b"x", b"g", b"L", b"K"}:
            text = _extension(source, size)
            if flag != b"g":  # what holds for all entries is comments, as of git archive
                longer |= _pax(text) if flag == b"x" else _gnu(flag, text)
            continue
        entry = _entry(header, flag, size, longer)
        longer = {}
        body = Body(source, entry.size)
        yield entry, body
        body.skip()
    raise TarError("has too many entries")


def _entry(header: bytes, flag: bytes, size: int, longer: dict[str, str]) -> Entry:
    name = longer.get("path") or _name(header)
    target = longer.get("linkpath") or _text(header[157:257])
    if "size" in longer:
        size = _decimal(longer["size"])
    mode, mtime = _number(header[100:108]), _time(header[136:148])
    if any(key.startswith("GNU.sparse") for key in longer):
        return Entry(name, Kind.OTHER, size, what=_OTHERS[b"S"])
    if flag == b"2":
        return Entry(name, Kind.LINK, 0, mode, target, mtime)
    if flag == b"5" or (flag in _FILES and name.endswith("/")):
        return Entry(name, Kind.FOLDER, 0, mode, mtime=mtime)
    if flag in _FILES:
        return Entry(name, Kind.FILE, size, mode, mtime=mtime)
    what = _OTHERS.get(flag, f"of an unknown kind, {flag!r}")
    return Entry(name, Kind.OTHER, 0 if flag in _WITHOUT_DATA else size, what=what)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    is_posix = header[257:263] == b"ustar\0"  # GNU's own format uses the place for times
    prefix = _text(header[345:500]) if is_posix else ""
    return f"{prefix}/{name}" if prefix else name


def _exactly(source: Source, size: int) -> bytes:
    parts = []
    while size > 0:
        part = source.read(size)
        if not part:
            raise TarError("ends in the middle")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _check_sum(header: bytes) -> None:
    if _number(header[148:156]) != sum(header[:148]) + sum(header[156:]) + 8 * ord(" "):
        raise TarError("is no tar archive, or damaged")


def _number(field: bytes) -> int:
    digits = field.strip(b" \0")
    if len(digits) > _MAX_DIGITS or any(digit not in b"01234567" for digit in digits):
        raise TarError("has a header with a number that can't be right")
    return int(digits or b"0", 8)


def _time(field: bytes) -> int:
    try:
        return _number(field)
    except TarError:  # before 1970, or far away: nothing depends on it
        return 0


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise TarError("has a header with a size that can't be right")
    return int(text)


def _text(field: bytes) -> str:
    raw = field.split(b"\0", 1)[0]
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise TarError(f"has a name that is not UTF-8: {raw[:100]!r}") from error


def _extension(source: Source, size: int) -> bytes:
    if size > _MAX_EXTENSION:
        raise TarError("has an entry with a far too long name")
    body = Body(source, size)
    raw = b"".join(body)
    body.skip()
    return raw


def _gnu(flag: bytes, raw: bytes) -> dict[str, str]:
    return {"path" if flag == b"L" else "linkpath": _text(raw)}


def _pax(raw: bytes) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE` and a newline; the length counts the whole record."""
    found: dict[str, str] = {}
    records = 0
    while raw and records < _MAX_RECORDS:
        length_text, blank, _ = raw[: _MAX_DIGITS + 1].partition(b" ")
        length = int(length_text) if blank and length_text.isdigit() else 0
        record = raw[len(length_text) + 1 : length]
        key, is_pair, value = record.removesuffix(b"\n").partition(b"=")
        if not is_pair or length > len(raw) or not record.endswith(b"\n") or b"\0" in value:
            raise TarError("has a header that can't be read")
        raw = raw[length:]
        records += 1
        name = key.decode(errors="replace")
        if name in {"path", "linkpath", "size"} or name.startswith("GNU.sparse"):
            found[name] = _text(value)
    if raw:
        raise TarError("has a header with too many records")
    return found
