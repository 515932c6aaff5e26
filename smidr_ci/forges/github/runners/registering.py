"""What registering, verifying and unregistering do about runners on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.rates import Pause
from smidr_ci.forges.github.runners.actions_service import ActionsService
from smidr_ci.forges.github.runners.names import RunnerNames
from smidr_ci.forges.github.runners.options import Mode, RunnerOptions
from smidr_ci.forges.github.runners.remote import RemoteRunner, RemoteRunners
from smidr_ci.forges.github.runners.scale_set import ScaleSet, ScaleSetRegistrar, ScaleSets
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Limits, Transport
from smidr_ci.forges.registration import Registration
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.home import Home

__all__ = ["RunnerDesk", "needed_permission"]

_LIMITS: Final = Limits(connect_s=15.0, pause_s=30.0, whole_s=60.0)


def needed_permission(site: Site, mode: Mode) -> dict[str, str]:
    """What an App needs besides to make runners."""
    if mode is Mode.ATTACH:
        return {}
    if site.repository:
        return {"administration": "write"}
    return {"organization_self_hosted_runners": "write"}


class RunnerDesk:
    """Of one registration; all methods raise `ForgeError`."""

    def __init__(
        self,
        registration: Registration,
        client: GitHubClient,
        *,
        clock: Clock | None = None,
        pause: Pause | None = None,
    ) -> None:
        """Raises `ConfigError` for settings of no use."""
        self._registration = registration
        self._options = RunnerOptions.of(registration)
        self._site = Site.of(registration.url)
        self._client = client
        self._remote = RemoteRunners(self._site, client)
        self._clock = clock or SystemClock()
        self._pause = pause or self._wait

    def check(self, *, makes: bool) -> str:
        """What GitHub has for its runners, in a sentence; with `makes` a scale set is made."""
        options = self._options
        if options.mode is Mode.ATTACH:
            return ""
        if options.mode is Mode.JIT:
            count = sum(1 for _ in self._remote.listed())
            self._remote.group_number(options.group)
            asked = ", ".join(options.labels)
            return f"runners for jobs with {asked}; GitHub lists {count} runners now"
        with self._service() as service:
            sets = ScaleSets(service, options)
            found = sets.ensure() if makes else sets.find()
        return _described(found, options)

    def busy(self, home: Home) -> int:
        """How many runners of this host have a job."""
        return sum(runner.is_busy for runner in self._listed(home))

    def forget(self, home: Home) -> None:
        """Delete the scale set, and the registrations of runners without a job."""
        if self._options.mode is Mode.ATTACH:
            return
        if self._options.mode is Mode.SCALE_SET:
            with self._service() as service:
                sets = ScaleSets(service, self._options)
                registrar = ScaleSetRegistrar(service, self._remote)
                for runner in self._listed(home):
                    registrar.remove_listed(runner)
                found = sets.find()
                if found is not None:
                    sets.delete(found.number)
            return
        for runner in self._listed(home):
            self._remote.remove(runner.runner_id)

    def _listed(self, home: Home) -> list[RemoteRunner]:
        if self._options.mode is Mode.ATTACH:
            return []
        names = RunnerNames(home, self._registration.name)
        return [runner for runner in self._remote.listed() if names.is_ours(runner.name)]

    def _wait(self, seconds: float) -> bool:
        self._clock.sleep(seconds)
        return False

    @contextmanager
    def _service(self) -> Iterator[ActionsService]:
        item = self._registration
        tls = TlsFiles(item.tls_ca_file, item.tls_cert_file, item.tls_key_file)
        with Transport(tls, self._clock, _LIMITS) as transport:
            yield ActionsService(
                self._site,
                self._remote,
                self._client.sender,
                transport,
                clock=self._clock,
                pause=self._pause,
            )


def _described(found: ScaleSet | None, options: RunnerOptions) -> str:
    if found is None:
        return f"there is no scale set {options.scale_set} yet; the agent makes it"
    return (
        f"scale set {found.name} (number {found.number}), for jobs with {', '.join(found.labels)}"
    )
