"""What the exit of a runner means for the host that started it."""

from __future__ import annotations

from typing import Final

from smidr_ci.forges.github.runners.ports import EXIT_MEANINGS

__all__ = ["DEPRECATED", "describe"]

DEPRECATED: Final = 7
"""GitHub takes no runner of this version any more."""


def describe(code: int | None) -> str:
    """How it ended, for logs: `exit code 5, session conflict`."""
    if code is None:
        return "nobody saw how"
    if code < 0:
        return f"killed by signal {-code}"
    return f"exit code {code}, {EXIT_MEANINGS.get(code, 'unknown')}"
