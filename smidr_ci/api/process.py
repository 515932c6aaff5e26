"""The agent's process: the one agent of its home, its sockets, its signals, its end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from smidr_ci.agent.outbox import Outbox
from smidr_ci.agent.service import Agent
from smidr_ci.agent.settings import Settings
from smidr_ci.agent.systemd import Notifier, Watchdog
from smidr_ci.api.addresses import Listening, endpoint_of, plan_listening
from smidr_ci.api.bundles import receive_bundle, sweep_incoming
from smidr_ci.api.edge import Edge
from smidr_ci.api.health import Health
from smidr_ci.api.listen import take_agent_lock
from smidr_ci.api.local_token import make_local_token, publish_local_token, withdraw_local_token
from smidr_ci.api.operations import Operations
from smidr_ci.api.security import Security
from smidr_ci.api.tokens import TokenStore
from smidr_ci.builds.database import Database
from smidr_ci.builds.host import Host
from smidr_ci.config.agent import load_agent
from smidr_ci.home import Home

__all__ = ["run_agent"]

_log = logging.getLogger(__name__)

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
    lock = take_agent_lock(home)  # first of all: an agent that runs must not be disturbed
    host = Host(home, load_agent(home.agent_config), environ)
    sweep_incoming(home)
    database = Database(home.database)
    tokens = TokenStore(database)
    listening = plan_listening(
        host.agent.api,
        host.clock.now(),
        has_tokens=tokens.has_any(),
        is_insecure=is_insecure,
        address=address,
        http_address=http_address,
    )
    token = make_local_token()
    security = Security(tokens, host.agent.api, os.getuid(), local_token=token)
    chosen = Settings(host)
    agent = Agent(chosen)
    outbox = Outbox(database, host.clock)
    agent.outbox_status = outbox.status
    agent.warnings = lambda: listening.warnings(host.clock.now())
    edge = _edge(agent, chosen, security, listening)
    notifier = Notifier.from_environment(environ)
    _handle_signals(agent, notifier, chosen)
    agent.start()
    outbox.start()
    agent.listening = edge.start()
    publish_local_token(home, token, _loopback(agent.listening))
    watchdog = Watchdog(notifier, agent.is_alive)
    watchdog.start()
    for place in agent.listening:
        _log.info("listening on %s", place)
    notifier.ready(f"listening on {len(agent.listening)} addresses")
    agent.wait_until_ended()
    notifier.stopping()
    withdraw_local_token(home)
    edge.stop()
    outbox.stop()
    lock.release()
    _exit()


def _edge(agent: Agent, settings: Settings, security: Security, listening: Listening) -> Edge:
    home, store = settings.host.home, settings.host.store
    operations = Operations(agent, store, lambda: settings.host, partial(receive_bundle, home))
    # The host changes when its settings are read again.
    health = Health(agent, store, lambda: settings.host.engine.reach())  # noqa: PLW0108 - as above
    return Edge(home, operations, security, health, lambda: b"", listening)


def _loopback(addresses: Iterable[str]) -> list[str]:
    """`HOST:PORT` under which programs of this host reach what is listened at."""
    found = [text.partition("://")[2] for text in addresses if "://" in text]
    return [place for text in found for place in endpoint_of(text).local_addresses]


def _handle_signals(agent: Agent, notifier: Notifier, settings: Settings) -> None:
    def reload() -> None:
        notifier.reloading(settings.host.clock)
        agent.reload()
        notifier.ready()

    actions: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGTERM: agent.stop,
        signal.SIGINT: agent.stop,
        signal.SIGHUP: reload,
    }

    def handle(number: int, _frame: FrameType | None) -> None:
        # Actions take locks that the interrupted main thread may hold.
        threading.Thread(target=actions[signal.Signals(number)], daemon=True).start()

    for number in actions:
        signal.signal(number, handle)


def _exit() -> NoReturn:
    """End at once: builds' threads may be in the middle of anything, which is what they are for.

    The interpreter's own end would wait for some of them.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
