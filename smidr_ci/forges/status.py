"""What a registration does now, for whoever asks the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    runners: Mapping[str, int] = field(default_factory=dict)
    """Official runners that the agent starts by itself: how many are `starting`, `idle`, `busy`,
    `wanted`, and how many more are `free`; empty where it starts none."""
    runner_version: str = ""
    """Of the official runner that it starts; empty where there is none."""
