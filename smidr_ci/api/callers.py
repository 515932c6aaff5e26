"""Who calls, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from smidr_ci.errors import ForbiddenError

__all__ = ["Caller", "Scope"]


class Scope(StrEnum):
    """What a token is good for; each scope includes those before it."""

    READ = "read"
    """See builds, logs and artifacts."""
    BUILD = "build"
    """Start and cancel builds too."""
    ADMIN = "admin"
    """Delete builds, drain and stop the agent too."""


_ORDER = tuple(Scope)


@dataclass(frozen=True)
class Caller:
    """An authenticated user of the API."""

    name: str
    """For history and logs: `uid 1000`, `token ci-main`, `certificate CN=...`."""
    scope: Scope
    """The widest that was granted."""
    is_local: bool = False
    """Came over the unix socket with our own uid: may name paths of this host."""
    within: Path | None = None
    """A job of a runner that the agent started: may name paths below this one only, and what it
    orders is trusted by a forge's word alone."""

    def require(self, scope: Scope) -> None:
        """Raise `ForbiddenError` unless this caller has at least that scope."""
        if _ORDER.index(self.scope) < _ORDER.index(scope):
            raise ForbiddenError(
                f"{self.name} may not do this: it needs the scope `{scope}`",
                hint="Use a token with that scope; `smidr token create` makes one.",
            )
