"""The agent's process: the one agent of its home, its sockets, its signals, its end."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from smidr_ci.agent.forging import Forges
from smidr_ci.agent.hash_relays import HashRelays
from smidr_ci.agent.housekeeping import Chore, Housekeeper
from smidr_ci.agent.outbox import Outbox
from smidr_ci.agent.service import Agent
from smidr_ci.agent.settings import Settings
from smidr_ci.agent.sharing import Sharing
from smidr_ci.agent.status import AgentStatus
from smidr_ci.agent.systemd import Notifier, Watchdog
from smidr_ci.api.addresses import Listening, endpoint_of, plan_listening
from smidr_ci.api.bundles import receive_bundle, sweep_incoming
from smidr_ci.api.edge import Edge
from smidr_ci.api.github_steps import GitHubSteps
from smidr_ci.api.health import Health
from smidr_ci.api.listen import take_agent_lock
from smidr_ci.api.local_token import make_local_token, publish_local_token, withdraw_local_token
from smidr_ci.api.metrics import Metrics
from smidr_ci.api.operations import Operations
from smidr_ci.api.security import Security
from smidr_ci.api.tokens import TokenStore
from smidr_ci.api.usage import DirectorySizes
from smidr_ci.builds.database import Database, upgrade_apart
from smidr_ci.builds.gc import GcOptions, run_gc
from smidr_ci.builds.host import Host
from smidr_ci.builds.remains import Remains
from smidr_ci.builds.upkeep import trim_history
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import load_agent
from smidr_ci.forges.github.options import hooks_of
from smidr_ci.forges.github.runners.door import door_of
from smidr_ci.forges.github.webhooks import Webhooks
from smidr_ci.home import Home

__all__ = ["run_agent"]

_log = logging.getLogger(__name__)

_MANY_FILES = 65_536
_FORMAT = "%(levelname)s %(name)s: %(message)s"


def run_agent(
    *,
    address: str | None = None,
    http_address: str | None = None,
    settings: Path | None = None,
    is_insecure: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> NoReturn:
    """Be the agent of the home that the environment names until told to end; then exit.

    The addresses win over those of the settings. Raises `SmidrError` when it can't begin.
    """
    logging.basicConfig(stream=sys.stderr, format=_FORMAT)
    logging.getLogger("smidr_ci").setLevel(logging.INFO)
    home = Home.from_environment(environ, settings)
    _allow_many_files()
    lock = take_agent_lock(home)  # first of all: an agent that runs must not be disturbed
    host = Host(home, load_agent(home.agent_config), environ)
    upgrade_apart(home.database)
    database = Database(home.database)
    listening = plan_listening(
        host.agent.api,
        host.clock.now(),
        has_tokens=TokenStore(database).has_any(),
        is_insecure=is_insecure,
        address=address,
        http_address=http_address,
    )
    sweep_incoming(home)
    process = _Process(host, database, listening, Notifier.from_environment(environ))
    process.handle_signals()
    process.start()
    process.agent.wait_until_ended()
    process.stop()
    lock.release()
    _exit()


class _Process:
    """The parts of a running agent, and how they hang together."""

    def __init__(
        self, host: Host, database: Database, listening: Listening, notifier: Notifier
    ) -> None:
        self._settings = Settings(host)
        self._notifier = notifier
        self._token = make_local_token()
        self._outbox = Outbox(database, host.clock)
        chores = _chores(self._settings, self._outbox)
        self._housekeeper = Housekeeper([self._tidy_checkouts, *chores])
        sizes = DirectorySizes(self._directories)
        self._metrics = Metrics(self._status, host.store, self._directories, sizes)
        self._sharing = Sharing(lambda: self._settings.host)
        self._hash_relays = HashRelays(lambda: self._settings.host)
        ended = (
            self._housekeeper.build_ended,
            self._sharing.build_ended,
            self._metrics.finished,
        )
        self.agent = Agent(self._settings, ended, self._housekeeper.host_is_short)
        self.agent.outbox_status = lambda: (*self._outbox.status(), *self._sharing.status())
        self._forges = Forges(
            lambda: self._settings.host,
            self.agent,
            self._outbox,
            self.agent.refusal,
            lambda: self.agent.is_draining,
            self._metrics.forge_called,
        )
        self.agent.warnings = lambda: (
            *listening.warnings(host.clock.now()),
            *self._forges.problems,
            *self._sharing.problems,
            *self._hash_relays.problems,
        )
        self.agent.registrations = self._forges.status
        self.agent.is_needed = lambda: self._forges.is_busy
        self._watchdog = Watchdog(notifier, self.agent.is_alive)
        operations = self._operations()
        door = door_of(host)
        self._edge = Edge(
            host.home,
            operations,
            Security(
                TokenStore(database),
                host.agent.api,
                os.getuid(),
                local_token=self._token,
                door=door,
            ),
            Health(self.agent, host.store, self._reach_engine),
            self._metrics.render,
            listening,
            webhooks=Webhooks(hooks_of(host.home), self._outbox),
            github_steps=GitHubSteps(operations, self._forges.github_for),
            door=door,
        )

    def start(self) -> None:
        """Go on with earlier builds, then listen, then say so."""
        for part in (self._sharing, self._hash_relays):  # builds that go on ask for them
            part.look()
        self.agent.start()
        self._outbox.start()
        self._housekeeper.start()
        self.agent.listening = self._edge.start()
        self._forges.start()
        home = self._settings.host.home
        publish_local_token(home, self._token, _loopback(self.agent.listening))
        self._watchdog.start()
        for place in self.agent.listening:
            _log.info("listening on %s", place)
        self._notifier.ready(f"listening on {len(self.agent.listening)} addresses")

    def stop(self) -> None:
        """Take nothing new; builds are left as they are, with the hash servers that they ask."""
        self._notifier.stopping()
        withdraw_local_token(self._settings.host.home)
        self._edge.stop()
        self._forges.stop()
        self._sharing.stop()
        self._hash_relays.stop()
        self._outbox.stop()
        serves_others = self._settings.host.agent.cache.hash_server_doors
        if not self.agent.status().running and not serves_others:
            self._settings.host.hash_servers.retire(timedelta())

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT end the agent, SIGQUIT drains it, SIGHUP reads the settings again."""
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self.agent.stop,
            signal.SIGINT: self.agent.stop,
            signal.SIGQUIT: self.agent.drain,  # as gitlab-runner takes it
            signal.SIGHUP: self._reload,
        }

        def handle(number: int, _frame: FrameType | None) -> None:
            # Actions take locks that the interrupted main thread may hold.
            threading.Thread(target=actions[signal.Signals(number)], daemon=True).start()

        for number in actions:
            signal.signal(number, handle)

    def _reload(self) -> None:
        self._notifier.reloading(self._settings.host.clock)
        self.agent.reload()
        self._sharing.look()
        self._hash_relays.look()
        self._forges.look()
        self._notifier.ready()

    def _operations(self) -> Operations:
        host = self._settings.host
        receive = partial(receive_bundle, host.home)
        return Operations(self.agent, host.store, lambda: self._settings.host, receive)

    def _status(self) -> AgentStatus:
        return self.agent.status()

    def _directories(self) -> dict[str, Path]:
        host = self._settings.host
        home, places = host.home, host.places
        return {
            "home": home.root,
            "downloads": places.downloads,
            "sstate": places.sstate,
            "layers": places.layers,
            "workspaces": places.workspaces,
            "artifacts": host.artifacts_root,
            "builds": home.builds,
        }

    def _tidy_checkouts(self) -> None:
        self._forges.tidy()

    def _reach_engine(self) -> None:
        self._settings.host.engine.reach()


