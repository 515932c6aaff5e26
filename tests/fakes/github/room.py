"""The parts of the GitHub room as tests put them together, against the fake."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from smidr_ci.forges.github.auth import AppCredentials, TokenCredentials
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.sender import Sender
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Limits, Transport
from tests.fakes.clock import FakeClock
from tests.fakes.github.server import GitHubServer
from tests.fakes.github.state import APP_ID, rsa_key_pem

__all__ = ["Room"]


@dataclass
class Room:
    """Clients of one fake server, with one clock that moves when something waits."""

    server: GitHubServer
    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.state.now = self.clock.now()

    @property
    def site(self) -> Site:
        return Site.of(self.server.url)

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.advance(seconds)
        return False

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        with self.server.lock:
            self.server.state.now = self.clock.now()

    def sender(self) -> Sender:
        transport = Transport(clock=self.clock, limits=Limits(connect_s=5, pause_s=5))
        return Sender(self.site.api, transport, clock=self.clock, pause=self.pause)

    def key_file(self) -> Path:
        path = self.folder / "app.pem"
        path.write_text(rsa_key_pem())
        path.chmod(0o600)
        return path

    def app(self) -> GitHubClient:
        sender = self.sender()
        return GitHubClient(sender, AppCredentials(str(APP_ID), self.key_file(), sender))

    def plain(self) -> GitHubClient:
        path = self.folder / "token"
        with self.server.lock:
            path.write_text(self.server.state.plain_token() + "\n")
        path.chmod(0o600)
        return GitHubClient(self.sender(), TokenCredentials(path))
