"""A host that is registered with a fake GitLab: fake builds, real trace, real HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.service import BuildView
from smidr_ci.caches.job_archives import JobArchives
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import CancelledError, FailureKind, SmidrError, UsageError
from smidr_ci.files import make_private_dir
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.extraction import ExtractLimits
from smidr_ci.forges.gitlab.job_caches import JobCaches
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.ports import JobLog, Outcome, ScriptEnd, ScriptRun
from smidr_ci.forges.gitlab.runner import GitLabRunner
from smidr_ci.forges.gitlab.workshop import Workshop
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.forges.seats import Seats
from smidr_ci.home import Home
from smidr_ci.trust import Trust
from tests.fakes.gitlab.server import FakeJob, GitLabServer, serve

__all__ = ["FakeBuilds", "Site", "open_site", "payload"]

TOKEN = "glrt-abcdefghij0123456789"


def payload(number: int = 42, **changes: Any) -> dict[str, Any]:
    """A job that builds; `variables` are added as a mapping."""
    variables = {"SMIDR_CONFIG": "smidr.yaml", **changes.pop("variables", {})}
    job: dict[str, Any] = {
        "id": number,
        "token": f"glcbt-64_job{number}secret",
        "job_info": {"name": "image", "project_id": 7, "project_full_path": "acme/distro"},
        "git_info": {"repo_url": f"http://gitlab-ci-token:glcbt-64_job{number}secret@h/p.git"},
        "runner_info": {"timeout": 300},
        "variables": [{"key": key, "value": value} for key, value in variables.items()],
        "steps": [{"name": "script", "script": ["smidr ci build"]}],
        "features": {"trace_sections": True, "failure_reasons": []},
    }
    return {**job, **changes}


class FakeBuilds:
    """Implements `BuildService`; `at_submit` decides what becomes of a build."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.orders: list[Order] = []
        self.records: dict[str, BuildRecord] = {}
        self.cancels: list[tuple[str, CancelLevel]] = []
        self.lock = threading.Condition()
        self.at_submit: Callable[[str], None] = self.succeed
        self.ends_on_cancel = True
        self._watchers: list[Callable[[], None]] = []

    def submit(self, order: Order, source: Path | None = None) -> BuildRecord:
        assert source is None
        with self.lock:
            self.orders.append(order)
            build_id = f"{order.customer}-{len(self.orders):08x}"
            self.records[build_id] = BuildRecord(
                build_id=build_id,
                customer=order.customer,
                project="p",
                targets=order.targets,
                state=BuildState.QUEUED,
                created=SystemClock().now(),
            )
        make_private_dir(self.console_of(build_id).parent)
        self.at_submit(build_id)
        return self.view(build_id).record

    def cancel(
        self, build_id: str, reason: str, level: CancelLevel = CancelLevel.INTERRUPT
    ) -> BuildRecord:
        with self.lock:
            self.cancels.append((reason, level))
            self.lock.notify_all()
        if self.ends_on_cancel:
            self.change(build_id, state=BuildState.CANCELLED, cancel_reason=reason)
        return self.view(build_id).record

    def view(self, build_id: str) -> BuildView:
        with self.lock:
            if build_id not in self.records:
                raise UsageError(f"there is no build {build_id}")
            return BuildView(1, self.records[build_id])

    def subscribe(self, build_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        with self.lock:
            assert build_id in self.records
            self._watchers.append(wake)
        return lambda: self._watchers.remove(wake)

    def change(self, build_id: str, **changes: Any) -> None:
        with self.lock:
            if not self.records[build_id].state.is_final:
                self.records[build_id] = replace(self.records[build_id], **changes)
            watchers = list(self._watchers)
            self.lock.notify_all()
        for wake in watchers:
            wake()

    def say(self, build_id: str, data: bytes) -> None:
        with self.console_of(build_id).open("ab") as stream:
            stream.write(data)
        self.change(build_id, state=BuildState.BUILDING)

    def succeed(self, build_id: str) -> None:
        self.say(build_id, b"NOTE: Tasks Summary: all succeeded.\n")
        self.change(build_id, state=BuildState.COMPLETED)

    def run_on(self, build_id: str) -> None:
        """It neither says anything nor ends."""
        self.change(build_id, state=BuildState.BUILDING)

    def fail(self, build_id: str, kind: FailureKind, message: str) -> None:
        self.change(build_id, state=BuildState.FAILED, failure_kind=kind, failure_message=message)

    def console_of(self, build_id: str) -> Path:
        return self.root / "builds" / build_id / "control" / "console.log"

    def wait_for(self, is_so: Callable[[], bool], timeout_s: float = 20) -> None:
        with self.lock:
            assert self.lock.wait_for(is_so, timeout_s)


class FakeCheckout:
    """Implements `Checkout` without git."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def run(self, job: Job, directory: Path, cancel: CancelToken, log: JobLog) -> Path:
        site = self._site
        site.checkouts.append(directory)
        site.jobs.append(job)
        site.checkout_began.set()
        with log.section("get_sources", "Getting source from Git repository"):
            log("Fetching changes...")
            is_held = len(site.checkouts) >= site.hold_from_checkout
            if site.hold_checkout is not None and is_held:
                while not site.hold_checkout.wait(0.05):
                    cancel.raise_if_cancelled()
            if site.checkout_error is not None:
                raise site.checkout_error
            project = directory / "project"
            project.mkdir(parents=True, exist_ok=True)
            for name, text in site.files.items():
                (project / name).write_text(text)
        return project


class FakeUploads:
    """Implements `Uploads` by remembering."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def run(
        self,
        job: Job,
        directory: Path,
        artifacts: Path | None,
        outcome: Outcome,
        cancel: CancelToken,
        log: JobLog,
    ) -> None:
        site = self._site
        when = "success" if outcome.succeeded else "failure"
        with log.section(f"upload_artifacts_on_{when}", f"Uploading artifacts for {when}"):
            site.upload_began.set()
            if site.hold_uploads is not None:
                while not site.hold_uploads.wait(0.05):
                    cancel.raise_if_cancelled()
            if site.upload_error is not None:
                raise site.upload_error
            site.uploads.append((job.id, directory, artifacts, outcome))
            site.uploaded_jobs.append(job)


