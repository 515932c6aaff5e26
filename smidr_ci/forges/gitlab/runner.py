"""One registration's runner: asks for jobs when the host has room, and runs them."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Final

from smidr_ci.errors import SmidrError
from smidr_ci.forges.gitlab.answers import Poll, PollOutcome
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.health import PollHealth
from smidr_ci.forges.gitlab.jobstore import JobFolder, JobState
from smidr_ci.forges.gitlab.lifecycle import JobRun
from smidr_ci.forges.gitlab.pace import Pace
from smidr_ci.forges.gitlab.parsing import identity_of
from smidr_ci.forges.gitlab.payload import Variable
from smidr_ci.forges.gitlab.reasons import SYSTEM
from smidr_ci.forges.gitlab.rotation import is_rotation_due, rotate
from smidr_ci.forges.gitlab.transport import OnCall, Pause, Transport
from smidr_ci.forges.gitlab.workshop import Workshop
from smidr_ci.forges.registration import Registration, Registrations, system_id
from smidr_ci.forges.seats import Capacity
from smidr_ci.forges.status import RegistrationStatus
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.home import Home

__all__ = ["GitLabRunner", "tls_files"]

log = logging.getLogger(__name__)

CHECK_INTERVAL_S: Final = 3.0
_LEAVE_S: Final = 5.0


class GitLabRunner:
    """Polls in a thread of its own between `start` and `stop`; each job has two more.

    `capacity` has room for a job, or says why not. `pause` (for tests) waits between polls and
    ends them when it returns True.
    """

    def __init__(
        self,
        registration: Registration,
        workshop: Workshop,
        capacity: Capacity,
        *,
        on_call: OnCall | None = None,
        pause: Pause | None = None,
        check_interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self.registration = registration
        self._workshop = workshop
        self._capacity = capacity
        self._pause = pause
        self._check_interval_s = check_interval_s
        self._registrations = Registrations(workshop.home)
        tls = tls_files(registration, workshop.home)
        self._tls_variables = _tls_variables(tls)
        # Apart, so that ending a long poll leaves the calls about jobs alone.
        self._poll_transport, self._job_transport = (
            Transport(registration.url, tls=tls, clock=workshop.clock, on_call=on_call, pause=pause)
            for _ in range(2)
        )
        machine = system_id(workshop.home)
        self._pace = Pace(registration.settings.get("request_concurrency", 1))
        self._pollers = [
            RunnerClient(self._poll_transport, token=registration.token, system_id=machine)
            for _ in range(self._pace.most)
        ]
        self._client = RunnerClient(
            self._job_transport, token=registration.token, system_id=machine
        )
        self.health = PollHealth()
        self.waiting_for = ""
        """Why no job is asked for now; empty while polling."""
        self._lock, self._taking = threading.Lock(), threading.Lock()
        self._jobs: dict[int, tuple[JobRun, threading.Thread]] = {}
        self._asking = 0
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Go on with the jobs of an earlier process, then ask for new ones."""
        self.resume()
        for number in range(self._pace.most):
            name = f"gitlab-{self.registration.name}-{number}"
            thread = threading.Thread(
                target=self.poll_forever, args=(number,), name=name, daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def resume(self) -> None:
        """Go on with the jobs that an earlier process left."""
        for folder in JobFolder.find_all(self._jobs_root, self.registration.name):
            try:
                self._begin(folder)
            except SmidrError as error:
                log.warning("can't go on with %s: %s", folder.path.name, error)

    def update(self, registration: Registration) -> None:
        """Take over another pause, limit, customer or token; the address stays as it is."""
        self.registration = registration
        self._use_token(registration.token)

    def drain(self) -> None:
        """Ask for no more jobs; those that run go on."""
        self._stopped.set()
        self._poll_transport.end()

    def stop(self, *, cancel_jobs: bool = False, timeout_s: float = 30.0) -> None:
        """End: leave jobs for the next process, or end them as interrupted and say so."""
        self.drain()
        running = self.running()
        for run in running:
            if cancel_jobs:
                run.interrupt("aborted: the runner was stopped")
            else:
                run.leave()
        self.wait(timeout_s if cancel_jobs else _LEAVE_S)
        for run in running:
            run.leave()
        self._job_transport.end()
        self.wait(_LEAVE_S)
        for thread in self._threads:
            thread.join(_LEAVE_S)
        self._poll_transport.close()
        self._job_transport.close()

    def running(self) -> list[JobRun]:
        """The jobs that are not over."""
        with self._lock:
            return [run for run, thread in self._jobs.values() if thread.is_alive()]

    @property
    def expected_builds(self) -> int:
        """Jobs that will lead to a build and have none yet."""
        return sum(run.awaits_build for run in self.running())

    @property
    def is_busy(self) -> bool:
        """Whether a job does what a draining agent should wait for."""
        return any(run.keeps_agent for run in self.running())

    def status(self) -> RegistrationStatus:
        """What it does now."""
        registration = self.registration
        state, detail = "asking", ""
        if registration.is_paused:
            state = "paused"
        elif self.waiting_for:
            state, detail = "waiting", self.waiting_for
        elif self.health.message:
            state, detail = "refused", self.health.message
        jobs = tuple(run.described for run in self.running())
        return RegistrationStatus(
            registration.name, registration.forge, registration.url, state, detail, jobs
        )

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of all jobs, at most so long in all."""
        clock = self._workshop.clock
        until = clock.monotonic() + timeout_s
        with self._lock:
            threads = [thread for _, thread in self._jobs.values()]
        for thread in threads:
            thread.join(max(0.0, until - clock.monotonic()))

    def poll_forever(self, number: int = 0) -> None:
        """Ask for jobs until stopped; the pollers of a registration count from 0."""
        wait = 0.0
        while not self._wait(wait):
            try:
                wait = self._round(number)
            except SmidrError as error:
                log.error("%s: %s", self.registration.name, error)  # noqa: TRY400 - no fault of ours
                wait = self._check_interval_s
            except Exception:
                log.exception("polling for %s", self.registration.name)
                wait = self._check_interval_s

    def _wait(self, seconds: float) -> bool:
        pause = self._pause or self._stopped.wait
        return pause(seconds) or self._stopped.is_set()

    def _round(self, number: int) -> float:
        """Ask once, if there is room; seconds until the next time."""
        if not self._pace.may_ask(number):
            return self._check_interval_s
        if number == 0:
            self._rotate_if_due()
        why = self._take_seat()
        if number == 0 or not why:
            self.waiting_for = why
        if why:
            return self._check_interval_s
        try:
            poll = self._pollers[number].request_job(is_hasty=self._capacity.is_scarce)
            if poll.outcome is PollOutcome.JOB:
                self.health.heard(poll)
                self._take(poll)
                self._pace.heard(is_job=True)
                return 0.0
        finally:
            self._leave_seat()
        if self._stopped.is_set():
            return 0.0
        self._pace.heard(is_job=False)
        self.health.heard(poll)
        if poll.outcome not in {PollOutcome.NOTHING, PollOutcome.CONFLICT}:
            level = logging.WARNING if poll.is_healthy else logging.ERROR
            log.log(level, "%s: no job: %s", self.registration.name, poll.message)
        return self.health.wait_s(self._check_interval_s)

    def _take_seat(self) -> str:
        """Why no job may be asked for now; when there is room, it is taken."""
        if self.registration.is_paused:
            return "the registration is paused"
        limit = self.registration.limit
        running = len(self.running())
        with self._lock:
            if limit and running + self._asking >= limit:
                return f"{limit} jobs of this registration run, its limit"
            self._asking += 1
        why = self._capacity.take(self.registration.name) or ""
        if why:
            with self._lock:
                self._asking -= 1
        return why

    def _leave_seat(self) -> None:
        with self._lock:
            self._asking -= 1
        self._capacity.give_back(self.registration.name)

    def _use_token(self, token: str) -> None:
        for client in (*self._pollers, self._client):
            client.token = token

    def _rotate_if_due(self) -> None:
        now = self._workshop.clock.now()
        if not is_rotation_due(self.registration, now):
            return
        try:
            changed = rotate(
                self.registration, self._registrations, self._pollers[0], self._workshop.clock
            )
        except SmidrError as error:
            log.warning("%s: the token was not changed: %s", self.registration.name, error)
            return
        self._use_token(changed.token)
        self.registration = changed

    def _take(self, poll: Poll) -> None:
        try:
            identity = identity_of(poll.payload)
        except SmidrError as error:
            # Without its id and token nobody can even be told; GitLab drops it in two minutes.
            log.error("%s: %s", self.registration.name, error)  # noqa: TRY400 - no fault of ours
            return
        log.info("%s: job %d (%s)", self.registration.name, identity.id, poll.correlation_id)
        with self._taking:  # or two jobs would get the same slot
            state = JobState(received=self._workshop.clock.now(), slot=self._free_slot())
            try:
                folder = JobFolder.create(
                    self._jobs_root, self.registration.name, poll.payload, identity.id, state
                )
            except SmidrError:
                self._client.update_job(identity.id, identity.token, "running")
                self._client.update_job(
                    identity.id, identity.token, "failed", failure_reason=SYSTEM
                )
                raise
            self._begin(folder)

    def _begin(self, folder: JobFolder) -> None:
        run = JobRun(
            folder,
            self.registration,
            self._client,
            self._workshop,
            tls=self._tls_variables,
            pause=self._pause,
        )
        thread = threading.Thread(
            target=self._run, args=(run,), name=f"gitlab-job-{run.job.id}", daemon=True
        )
        with self._lock:
            self._jobs[run.job.id] = (run, thread)
        thread.start()

    def _run(self, run: JobRun) -> None:
        try:
            run.run()
        finally:
            with self._lock:
                self._jobs.pop(run.job.id, None)

    def _free_slot(self) -> int:
        used = {run.state.slot for run in self.running()}
        return next(number for number in range(len(used) + 1) if number not in used)

    @property
    def _jobs_root(self) -> Path:
        return self._workshop.home.root / "jobs"


def tls_files(registration: Registration, home: Home) -> TlsFiles:
    """What the registration names, else what lies in `$SMIDR_HOME/certs` for the host."""
    found = TlsFiles.discover(home.root / "certs", registration.url)
    return TlsFiles(
        registration.tls_ca_file or found.ca,
        registration.tls_cert_file or found.cert,
        registration.tls_key_file or found.key,
    )


def _tls_variables(tls: TlsFiles) -> tuple[Variable, ...]:
    """The server's authority as a file variable, for git and other tools of the job.

    Our own certificate and key stay here: they would let a job speak as this runner.
    """
    if tls.ca is None:
        return ()
    try:
        text = tls.ca.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ()
    return (Variable("CI_SERVER_TLS_CA_FILE", text, is_public=True, is_file=True, is_raw=True),)
