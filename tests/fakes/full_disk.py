"""Builds in a home on a small disk that is full from a chosen step on, until space is made."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smidr_ci.builds.accept import request_for
from smidr_ci.builds.enlist import enlist
from smidr_ci.builds.host import Host
from smidr_ci.builds.observer import SilentObserver
from smidr_ci.builds.pipeline import drive
from smidr_ci.builds.views import record_as_dict
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import SmidrError
from tests.fakes.crashes import CrashSite
from tests.fakes.disk import make_full, make_roomy, small_disk
from tests.fakes.runtime import FakeContainer

__all__ = ["FullDiskSite", "Told", "full_disk_site"]


@dataclass(frozen=True)
class Told:
    """What a build came to: its record, or an error when there is none."""

    steps: int
    record: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Of its failure; empty when it has completed."""
        return str(self.error.get("kind") or self.record.get("failure_kind") or "")

    @property
    def message(self) -> str:
        """All that the user is told of the failure."""
        return str(self.error.get("text") or self.record.get("failure_message") or "")


@dataclass
class FullDiskSite(CrashSite):
    """A `CrashSite` whose home is a file system of its own."""

    def build(self, full_at: int | None = None) -> Told:
        """A build that finds the disk full from this step on, in a process of its own."""

        def work(host: Host) -> None:
            try:
                order = self.order_of(f"step {full_at}")
                record, claim = enlist(host, request_for(host, order), order)
                final = drive(host, record, claim, CancelToken(), SilentObserver())
                told: dict[str, object] = {"record": record_as_dict(final)}
            except SmidrError as error:
                told = {"error": {"kind": str(error.kind), "text": str(error)}}
            self._answer.write_text(json.dumps(told))

        self._answer.unlink(missing_ok=True)
        steps = self._live(work, full_at)
        assert steps is not None
        return Told(steps, **json.loads(self._answer.read_text()))

    def make_space(self) -> None:
        """As an operator does who has heard of it."""
        make_roomy(self.home)

    def empty(self) -> None:
        """As a home is before its first build."""
        for path in self.home.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)  # a detached deletion may be at it
            else:
                path.unlink()

    def check_whole(self) -> None:
        """Nothing half written stands under a name that somebody believes in."""
        for path in self.home.rglob("*.json"):
            if not any(part.startswith(".") for part in path.relative_to(self.home).parts):
                json.loads(path.read_text())
        if (self.home / "smidr.db").exists():
            with closing(sqlite3.connect(self.home / "smidr.db")) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for manifest in self.home.glob("artifacts/*/[!.]*/manifest.json"):
            for item in json.loads(manifest.read_text())["artifacts"]:
                content = (manifest.parent / item["path"]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == item["sha256"]


@contextmanager
def full_disk_site(
    root: Path, program: Callable[[FakeContainer], int], *, names: bool, **more: Any
) -> Iterator[FullDiskSite]:
    """The site; `names` fills the disk so that not even an empty file can be made.

    Skips the test where no file system can be mounted.
    """

    def meets_full_disk(container: FakeContainer) -> int:
        try:
            return program(container)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return 1  # as BitBake and its driver, who then can't even say so

    site = FullDiskSite(root, meets_full_disk, **more)
    with small_disk(site.home, "64m"):
        site.home.chmod(0o700)
        site.fate = lambda: make_full(site.home, names=names)
        yield site