class BashScripts:
    """Implements `Scripts` with the host's own bash: only fit for tests."""

    def __init__(self) -> None:
        self.runs: list[ScriptRun] = []
        self.forgotten: list[str] = []
        self.began = threading.Event()

    def forget(self, job_id: str) -> None:
        self.forgotten.append(job_id)

    def exports(self, folder: Path) -> Mapping[str, str]:
        path = folder / "gitlab_env"
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(line.split("=", 1) for line in lines)

    def run(
        self, script: ScriptRun, cancel: CancelToken, leave: threading.Event, log: JobLog
    ) -> ScriptEnd | None:
        self.runs.append(script)
        self.began.set()
        text = "set -e\n" + "\n".join(script.lines)
        process = subprocess.Popen(
            ["bash", "-c", text],
            cwd=script.directory,
            env={
                **os.environ,
                **script.environment,
                **self.exports(script.folder),
                "GITLAB_ENV": str(script.folder / "gitlab_env"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        with process.stdout:
            reader = threading.Thread(target=lambda: log.output(process.stdout.read()))  # type: ignore[union-attr]  # checked above
            reader.start()
            while process.poll() is None and not cancel.wait(0.02):
                pass
            if cancel.is_cancelled:
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()
            code = process.wait()
        if leave.is_set():
            return None
        if cancel.is_cancelled:
            raise CancelledError(cancel.reason, kind=cancel.kind)
        return ScriptEnd(code)


class Site:
    """One host and its server; what jobs do is decided by the attributes."""

    def __init__(self, root: Path, server: GitLabServer, clock: Clock) -> None:
        self.home = Home(make_private_dir(root / "home"))
        self.server = server
        self.clock = clock
        self.builds = FakeBuilds(self.home.root)
        self.scripts = BashScripts()
        self.files = {"smidr.yaml": "name: p\n"}
        self.checkouts: list[Path] = []
        self.checkout_error: SmidrError | None = None
        self.checkout_began = threading.Event()
        self.hold_checkout: threading.Event | None = None
        self.hold_from_checkout = 1
        """The number of the first checkout that is held."""
        self.jobs: list[Job] = []
        self.uploads: list[tuple[int, Path, Path | None, Outcome]] = []
        self.uploaded_jobs: list[Job] = []
        self.upload_error: SmidrError | None = None
        self.upload_began = threading.Event()
        self.hold_uploads: threading.Event | None = None
        self.cache_limit: int | None = None
        self.full: str | None = None
        self.calls: list[tuple[str, str]] = []
        self.runners: list[GitLabRunner] = []
        server.state.add_runner(TOKEN)
        self.registration = Registration("lab", "gitlab", server.url, TOKEN)
        Registrations(self.home).save(self.registration)

    def workshop(self, **changes: Any) -> Workshop:
        values: dict[str, Any] = {
            "home": self.home,
            "builds": self.builds,
            "console_of": self.builds.console_of,
            "artifacts_of": lambda record: self.home.artifacts / record.build_id,
            "checkout": self._checkout,
            "uploads": self._uploads,
            "scripts": self.scripts,
            "caches": JobCaches(self._archives, limits=ExtractLimits(spare_bytes=0)),
            "trust_of": lambda _job: Trust.TRUSTED,
            "clock": self.clock,
            "trace_interval_s": 0.2,
        }
        return Workshop(**{**values, **changes})

    def runner(self, pause: Callable[[float], bool] | None = None, **changes: Any) -> GitLabRunner:
        runner = GitLabRunner(
            self.registration,
            self.workshop(**changes),
            Seats(lambda _: self.full),
            on_call=lambda *call: self.calls.append(call),
            pause=pause,
            check_interval_s=0.05,
        )
        self.runners.append(runner)
        return runner

    def run_job(self, job: dict[str, Any] | None = None, **changes: Any) -> FakeJob:
        """Have a job done from its request to its end."""
        queued = self.server.add_job(job or payload())
        self.runner(**changes).start()
        self.wait_over(queued)
        return queued

    def wait_over(self, job: FakeJob, timeout_s: float = 20) -> None:
        self.server.wait_until(lambda: job.is_over, timeout_s)
        for runner in self.runners:
            runner.wait(timeout_s)

    def close(self) -> None:
        for event in (self.hold_checkout, self.hold_uploads):
            if event is not None:
                event.set()
        for runner in self.runners:
            runner.stop(timeout_s=5)

    def _archives(self) -> JobArchives:
        return JobArchives(self.home.job_caches, max_bytes=self.cache_limit, spare_bytes=0)

    def _checkout(self, _client: RunnerClient) -> FakeCheckout:
        return FakeCheckout(self)

    def _uploads(self, _client: RunnerClient) -> FakeUploads:
        return FakeUploads(self)


@contextmanager
def open_site(root: Path, prefix: str = "", clock: Clock | None = None) -> Iterator[Site]:
    with serve(prefix) as server:
        site = Site(root, server, clock or SystemClock())
        try:
            yield site
        finally:
            site.close()
