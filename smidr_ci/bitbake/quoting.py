"""Values and assignments in BitBake's conf syntax (`bb/parse/parse_py/ConfHandler.py`).

BitBake has no escapes: a value is all between the first and the last quotation mark of its line.
It refuses exactly one mark of the same kind in between. What can't be written as it is becomes
`${@chr(N)}`, which BitBake expands to the character.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["assign", "quote"]

_UNWRITABLE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_:.+-]*(\[[a-z][a-z-]*\])?")


def quote(value: str) -> str:
    """The value with its quotation marks; it can't end its string. `${...}` stays BitBake's."""
    text = _UNWRITABLE.sub(_by_code, value)
    if '"' not in text:
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace('"', "${@chr(34)}") + '"'


def _by_code(found: re.Match[str]) -> str:
    return f"${{@chr({ord(found[0])})}}"


def assign(name: str, value: str, operator: str = "=") -> str:
    """One line of a conf file; `name` is ours, never a stranger's."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a BitBake variable")
    return f"{name} {operator} {quote(value)}"
