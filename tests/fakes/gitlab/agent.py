"""A process that does GitLab's jobs with builds that live in files: made to be killed.

Usage: python agent.py HOME URL TOKEN
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.service import BuildView
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.clock import SystemClock
from smidr_ci.forges.external import PlacedFile
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.ports import JobLog, Outcome
from smidr_ci.forges.gitlab.runner import GitLabRunner
from smidr_ci.forges.gitlab.workshop import Workshop
from smidr_ci.forges.registration import Registration
from smidr_ci.forges.seats import Seats
from smidr_ci.home import Home


class FileBuilds:
    """Implements `BuildService`: `console.log` and `done` in a build's directory say it all."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def submit(self, order: Order, source: Path | None = None) -> BuildRecord:
        assert source is None
        build_id = f"{order.customer}-{len(list(self.root.iterdir())):08x}"
        (self.root / build_id).mkdir()
        (self.root / build_id / "by").write_text(order.requested_by)
        return self.view(build_id).record

    def cancel(
        self, build_id: str, reason: str, level: CancelLevel = CancelLevel.INTERRUPT
    ) -> BuildRecord:
        raise AssertionError(f"{build_id} must not be cancelled: {reason}, {level}")

    def view(self, build_id: str) -> BuildView:
        is_done = (self.root / build_id / "done").exists()
        record = BuildRecord(
            build_id=build_id,
            customer=build_id.rpartition("-")[0],
            project="p",
            targets=(),
            state=BuildState.COMPLETED if is_done else BuildState.BUILDING,
            created=SystemClock().now(),
            requested_by=(self.root / build_id / "by").read_text(),
        )
        return BuildView(1, record)

    def subscribe(self, build_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        assert (self.root / build_id).is_dir()
        ended = threading.Event()

        def ring() -> None:
            while not ended.wait(0.02):
                wake()

        threading.Thread(target=ring, daemon=True).start()
        return ended.set

    def known(self, customer: str) -> list[BuildRecord]:
        found = [path.name for path in self.root.glob(f"{customer}-*") if (path / "by").exists()]
        return [self.view(name).record for name in found]


class Bare:
    """Implements `Checkout` and `Uploads` with nothing to do."""

    def __init__(self, _client: RunnerClient) -> None:
        pass


class BareCheckout(Bare):
    def run(self, job: Job, directory: Path, cancel: CancelToken, log: JobLog) -> Path:
        cancel.raise_if_cancelled()
        log(f"sources of {job.id}")
        (directory / "smidr.yaml").write_text("name: p\n")
        return directory


class BareUploads(Bare):
    def run(
        self,
        job: Job,
        directory: Path,
        artifacts: Path | None,
        outcome: Outcome,
        cancel: CancelToken,
        log: JobLog,
    ) -> Sequence[PlacedFile]:
        cancel.raise_if_cancelled()
        log(f"uploads of {job.id}: {outcome.succeeded} {directory.name} {artifacts is not None}")
        return ()


def main(home: str, url: str, token: str) -> None:
    builds = FileBuilds(Path(home) / "builds")
    workshop = Workshop(
        home=Home(Path(home)),
        builds=builds,
        console_of=lambda build_id: builds.root / build_id / "console.log",
        artifacts_of=lambda record: builds.root / record.build_id,
        checkout=BareCheckout,
        uploads=BareUploads,
        builds_of=builds.known,
        trace_interval_s=0.1,
    )
    registration = Registration("lab", "gitlab", url, token)
    GitLabRunner(registration, workshop, Seats(lambda _: None), check_interval_s=0.05).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
