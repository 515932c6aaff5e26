"""The fake's self-hosted runners over REST: JIT configs, lists, groups, workflows' files."""

from __future__ import annotations

import base64
import itertools
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.github.openapi import template

__all__ = ["FakeRunners", "config_of", "jit_config"]


def jit_config(name: str, number: int, secret: str, **more: Any) -> str:
    """As the official runner takes it: file names, and their contents in base64."""
    files = {
        ".runner": {"AgentId": str(number), "AgentName": name, "Ephemeral": "True", **more},
        ".credentials": {"Scheme": "OAuth", "Data": {"clientId": secret}},
        ".credentials_rsaparams": {"d": secret},
    }
    packed = {
        key: base64.b64encode(json.dumps(value).encode()).decode() for key, value in files.items()
    }
    return base64.b64encode(json.dumps(packed).encode()).decode()


def config_of(encoded: str) -> dict[str, Any]:
    """What is in a config's `.runner`."""
    files = json.loads(base64.b64decode(encoded))
    found: dict[str, Any] = json.loads(base64.b64decode(files[".runner"]))
    return found


@dataclass
class FakeRunners:
    """Of a repository or an organisation, by number; tests change it under the server's lock."""

    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(31))
    known: dict[int, dict[str, Any]] = field(default_factory=dict)
    places: dict[int, str] = field(default_factory=dict)
    """Number to `/repos/...` or `/orgs/...`."""
    secrets: list[str] = field(default_factory=list)
    """Of all configs that were given out."""
    tokens: set[str] = field(default_factory=set)
    """Registration tokens."""
    more: Callable[[str], dict[str, Any]] = lambda _name: {}
    """What else is in the config of a runner with this name."""
    groups: dict[int, str] = field(default_factory=lambda: {1: "Default", 2: "builders"})
    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    """Repository, commit and path to contents."""
    repositories: list[str] = field(default_factory=lambda: ["acme/bsp", "acme/other"])

    def add(self, place: str, name: str, **changes: Any) -> dict[str, Any]:
        """One that is registered and does not listen yet."""
        number = next(self.numbers)
        made = {
            "id": number,
            "name": name,
            "os": "unknown",
            "status": "offline",
            "busy": False,
            "labels": [],
            "runner_group_id": 1,
            "ephemeral": True,
        }
        made.update(changes)
        self.known[number] = made
        self.places[number] = place
        return made

    def register(self, place: str, body: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
        """A runner with its config; None when the name is taken."""
        if self.named(body["name"]) is not None:
            return None
        labels = [
            {"id": at, "name": label, "type": "custom"}
            for at, label in enumerate(body.get("labels", ()), 1)
        ]
        group = body.get("runner_group_id", 1)
        made = self.add(place, body["name"], labels=labels, runner_group_id=group)
        self.secrets.append(uuid.uuid4().hex)
        return made, jit_config(
            made["name"], made["id"], self.secrets[-1], **self.more(made["name"])
        )

    def named(self, name: str) -> dict[str, Any] | None:
        return next((item for item in self.known.values() if item["name"] == name), None)

    def listen(self, name: str) -> None:
        """The runner's process has connected."""
        self._must(name)["status"] = "online"

    def begin(self, name: str) -> None:
        """It has got a job."""
        self._must(name).update(status="online", busy=True)

    def finish(self, name: str) -> None:
        """Its job is over: GitHub deletes an ephemeral runner then."""
        del self.known[self._must(name)["id"]]

    def lose(self, name: str) -> None:
        """Its process is gone."""
        self._must(name)["status"] = "offline"

    def _must(self, name: str) -> dict[str, Any]:
        found = self.named(name)
        assert found is not None, name
        return found

    def new_token(self) -> str:
        token = f"A{uuid.uuid4().hex.upper()}"
        self.tokens.add(token)
        return token

    def put(self, path: str, text: str, *, repository: str = "acme/bsp", ref: str) -> None:
        """A file of a commit, or of a branch."""
        self.files[repository, ref, path] = text.encode()

    def content(self, repository: str, ref: str, path: str) -> dict[str, Any] | None:
        raw = self.files.get((repository, ref, path))
        if raw is None:
            return None
        made = template("content-file-response-if-content-is-a-file")
        made |= {"type": "file", "encoding": "base64", "size": len(raw), "path": path}
        return {
            **made,
            "name": path.rpartition("/")[2],
            "content": base64.encodebytes(raw).decode(),
        }