def _chores(settings: Settings, outbox: Outbox) -> list[Chore]:
    def forget_old_builds() -> None:
        host = settings.host
        remains, needed = Remains.on(host), outbox.open_builds()
        now = host.clock.now()
        for item in trim_history(host.store, host.agent.history, now, remains, needed.__contains__):
            _log.info("build %s was %s: %s", item.build_id, item.action, item.reason)
        remains.sweep(now)

    def collect_caches() -> None:
        for item in run_gc(settings.host, GcOptions(), CancelToken(), _log.info):
            if item.problem or item.files:
                freed = f"{item.files} files, {item.size_bytes / 1e6:.1f} MB gone"
                _log.info("cache %s: %s", item.cache, item.problem or freed)

    return [forget_old_builds, collect_caches, outbox.trim, _give_memory_back]


def _give_memory_back() -> None:
    """What a round of chores needed for a moment should not count for the rest of the day."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)


def _loopback(addresses: Iterable[str]) -> list[str]:
    """`HOST:PORT` under which programs of this host reach what is listened at."""
    found = [text.partition("://")[2] for text in addresses if "://" in text]
    return [place for text in found for place in endpoint_of(text).local_addresses]


def _allow_many_files() -> None:
    """As many connections and logs as the system lets us have open; a login's limit is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _exit() -> NoReturn:
    """End at once: builds' threads may be in the middle of anything, which is what they are for.

    The interpreter's own end would wait for some of them.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
