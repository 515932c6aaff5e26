"""Which patch of a recipe does not apply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from smidr_ci.diagnosis.evidence import Evidence, Failure

__all__ = ["patch_of"]

_PATCH: Final = re.compile(r"(?<![\w./+-])[\w.+-]{1,200}\.(?:patch|diff)\b")
_APPLIED: Final = re.compile(r"Applying patch '(/[^']{1,500})'")


def patch_of(failure: Failure, item: Evidence) -> str | None:
    """The patch that is named in a line near the one that says why, as the log prints it."""
    lines = [item.message, *(known.message for known in failure.evidence)]
    lines += [line.text for line in item.excerpt if line.number <= item.number]
    for text in lines:
        if match := _PATCH.search(text):
            return _with_folder(lines, match[0])
    return None


def _with_folder(lines: Sequence[str], name: str) -> str:
    # Releases since 2025 print the folder, but only in the line of BitBake's own message.
    paths = (match[1] for text in lines if (match := _APPLIED.search(text)))
    return next((path for path in paths if path.endswith(f"/{name}")), name)
