"""What `smidr daemon status` shows of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from smidr_ci.forges.status import RegistrationStatus

__all__ = ["AgentStatus", "OutboxStatus"]


@dataclass(frozen=True)
class OutboxStatus:
    """Deliveries to one receiver."""

    receiver: str
    waiting: int
    given_up: int
    last_error: str = ""
    next_try: datetime | None = None


@dataclass(frozen=True)
class AgentStatus:
    """One moment of an agent."""

    version: str
    pid: int
    started: datetime
    is_draining: bool
    running: tuple[str, ...]
    """Build ids, oldest first."""
    queued: Mapping[str, str]
    """Build id -> why it waits, in the order of the queue."""
    max_running: int
    listening: tuple[str, ...] = ()
    """Addresses, such as `unix:/home/u/.smidr/agent.sock` or `grpc://127.0.0.1:50051`."""
    outbox: tuple[OutboxStatus, ...] = ()
    problems: tuple[str, ...] = ()
    """What keeps builds from starting, or the agent from its work."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Where the settings come from: path of agent.yaml, when it was read."""
    registrations: tuple[RegistrationStatus, ...] = ()
    """The forges that jobs come from."""
    taken: int = 0
    """How many of the places are taken: fewer than run when builds share a run."""
