"""A registration's forge, put together from what the agent has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakKeyDictionary

from smidr_ci.builds.history import previous_build
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.forges.deliveries import Deliverer
from smidr_ci.forges.github.forge import GitHubForge
from smidr_ci.forges.github.runners.ports import Downloads, Runners
from smidr_ci.forges.parts import Parts
from smidr_ci.forges.registration import Registration

__all__ = ["forge_for", "make_deliverers", "make_runner"]

_LOCK: Final = threading.Lock()
_MADE: Final[WeakKeyDictionary[Parts, dict[str, GitHubForge]]] = WeakKeyDictionary()
"""By agent and registration: checks and hints must share one view of the rate limits."""


def make_runner(registration: Registration, parts: Parts) -> GitHubForge:
    """A forge that was not started yet; raises `SmidrError` for a registration of no use."""

    def previous_of(record: BuildRecord) -> BuildRecord | None:
        store = parts.host().store
        found = previous_build(store, record)
        return store.get(found.build_id) if found is not None else None

    made = GitHubForge(registration, parts, previous_of, _local_runners)
    with _LOCK:
        _MADE.setdefault(parts, {})[registration.name] = made
    return made


def _local_runners(registration: str, host: Callable[[], Host], downloads: Downloads) -> Runners:
    from smidr_ci.forges.github.runners.local import local_runners  # noqa: PLC0415 - if needed

    return local_runners(registration, host, downloads)


def make_deliverers(registration: Registration, parts: Parts) -> Mapping[str, Deliverer]:
    """Who delivers for the forge that was made last for this registration."""
    with _LOCK:
        made = _MADE.get(parts, {}).get(registration.name)
    if made is None or made.registration != registration:
        made = make_runner(registration, parts)
    return made.deliverers()


def forge_for(parts: Parts, web: str, repository: str) -> GitHubForge | None:
    """The forge that serves `owner/name` at GITHUB_SERVER_URL; one for the repository itself first.

    Both are a step's word: they only choose by which registration it is judged.
    """
    with _LOCK:
        made = list(_MADE.get(parts, {}).values())
    fitting = [
        forge
        for forge in made
        if forge.site.web == web.rstrip("/").lower() and forge.site.covers(repository)
    ]
    return max(fitting, key=lambda forge: bool(forge.site.name), default=None)
