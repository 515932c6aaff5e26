"""Runners on demand of one registration, put together from what its forge has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.config.github import GitHubSettings
from smidr_ci.forges.github.approvals import Approvals
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.rates import Pause
from smidr_ci.forges.github.repositories import Repositories
from smidr_ci.forges.github.runners.actions_service import ActionsService
from smidr_ci.forges.github.runners.fleet import Fleet
from smidr_ci.forges.github.runners.jit import JitSource
from smidr_ci.forges.github.runners.judging import ScaleSetJudge
from smidr_ci.forges.github.runners.listening import Listener
from smidr_ci.forges.github.runners.names import RunnerNames
from smidr_ci.forges.github.runners.on_demand import (
    BETWEEN_S,
    JitDemand,
    OnDemand,
    ScaleSetDemand,
    WantsRunners,
)
from smidr_ci.forges.github.runners.options import Mode, RunnerOptions
from smidr_ci.forges.github.runners.policy import Hold, JobPolicy
from smidr_ci.forges.github.runners.ports import LocalRunnersMaker, Runners, RunnerState
from smidr_ci.forges.github.runners.registrar import JitRegistrar
from smidr_ci.forges.github.runners.remote import RemoteRunners
from smidr_ci.forges.github.runners.room import RoomKeeper
from smidr_ci.forges.github.runners.scale_set import ScaleSetRegistrar, ScaleSets
from smidr_ci.forges.github.runners.session import QueueSession, SessionFile
from smidr_ci.forges.github.runners.waiting import Demand
from smidr_ci.forges.github.runners.workflows import Workflows
from smidr_ci.forges.github.runs import WorkflowRuns
from smidr_ci.forges.github.sender import OnCall
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Limits, Transport
from smidr_ci.forges.parts import Parts
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.forges.tls import TlsFiles

__all__ = ["Connections", "Surroundings", "make_on_demand"]

_CALL: Final = Limits(connect_s=5.0, pause_s=20.0, whole_s=60.0)
_POLL: Final = Limits(connect_s=15.0, pause_s=100.0, whole_s=120.0)
"""GitHub answers after fifty seconds at the latest: what takes twice as long never comes."""


@dataclass(frozen=True)
class Surroundings:
    """What a forge gives its runners."""

    registration: Callable[[], Registration]
    """As it is now."""
    site: Site
    client: GitHubClient
    runs: WorkflowRuns
    approvals: Approvals
    parts: Parts
    tls: TlsFiles
    on_call: OnCall | None = None
    hold: Hold | None = None
    poll: Limits = _POLL
    pause: Pause | None = None
    """Instead of a wait between tries that the end of the runners ends."""
    between_s: float = BETWEEN_S

    @property
    def name(self) -> str:
        """The registration's."""
        return self.registration().name

    @property
    def clock(self) -> Clock:
        """The host's."""
        return self.parts.host().clock

    @property
    def folder(self) -> Path:
        """For what is kept over restarts."""
        return self.parts.host().home.root / "github" / self.name


class Connections:
    """To the service of scale sets: short calls, and one that waits for messages."""

    def __init__(self, around: Surroundings) -> None:
        self.calls = Transport(around.tls, around.clock, _CALL, pool_size=4)
        self.polls = Transport(around.tls, around.clock, around.poll, pool_size=1)
        self.ended = threading.Event()

    def cut(self) -> None:
        """End what waits; single calls can still be made, to take leave."""
        self.ended.set()
        self.polls.end()

    def service(self, around: Surroundings, remote: RemoteRunners) -> ActionsService:
        """The service itself."""
        return ActionsService(
            around.site,
            remote,
            around.client.sender,
            self.calls,
            clock=around.clock,
            pause=around.pause or self.ended.wait,
            on_call=around.on_call,
        )

    def close(self) -> None:
        """Close what is idle."""
        self.calls.close()
        self.polls.close()


