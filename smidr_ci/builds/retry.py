"""Which failures are worth another try, and what to do before it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from smidr_ci.builds.model import BuildState
from smidr_ci.builds.outcome import Outcome
from smidr_ci.caches.set_aside import is_set_aside, set_aside
from smidr_ci.diagnosis.model import Category, Finding, Severity

__all__ = ["Retries"]

_FETCH_DELAYS_S: Final = (10.0, 60.0)
_OBJECT: Final = re.compile(r"/smidr/sstate/([0-9A-Za-z._/:+~-]{1,512}\.(?:tar\.zst|tgz))")


class Retries:
    """How often one build may start again: a network failure twice, a damaged object once.

    Anything else would fail the same way. Nothing is deleted from the shared sstate: a damaged
    object is set aside under `<sstate>/damaged/`.
    """

    def __init__(self, sstate: Path, fetches: int = 0, *, has_set_aside: bool = False) -> None:
        self._sstate = sstate
        self.fetches = fetches
        """Tries after a network failure so far."""
        self.has_set_aside = has_set_aside
        self.delay_s = 0.0
        """Seconds to wait before the next try."""

    def reason_to_retry(self, outcome: Outcome, findings: Sequence[Finding]) -> str | None:
        """Why another try makes sense, as a sentence; None when it does not."""
        errors = [item for item in findings if item.severity is Severity.ERROR]
        if outcome.state is not BuildState.FAILED or not errors:
            return None
        if all(item.category is Category.FETCH and item.retryable for item in errors):
            return self._after_fetch(errors[0])
        if errors[0].category is Category.SSTATE:
            return self._after_damage(errors[0])
        return None

    def _after_fetch(self, finding: Finding) -> str | None:
        if self.fetches >= len(_FETCH_DELAYS_S):
            return None
        self.delay_s = _FETCH_DELAYS_S[self.fetches]
        self.fetches += 1
        return f"{finding.recipe or 'a source'} could not be fetched"

    def _after_damage(self, finding: Finding) -> str | None:
        text = "\n".join([finding.message, *(line.text for line in finding.excerpt)])
        match = _OBJECT.search(text)
        if self.has_set_aside or match is None or not self._is_out_of_the_way(match[1]):
            return None
        self.has_set_aside, self.delay_s = True, 0.0
        return f"a damaged sstate object was set aside ({Path(match[1]).name})"

    def _is_out_of_the_way(self, name: str) -> bool:
        # Another build may have been faster, or this one before its process died.
        return set_aside(self._sstate, name) or is_set_aside(self._sstate, name)
