"""Durations as GitLab's variables give them: `90m`, `1h30m`, `45s` (Go's time.ParseDuration)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["duration_text", "parse_duration"]

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = re.compile(r"(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})(h|ms|us|µs|ns|m|s)", re.ASCII)


def parse_duration(text: str) -> float | None:
    """Seconds; None for what is malformed or not above zero."""
    text = text.strip().removeprefix("+")
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return seconds if seconds > 0 else None


def duration_text(seconds: float) -> str:
    """`1h30m0s`, as GitLab shows it."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s"
    return f"{minute}m{second}s" if minute else f"{second}s"
