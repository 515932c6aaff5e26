"""Where commands find builds: at the agent when one runs, else in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from smidr_ci.api.client import AgentClient
from smidr_ci.api.local_client import find_agent
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.errors import UsageError
from smidr_ci.home import Home

__all__ = ["Source", "artifacts_of", "newest", "open_source"]


class Source(Protocol):
    """Builds, wherever they are kept; the errors of `AgentClient` and `BuildStore`."""

    def get(self, build_id: str) -> BuildRecord:
        """One build, whole; the id may be a unique beginning."""

    def list(
        self, *, limit: int, state: BuildState | None = None, customer: str | None = None
    ) -> list[BuildRecord]:
        """Summaries, newest first."""

    def logs(self, build_id: str, *, tail: int | None, follow: bool) -> Iterator[tuple[int, bytes]]:
        """Chunks of the console with their offsets."""

    def waiting_for(self, record: BuildRecord) -> str:
        """Why a queued build has not begun; empty when nobody knows."""


@contextmanager
def open_source() -> Iterator[Source]:
    """The running agent of this home, else its store."""
    home = Home.from_environment()
    agent = find_agent(home)
    if agent is None:
        from smidr_ci.cli.stored import StoredBuilds  # noqa: PLC0415 - the agent spares us this

        yield StoredBuilds.open()
        return
    try:
        yield _AgentsBuilds(agent)
    finally:
        agent.close()


def newest(source: Source, build_id: str | None, customer: str | None) -> BuildRecord:
    """The build that was named, else the newest; raises `UsageError` when there is none."""
    if build_id:
        return source.get(build_id)
    found = source.list(limit=1, customer=customer)
    if not found:
        raise UsageError("there are no builds yet", hint="Start one with `smidr build`.")
    return source.get(found[0].build_id)


def artifacts_of(home: Home, record: BuildRecord) -> Path:
    """Where this host keeps a build's artifacts."""
    root = home.artifacts
    if home.agent_config.exists():
        from smidr_ci.config.agent import load_agent  # noqa: PLC0415 - few hosts pay for it

        root = load_agent(home.agent_config).directories.artifacts or root
    return root / record.customer / record.build_id


class _AgentsBuilds:
    """Builds as the agent has them."""

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
        self.get = agent.get

    def list(
        self, *, limit: int, state: BuildState | None = None, customer: str | None = None
    ) -> list[BuildRecord]:
        found: list[BuildRecord] = []
        while len(found) < limit:
            before = found[-1].build_id if found else None
            page = self._agent.list(
                limit=min(1000, limit - len(found)), state=state, customer=customer, before=before
            )
            found += page
            if not page:
                break
        return found

    def logs(self, build_id: str, *, tail: int | None, follow: bool) -> Iterator[tuple[int, bytes]]:
        return self._agent.logs(build_id, tail=tail, follow=follow)

    def waiting_for(self, record: BuildRecord) -> str:
        if record.state is not BuildState.QUEUED:
            return ""
        return self._agent.status().queued.get(record.build_id, "")
