"""The runners of all registrations: they follow the files in `registrations/` while they run."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from smidr_ci.agent.outbox import Outbox
from smidr_ci.builds.host import Host
from smidr_ci.builds.service import BuildService
from smidr_ci.errors import ConfigError, SmidrError
from smidr_ci.files import make_marked_dir, remove_marked_tree
from smidr_ci.forges.parts import Parts
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.forges.seats import Seats
from smidr_ci.forges.status import RegistrationStatus

if TYPE_CHECKING:  # only an agent with a registration needs it
    from smidr_ci.forges.github.forge import GitHubForge

__all__ = ["Forges"]

_log = logging.getLogger(__name__)

_LOOK_S: Final = 3.0
_FIRST_LOOK_S: Final = 30.0
_ASSEMBLIES: Final = {
    "github": "smidr_ci.forges.github.assembly",
    "gitlab": "smidr_ci.forges.gitlab.assembly",
}
"""Modules with `make_runner` and `make_deliverers`; imported when there is a registration."""


class ForgeRunner(Protocol):
    """One registration at work; see `forges.gitlab.runner`."""

    registration: Registration

    @property
    def expected_builds(self) -> int:
        """Jobs that will lead to a build and have none yet."""

    @property
    def is_busy(self) -> bool:
        """Whether a job does what a draining agent should wait for."""

    def start(self) -> None:
        """Go on with earlier jobs, then ask for new ones."""

    def update(self, registration: Registration) -> None:
        """Take over another pause, limit, customer or token."""

    def drain(self) -> None:
        """Ask for no more jobs."""

    def stop(self) -> None:
        """End, and leave jobs for the next process."""

    def running(self) -> list[Any]:
        """The jobs that are not over."""

    def status(self) -> RegistrationStatus:
        """What it does now."""


class Forges:
    """All methods may be called from any thread.

    `refusal` says why a build could not start now when so many others come first; `is_draining`
    whether the agent takes nothing new.
    """

    def __init__(
        self,
        host: Callable[[], Host],
        builds: BuildService,
        outbox: Outbox,
        refusal: Callable[[int], str | None],
        is_draining: Callable[[], bool],
        on_call: Callable[[str, str, str], None] | None = None,
    ) -> None:
        """`on_call` hears of each call to a forge: which forge, what, and how it ended."""
        self._host = host
        self._outbox = outbox
        self._is_draining = is_draining
        self._home = host().home
        self._registrations = Registrations(self._home)
        seats = Seats(refusal, self._expected_builds, host().clock)
        self._parts = Parts(host, builds, outbox, seats, on_call)
        self._lock = threading.RLock()
        self._runners: dict[str, ForgeRunner] = {}
        self._leaving: dict[str, ForgeRunner] = {}
        self._prefixes: dict[str, tuple[str, ...]] = {}
        self._problems: tuple[str, ...] = ()
        self._stamp = 0
        self._ended = threading.Event()
        self._has_looked = threading.Event()

    def start(self) -> None:
        """Go on with the jobs of an agent before, then ask for more; returns at once."""
        threading.Thread(target=self._watch, name="forges", daemon=True).start()

    def stop(self) -> None:
        """Leave all jobs to the next agent; back within some seconds."""
        self._ended.set()
        self._has_looked.set()
        with self._lock:
            runners = [*self._runners.values(), *self._leaving.values()]
        threads = [threading.Thread(target=runner.stop, daemon=True) for runner in runners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def look(self) -> None:
        """Read the registrations, and do as they say now."""
        with self._lock:
            if self._ended.is_set():
                return
            self._stamp = self._changed()
            found, faults = self._registrations.load_all()
            problems = [str(fault) for fault in faults]
            unread = {fault.where for fault in faults}
            for registration in found:
                try:
                    self._follow(registration)
                except SmidrError as error:
                    problems.append(f"registration {registration.name}: {error}")
            known = {registration.name for registration in found}
            for name in set(self._runners) - known:
                # A file that can't be read at the moment ends nothing.
                if not any(where.endswith(f"/{name}.json") for where in unread):
                    self._let_go(name)
            self._problems = tuple(problems)
            for problem in problems:
                _log.error("%s", problem)

    def tidy(self) -> None:
        """Remove what nobody needs any more of jobs: old sources, containers that a crash left."""
        if not (self._home.root / "checkouts").exists():
            return
        from smidr_ci.forges.gitlab.checkouts import remove_old_checkouts  # noqa: PLC0415 - rare
        from smidr_ci.forges.gitlab.container_scripts import ContainerScripts  # noqa: PLC0415 - same

        host = self._host()
        days = host.agent.gitlab.keep_checkouts_days
        if removed := remove_old_checkouts(self._home, days, host.clock.now()):
            _log.info("removed %d old checkouts", removed)
        ContainerScripts(self._host).sweep(self._home.root / "jobs")

    def status(self) -> tuple[RegistrationStatus, ...]:
        """All registrations, by name."""
        with self._lock:
            at_work = [runner.status() for runner in self._runners.values()]
            leaving = [
                replace(runner.status(), state="leaving") for runner in self._leaving.values()
            ]
        return tuple(sorted([*at_work, *leaving], key=lambda item: item.name))

    def github_for(self, web: str, repository: str) -> GitHubForge | None:
        """What serves a repository of this GitHub; None without a registration that does.

        While the agent starts, it waits for the registrations.
        """
        self._has_looked.wait(_FIRST_LOOK_S)
        with self._lock:
            if not any(item.registration.forge == "github" for item in self._runners.values()):
                return None
        from smidr_ci.forges.github.assembly import forge_for  # noqa: PLC0415 - loaded already

        return forge_for(self._parts, web, repository)

    @property
    def problems(self) -> tuple[str, ...]:
        """Registrations that can't be used, and why."""
        return self._problems

    @property
    def is_busy(self) -> bool:
        """Whether an agent that drains should wait for jobs whose builds are over."""
        with self._lock:
            runners = [*self._runners.values(), *self._leaving.values()]
        return any(runner.is_busy for runner in runners)

    def _watch(self) -> None:
        self._clean_scratch()
        wait_s = 0.0
        while not self._ended.wait(wait_s):
            try:
                if not wait_s or self._changed() != self._stamp:
                    self.look()
                self._settle()
            except Exception:  # noqa: BLE001 - the jobs go on without this thread's next round
                _log.exception("looking at the registrations")
            self._has_looked.set()
            wait_s = _LOOK_S

    def _clean_scratch(self) -> None:
        """Uploads and downloads of an agent before; its jobs begin theirs anew."""
        scratch = self._home.root / "scratch"
        try:
            remove_marked_tree(scratch, self._home.root)
            make_marked_dir(scratch, mode=0o700)
        except (OSError, SmidrError) as error:
            _log.warning("can't clean %s: %s", scratch, error)

    def _settle(self) -> None:
        with self._lock:
            is_draining = self._is_draining()
            for runner in self._runners.values() if is_draining else ():
                runner.drain()
            gone = {name for name, runner in self._leaving.items() if not runner.running()}
            runners = [self._leaving.pop(name) for name in gone]
            for name in gone - set(self._runners):
                self._serve(name, {})
        for runner in runners:
            runner.stop()

    def _changed(self) -> int:
        """Each write of a registration replaces a file, which changes its directory."""
        try:
            return os.stat(self._home.root / "registrations").st_mtime_ns
        except OSError:
            return 0

    def _follow(self, registration: Registration) -> None:
        name = registration.name
        old = self._runners.get(name)
        if old is not None and _has_same_address(old.registration, registration):
            old.update(registration)
            return
        assembly = _assembly_of(registration)
        runner: ForgeRunner = assembly.make_runner(registration, self._parts)
        for before in (self._runners.pop(name, None), self._leaving.pop(name, None)):
            if before is not None:
                before.stop()  # the new one goes on with its jobs
        self._serve(name, assembly.make_deliverers(registration, self._parts))
        self._runners[name] = runner
        _log.info("taking jobs of %s (%s)", registration.url, name)
        runner.start()

    def _let_go(self, name: str) -> None:
        _log.info("no more jobs for %s: it was unregistered", name)
        runner = self._leaving[name] = self._runners.pop(name)
        runner.drain()

    def _serve(self, name: str, deliverers: Mapping[str, Any]) -> None:
        for prefix in self._prefixes.pop(name, ()):
            self._outbox.unregister(prefix)
        for prefix, deliverer in deliverers.items():
            self._outbox.register(prefix, deliverer)
        self._prefixes[name] = tuple(deliverers)

    def _expected_builds(self) -> int:
        # No lock: it is asked from the runners' threads, which `stop` waits for.
        runners = [*self._runners.values(), *self._leaving.values()]
        return sum(runner.expected_builds for runner in runners)


def _assembly_of(registration: Registration) -> Any:  # noqa: ANN401 - a module
    module = _ASSEMBLIES.get(registration.forge)
    if module is None:
        raise ConfigError(
            f"it is for {registration.forge[:40]!r}, and this smidr takes no jobs from there",
            hint="Was it made by another version? Unregister it, or use that version.",
        )
    return importlib.import_module(module)


def _has_same_address(one: Registration, other: Registration) -> bool:
    names = ("forge", "url", "tls_ca_file", "tls_cert_file", "tls_key_file", "api_token_file")
    is_same = all(getattr(one, name) == getattr(other, name) for name in names)
    return is_same and dict(one.settings) == dict(other.settings)
