"""The checksums in a download's `.done` file, read without trusting it.

BitBake writes a dict of strings as a pickle (bb/fetch2, `update_stamp`, protocol 2). Builds can
write here, and unpickling is running code: only the opcodes of such a dict are understood.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any, Final

__all__ = ["CHECKSUMS", "read_checksums"]

CHECKSUMS: Final = {"sha512": 128, "sha384": 96, "sha256": 64, "sha1": 40, "md5": 32}
"""What BitBake may note of a download, strongest first, with the number of hex digits."""

_LIMIT_BYTES: Final = 16 * 1024
_HEX: Final = frozenset("0123456789abcdef")
_MARK: Final = object()
_TEXT: Final = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "UNICODE"})
_IGNORED: Final = frozenset({"PROTO", "FRAME"})


def read_checksums(raw: bytes) -> dict[str, str]:
    """Checksums by name, as small hex digits; empty for anything that BitBake does not write."""
    if len(raw) > _LIMIT_BYTES:
        return {}
    try:
        found = _run(raw)
    except (ValueError, IndexError, KeyError, TypeError, UnicodeError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: value
        for name, digits in CHECKSUMS.items()
        if isinstance(value := found.get(name), str)
        and len(value) == digits
        and _HEX.issuperset(value)
    }


def _run(raw: bytes) -> object:
    stack: list[Any] = []
    memo: dict[object, Any] = {}
    for opcode, argument, _ in pickletools.genops(io.BytesIO(raw)):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in {"BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in {"SETITEM", "SETITEMS"}:
            _set_items(stack, 2 if name == "SETITEM" else None)
        elif name not in _IGNORED:
            stack.append(_pushed(name, argument, memo))
    raise ValueError("it has no end")


def _pushed(name: str, argument: object, memo: dict[object, Any]) -> object:
    if name in _TEXT:
        return argument
    if name in {"BINGET", "LONG_BINGET"}:
        return memo[argument]
    if name == "NONE":
        return None
    if name in {"EMPTY_DICT", "MARK"}:
        return {} if name == "EMPTY_DICT" else _MARK
    raise ValueError(f"{name} has no place in a done stamp")


def _set_items(stack: list[Any], count: int | None) -> None:
    at = len(stack) - count if count else len(stack) - stack[::-1].index(_MARK)
    items = stack[at:]
    del stack[at if count else at - 1 :]
    if not isinstance(stack[-1], dict) or not all(isinstance(key, str) for key in items[::2]):
        raise ValueError("it is no dict of strings")
    stack[-1].update(zip(items[::2], items[1::2], strict=True))