def make_on_demand(
    around: Surroundings, options: RunnerOptions, make_runners: LocalRunnersMaker
) -> OnDemand | None:
    """Not started yet; None for runners that the operator brings. Raises `SmidrError`."""
    if options.mode is Mode.ATTACH:
        return None
    remote = RemoteRunners(around.site, around.client)
    runners = make_runners(around.name, around.parts.host, remote.downloads)
    if options.mode is Mode.JIT:
        return _jit(around, options, remote, runners)
    return _scale_set(around, options, remote, runners)


def _policy(around: Surroundings, mode: Mode) -> JobPolicy:
    def settings() -> GitHubSettings:
        return around.parts.host().agent.github

    actions = Workflows(around.site, around.client, lambda: settings().smidr_actions)
    return JobPolicy(mode, settings, around.approvals, actions, around.hold)


def _rooms(around: Surroundings, runners: Runners) -> RoomKeeper:
    return RoomKeeper(
        around.name, runners, around.parts.capacity, lambda: around.registration().limit
    )


def _names(around: Surroundings) -> RunnerNames:
    return RunnerNames(around.parts.host().home, around.name)


def _jit(
    around: Surroundings, options: RunnerOptions, remote: RemoteRunners, runners: Runners
) -> OnDemand:
    registrar = JitRegistrar(remote, options.all_labels, lambda: remote.group_number(options.group))
    names, rooms = _names(around), _rooms(around, runners)
    fleet = Fleet(runners, registrar, names, rooms, around.clock, options.all_labels)
    repositories = Repositories(around.site, around.client, around.clock)
    demand = Demand(repositories, around.runs, options.takes, around.clock)
    source = JitSource(demand, _policy(around, options.mode))
    return _on_demand(around, JitDemand(source), fleet, runners)


def _scale_set(
    around: Surroundings, options: RunnerOptions, remote: RemoteRunners, runners: Runners
) -> OnDemand:
    connections = Connections(around)
    service = connections.service(around, remote)
    registrar = ScaleSetRegistrar(service, remote)
    names, rooms = _names(around), _rooms(around, runners)
    fleet = Fleet(runners, registrar, names, rooms, around.clock, (options.scale_set,))
    judge = ScaleSetJudge(
        _policy(around, options.mode), around.runs, around.folder / "refused.json"
    )
    file = SessionFile(around.folder / "session.json")
    host = _Host(around, rooms, fleet)
    listener = Listener(
        ScaleSets(service, options),
        QueueSession(service, connections.polls, file, f"{names.host}-{names.tag}"),
        registrar,
        judge,
        host,
        clock=around.clock,
        pause=around.pause or connections.ended.wait,
    )
    demand = ScaleSetDemand(around.name, listener, judge.news, connections)
    host.on_demand = _on_demand(around, demand, fleet, runners)
    return host.on_demand


class _Host:
    """Implements `listening.ListeningHost`."""

    on_demand: OnDemand

    def __init__(self, around: Surroundings, rooms: RoomKeeper, fleet: Fleet) -> None:
        self._around = around
        self._rooms = rooms
        self._fleet = fleet

    def capacity(self) -> int:
        """What GitHub may give us: jobs at work, and besides what could begin now."""
        alive = self.on_demand.alive()
        busy = sum(item.state is RunnerState.BUSY for item in alive)
        if not self.on_demand.takes_jobs:
            return busy
        room = self._rooms.room()
        return busy if room.is_short else len(alive) + room.free

    def changed(self) -> None:
        """See `ListeningHost`."""
        self.on_demand.wake()

    def began(self, name: str) -> None:
        """See `ListeningHost`."""
        self._fleet.began(name)

    def may_make(self) -> bool:
        """A scale set that went with its registration must not be made again."""
        home = self._around.parts.host().home
        is_registered = Registrations(home).is_there(self._around.name)
        return is_registered and not self.on_demand.is_draining


def _on_demand(
    around: Surroundings, demand: WantsRunners, fleet: Fleet, runners: Runners
) -> OnDemand:
    return OnDemand(
        around.name,
        demand,
        fleet,
        runners,
        clock=around.clock,
        is_paused=lambda: around.registration().is_paused,
        between_s=around.between_s,
    )
