"""Making and unmaking runners at GitHub, whichever of its two services it is done by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from smidr_ci.forges.github.runners.remote import RemoteRunner, RemoteRunners

__all__ = ["JitRegistrar", "Registrar"]


class Registrar(Protocol):
    """All methods raise `ForgeError`."""

    def generate(self, name: str) -> str:
        """Register a runner; its config. Status 409 when there is one of this name."""

    def remove(self, name: str) -> bool:
        """Delete its registration; False while it is busy. One that is gone is fine."""

    def remove_listed(self, runner: RemoteRunner) -> bool:
        """The same for one of `listed`."""

    def listed(self) -> Iterable[RemoteRunner]:
        """All runners at the address, also those of others."""


class JitRegistrar:
    """Runners with labels, by the REST API."""

    def __init__(
        self, remote: RemoteRunners, labels: tuple[str, ...], group: Callable[[], int]
    ) -> None:
        """`group` gives the number of the runner group."""
        self._remote = remote
        self._labels = labels
        self._group = group

    def generate(self, name: str) -> str:
        """See `Registrar`."""
        return self._remote.generate(name, self._labels, self._group())

    def remove(self, name: str) -> bool:
        """See `Registrar`."""
        return self._remote.remove_named(name)

    def remove_listed(self, runner: RemoteRunner) -> bool:
        """See `Registrar`."""
        return self._remote.remove(runner.runner_id)

    def listed(self) -> Iterable[RemoteRunner]:
        """See `Registrar`."""
        return self._remote.listed()
