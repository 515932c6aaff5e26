"""Pulling an image: progress in readable lines, and a failure that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from smidr_ci.engine import EngineRefusalError
from smidr_ci.errors import ImageError
from smidr_ci.images.background import Steady, run_cancellable
from smidr_ci.images.model import Making, Report
from smidr_ci.text import printable

__all__ = [
    "PullError",
    "PullFault",
    "PullProgress",
    "classify",
    "pull",
    "registry_of",
    "split_reference",
]

_LINE_EVERY_S: Final = 3.0
_MEGABYTE: Final = 1_000_000
_NO_LOGIN: Final[dict[str, str]] = {}
"""None would mean the user's own; the engine takes this for an anonymous pull."""


class PullFault(StrEnum):
    """Why a registry did not deliver."""

    UNREACHABLE = "unreachable"
    NOT_FOUND = "not found"
    DENIED = "denied"
    RATE_LIMITED = "rate limited"
    OTHER = "other"


# First match counts. The words are those of Docker Engine, containerd, Podman and registries.
_FAULTS: Final = (
    (PullFault.RATE_LIMITED, r"toomanyrequests|429|rate limit"),
    (PullFault.NOT_FOUND, r"manifest unknown|manifest for .* not found|name unknown|no such image"),
    (PullFault.DENIED, r"unauthorized|denied|authentication required|no basic auth|\b40[13]\b"),
    (
        PullFault.UNREACHABLE,
        (
            r"no such host|connection refused|dial tcp|request canceled|deadline exceeded"
            r"|timeout|handshake|unreachable|no route to host|proxyconnect|x509|certificate"
            r"|unexpected eof|connection reset|: eof|server misbehaving|bad gateway|\b50[234]\b"
            r"|temporary failure|http response to https"
        ),
    ),
    (PullFault.NOT_FOUND, r"not found"),
)

_HINTS: Final = {
    PullFault.UNREACHABLE: (
        "The engine on this host can't reach the registry: check its network and proxy "
        "(`systemctl edit docker`), or let smidr bootstrap a base: leave out "
        "container.base_image, with container.bootstrap: auto."
    ),
    PullFault.NOT_FOUND: "Check the name and tag in container.base_image.",
    PullFault.DENIED: (
        "The image does not exist or is private: check its name, and log in as the user who "
        "runs smidr: docker login {registry}"
    ),
    PullFault.RATE_LIMITED: (
        "Log in (docker login {registry}), wait, or use a mirror of the registry."
    ),
    PullFault.OTHER: "Try it by hand: docker pull {reference}",
}


class PullError(ImageError):
    """A registry did not deliver an image; `fault` says why."""

    def __init__(self, reference: str, answer: str) -> None:
        self.fault = classify(answer)
        registry, answer = registry_of(reference), printable(answer)
        super().__init__(
            f"can't pull the image {reference}: registry {registry}: {answer}",
            hint=_HINTS[self.fault].format(reference=reference, registry=registry),
        )


def classify(answer: str) -> PullFault:
    """What a registry's or engine's error text means."""
    text = answer.lower()
    return next((fault for fault, words in _FAULTS if re.search(words, text)), PullFault.OTHER)


def registry_of(reference: str) -> str:
    """The registry's host; `docker.io` when the reference names none."""
    first, slash, _ = reference.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else "docker.io"


def split_reference(reference: str) -> tuple[str, str]:
    """Repository, and tag or digest (`latest` when there is none)."""
    name, at, digest = reference.partition("@")
    head, slash, last = name.rpartition("/")
    repository, _, tag = last.partition(":")
    return f"{head}{slash}{repository}", digest if at else tag or "latest"


@dataclass
class PullProgress:
    """Layers of a pull, as the engine's messages tell of them."""

    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)

    def take(self, message: Mapping[str, Any]) -> None:
        """Note one message (`id`, `status`, `progressDetail{current,total}`)."""
        layer, status = str(message.get("id") or ""), str(message.get("status") or "")
        if not re.fullmatch(r"[0-9a-f]{12}", layer):
            return
        self._sizes.setdefault(layer, (0, 0))
        if status in {"Pull complete", "Already exists"}:
            self._done.add(layer)
        detail = message.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._sizes[layer] = (int(detail.get("current") or 0), int(detail["total"]))
        elif status == "Download complete":
            self._sizes[layer] = (self._sizes[layer][1],) * 2

    def __str__(self) -> str:
        """Such as `2 of 5 layers, 34 of 120 MB`."""
        current = sum(size[0] for size in self._sizes.values())
        total = sum(size[1] for size in self._sizes.values())
        return (
            f"{len(self._done)} of {len(self._sizes)} layers, "
            f"{current // _MEGABYTE} of {total // _MEGABYTE} MB"
        )


def pull(making: Making, reference: str) -> None:
    """Pull an image, with the credentials of the user's docker config if it may use them.

    Raises `PullError` when the registry does not deliver, `EngineError`, `CancelledError`.
    """
    repository, tag = split_reference(reference)
    making.report(f"pulling {reference}")
    engine = making.engine

    def task(say: Report) -> None:
        if making.uses_logins:
            _load_logins(making)
        login = None if making.uses_logins else _NO_LOGIN
        try:
            with engine.calling(f"pull the image {reference}"):
                messages: Any = engine.api.pull(
                    repository, tag=tag, stream=True, decode=True, auth_config=login
                )
                _follow(reference, messages, Steady(say, making.clock, _LINE_EVERY_S))
        except EngineRefusalError as error:
            raise PullError(reference, error.answer) from error

    run_cancellable(task, making)
    making.report(f"pulled {reference}")


def _load_logins(making: Making) -> None:
    path = making.settings.registry_auth_file
    if path is None:
        return
    # The SDK takes a missing file for an empty one.
    if not path.is_file():
        raise ImageError(
            "the file with logins for registries does not exist",
            where=str(path),
            hint="Correct engine.registry_auth_file in agent.yaml.",
        )
    with making.engine.calling(f"read the logins in {path}"):
        making.engine.api.reload_config(str(path))


def _follow(reference: str, messages: Iterable[Mapping[str, Any]], steady: Steady) -> None:
    progress = PullProgress()
    for message in messages:
        if error := message.get("error"):
            raise PullError(reference, str(error))
        progress.take(message)
        if message.get("progressDetail"):
            steady.say(f"pulling {reference}: {progress}")
