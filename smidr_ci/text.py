"""Strangers' text made safe to show on a terminal."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["printable"]

# ECMA-48: CSI and OSC/DCS/APC/PM/SOS strings first, then single escapes, then what is left.
_ESCAPES: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]?"
)
# C0 but tab and newline, DEL, C1, and the marks that reorder text (Unicode TR36).
_CONTROLS: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, *, keep_newlines: bool = False) -> str:
    """The text without escape sequences, control characters and bidirectional overrides."""
    clean = _CONTROLS.sub("", _ESCAPES.sub("", text))
    return clean if keep_newlines else clean.replace("\n", " ")
