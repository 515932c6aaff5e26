"""Which repositories a registration is for: its one, or those of the organisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from smidr_ci.clock import Clock
from smidr_ci.forges.github.auth import Scope
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.site import Site

__all__ = ["Repositories"]

_RELOAD_S: Final = 900.0
_MOST: Final = 300


class Repositories:
    """For one thread, but for `covers`."""

    def __init__(self, site: Site, client: GitHubClient, clock: Clock) -> None:
        self._site = site
        self._client = client
        self._clock = clock
        self._known: tuple[str, ...] = ()
        self._next_load = 0.0

    def covers(self, repository: str) -> bool:
        """Whether `owner/name` is one of them, as far as the address says."""
        return self._site.covers(repository)

    def known(self) -> tuple[str, ...]:
        """`owner/name` of each, at most some hundred; raises `ForgeError`."""
        if self._site.repository:
            return (self._site.repository,)
        if self._clock.monotonic() >= self._next_load:
            self._known = tuple(self._load())
            self._next_load = self._clock.monotonic() + _RELOAD_S
        return self._known

    def _load(self) -> Iterator[str]:
        count = 0
        for item in self._listed():
            name = str(item.get("full_name") or "")
            if not self.covers(name) or item.get("archived") is True:
                continue
            yield name
            count += 1
            if count >= _MOST:
                return

    def _listed(self) -> Iterator[dict[str, Any]]:
        action = "list the repositories"
        if self._client.credentials.is_app:
            scope = Scope(organization=self._site.owner, permissions=(("metadata", "read"),))
            path = "/installation/repositories"
            return self._client.pages(path, scope, action=action, items="repositories")
        path = f"/orgs/{quote(self._site.owner, safe='')}/repos"
        params = {"sort": "pushed", "direction": "desc"}
        return self._client.pages(path, Scope(), action=action, params=params)
