"""GitHub's list of runners over its REST API, for a repository or an organisation.

Facts: docs.github.com, "REST API endpoints for self-hosted runners".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.auth import Scope
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.exchange import Call
from smidr_ci.forges.github.runners.ports import RunnerDownload
from smidr_ci.forges.github.site import Site

__all__ = ["DEFAULT_GROUP", "RemoteRunner", "RemoteRunners", "runner_scope"]

DEFAULT_GROUP: Final = 1
"""The number of the default runner group; a repository has no other."""
_GONE: Final = frozenset({204, 404})
_MOST_CONFIG: Final = 256 * 1024


@dataclass(frozen=True)
class RemoteRunner:
    """One runner as GitHub lists it."""

    runner_id: int
    name: str
    is_online: bool
    is_busy: bool


def runner_scope(site: Site) -> Scope:
    """What a token must be good for to make and delete runners."""
    if site.repository:
        return Scope.of(site.repository, administration="write")
    permissions = (("organization_self_hosted_runners", "write"),)
    return Scope(organization=site.owner, permissions=permissions)


class RemoteRunners:
    """Thread-safe; all methods raise `ForgeError`."""

    def __init__(self, site: Site, client: GitHubClient) -> None:
        self._client = client
        self._scope = runner_scope(site)
        self._is_repository = bool(site.repository)
        owner = f"/orgs/{quote(site.owner, safe='')}"
        self._base = (f"/repos/{site.repository}" if site.repository else owner) + "/actions"

    def generate(self, name: str, labels: tuple[str, ...], group: int) -> str:
        """Register an ephemeral runner; its encoded config, which is a secret.

        Sent once: whose answer was lost is found offline later, and removed.
        """
        body = {
            "name": name,
            "runner_group_id": group,
            "labels": list(labels),
            "work_folder": "_work",
        }
        path = f"{self._base}/runners/generate-jitconfig"
        call = Call("POST", path, json=body, is_repeatable=False)
        reply = self._client.send(call, self._scope, action=f"make the runner {name}")
        config = reply.object().get("encoded_jit_config")
        if not isinstance(config, str) or not config or len(config) > _MOST_CONFIG:
            raise ForgeError("the answer has no usable config of a runner", where=reply.url)
        return config

    def listed(self, name: str = "") -> Iterator[RemoteRunner]:
        """All runners, or the one with this name."""
        found = self._client.pages(
            f"{self._base}/runners",
            self._scope,
            action="list the runners",
            params={"name": name} if name else None,
            items="runners",
        )
        return (made for made in map(_runner_of, found) if made is not None)

    def remove(self, runner_id: int) -> bool:
        """Delete one; False while it is busy. One that is gone is fine."""
        call = Call("DELETE", f"{self._base}/runners/{runner_id:d}")
        try:
            self._client.send(call, self._scope, action="delete the runner")
        except ForgeError as error:
            if error.status == 422:
                return False
            if error.status not in _GONE:
                raise
        return True

    def remove_named(self, name: str) -> bool:
        """Delete the one with this name; False while it is busy."""
        numbers = [item.runner_id for item in self.listed(name) if item.name == name]
        return all(self.remove(number) for number in numbers)

    def downloads(self) -> list[RunnerDownload]:
        """Where to get the official runner."""
        path = f"{self._base}/runners/downloads"
        action = "ask where to get the official runner"
        found = self._client.get(path, self._scope, action=action).json()
        items = found if isinstance(found, list) else []
        return [made for made in map(_download_of, items) if made is not None]

    def registration_token(self) -> str:
        """Good for an hour, to register a scale set with."""
        call = Call("POST", f"{self._base}/runners/registration-token")
        action = "get a registration token for runners"
        reply = self._client.send(call, self._scope, action=action)
        token = reply.object().get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ForgeError("the answer has no usable token", where=reply.url)
        return token

    def group_number(self, name: str) -> int:
        """The number of an organisation's runner group; raises `ForgeError` if there is none."""
        if not name or self._is_repository:
            return DEFAULT_GROUP
        found = self._client.pages(
            f"{self._base}/runner-groups",
            self._scope,
            action="list the runner groups",
            items="runner_groups",
        )
        for item in found:
            number = item.get("id")
            if str(item.get("name", "")).lower() == name.lower() and isinstance(number, int):
                return number
        raise ForgeError(
            f"there is no runner group {name!r}",
            where=self._base,
            hint="Make it in the organisation's settings, under Actions, Runner groups.",
        )


def _runner_of(raw: Mapping[str, Any]) -> RemoteRunner | None:
    number, name = raw.get("id"), raw.get("name")
    if not isinstance(number, int) or not isinstance(name, str):
        return None
    return RemoteRunner(number, name, raw.get("status") == "online", raw.get("busy") is True)


def _download_of(raw: object) -> RunnerDownload | None:
    if not isinstance(raw, dict):
        return None
    names = ("os", "architecture", "download_url", "filename")
    texts = [raw.get(name) for name in names]
    if not all(isinstance(text, str) and text for text in texts):
        return None
    system, architecture, url, filename = map(str, texts)
    return RunnerDownload(
        os=system,
        architecture=architecture,
        download_url=url,
        filename=filename,
        sha256_checksum=str(raw.get("sha256_checksum") or ""),
        temp_download_token=str(raw.get("temp_download_token") or ""),
    )
