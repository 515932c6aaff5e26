"""What a registration does now, for whoever asks the agent."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RegistrationStatus"]


@dataclass(frozen=True)
class RegistrationStatus:
    """One registration of a running agent."""

    name: str
    forge: str
    url: str
    state: str
    """`asking` for jobs, `waiting` to ask, `paused`, `refused` by the forge, or `leaving` when it
    was unregistered while jobs run."""
    detail: str = ""
    """Why it does not ask, or what the forge said; empty while all is well."""
    jobs: tuple[str, ...] = ()
    """Jobs that are not over, with their builds."""
