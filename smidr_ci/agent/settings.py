"""The operator's settings as the agent uses them: read at start, and again when told to."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace

from smidr_ci.builds.accept import request_for
from smidr_ci.builds.admission import Admission, admission_of
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.order import order_of
from smidr_ci.builds.parallelism import Allowance, allowance_of, host_cpus, host_memory_bytes
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.scheduler import Scheduler
from smidr_ci.builds.slots import Policy, Waiting, policy_of
from smidr_ci.builds.stranger import settings_for
from smidr_ci.config.agent import AgentConfig, load_agent
from smidr_ci.errors import SmidrError

__all__ = ["Settings"]

_log = logging.getLogger(__name__)


class Settings:
    """The present `Host`; builds that run keep the one that they began with."""

    def __init__(self, host: Host) -> None:
        self._host = _ready(host, host.agent, _made(host))
        self._problem = ""
        self._read = host.clock.now()
        self._positions = itertools.count()

    @property
    def host(self) -> Host:
        """The host as the newest good settings have it."""
        return self._host

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the newest settings are not in use."""
        return (self._problem,) if self._problem else ()

    def reload(self, scheduler: Scheduler) -> None:
        """Read agent.yaml again; a bad one changes nothing and shows as a problem."""
        old = self._host
        try:
            agent = load_agent(old.home.agent_config)
            is_same = agent.engine == old.agent.engine
            shared = ("store", "engine", "runtime") if is_same else ("store",)
            new = _ready(old, agent, shared)
            scheduler.reconfigure(*_scheduling(new))
        except SmidrError as error:
            self._problem = f"agent.yaml was not taken over: {error}"
            _log.error("%s", self._problem)
            return
        self._host, self._problem, self._read = new, "", old.clock.now()
        _log.info("read %s again", old.home.agent_config)

    def scheduler(self) -> Scheduler:
        """A scheduler that goes by the settings; raises `ConfigError`."""
        return Scheduler(*_scheduling(self._host))

    def waiting(self, record: BuildRecord, request: BuildRequest | None = None) -> Waiting:
        """What a build counts for, and the next place in line: ask in the order of arrival."""
        allowance = Allowance(cpus=None, memory_bytes=None)
        with contextlib.suppress(SmidrError):  # the build itself will say what is wrong
            request = request or request_for(self._host, order_of(record))
            settings = settings_for(self._host.agent, request.trust)
            allowance = allowance_of(request.project.config, settings)
        return Waiting(
            record.build_id,
            record.customer,
            position=next(self._positions),
            memory_bytes=allowance.memory_bytes,
            cpus=allowance.cpus,
        )

    def described(self) -> Mapping[str, str]:
        """Where the settings come from, for the operator."""
        path = self._host.home.agent_config
        source = str(path) if path.exists() else f"defaults ({path} is missing)"
        return {"source": source, "read": self._read.isoformat(timespec="seconds")}


def _scheduling(host: Host) -> tuple[Policy, Admission]:
    return _policy(host), admission_of(host.agent, host.home)


def _policy(host: Host) -> Policy:
    cpus, memory_bytes = host_cpus(), host_memory_bytes()
    return policy_of(host.agent, host.environ, cpus=cpus, memory_bytes=memory_bytes)


def _ready(old: Host, agent: AgentConfig, shared: Iterable[str]) -> Host:
    """The host with these settings, for several builds at once; `shared` parts are kept.

    What build threads will share is made before there are any.
    """
    new = replace(old, agent=agent)
    new = replace(new, side_by_side=_policy(new).max_builds, is_agent=True)
    vars(new).update({name: getattr(old, name) for name in shared})
    for name in ("store", "user", "engine", "runtime", "images", "parse_cache"):
        getattr(new, name)
    new.engine.load()
    return new


def _made(host: Host) -> list[str]:
    """What a host has made already, which is all that is in it but its fields."""
    return [name for name in vars(host) if name not in {item.name for item in fields(Host)}]
