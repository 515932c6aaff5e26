"""What is kept of a job until the server has heard of its end: it outlives this process."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from smidr_ci.errors import HostError
from smidr_ci.files import (
    as_host_error,
    make_marked_dir,
    make_private_dir,
    remove_marked_tree,
    write_atomic,
)

__all__ = ["JobFolder", "JobState", "Phase"]

log = logging.getLogger(__name__)

_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9._-]", re.ASCII)
_MAX_BYTES: Final = 128 * 1024 * 1024


class Phase(StrEnum):
    """How far a job has come; a phase that was begun is begun again after a kill."""

    RECEIVED = "received"
    """Not acknowledged yet."""
    SOURCES = "sources"
    BEFORE = "before"
    """Lines of the script before the build."""
    BUILD = "build"
    AFTER = "after"
    """Lines of the script after the build."""
    AFTER_SCRIPT = "after-script"
    UPLOADS = "uploads"
    REPORT = "report"
    """All is done, the server must hear of it."""


@dataclass(frozen=True)
class JobState:
    """What changes while a job runs."""

    received: datetime
    phase: Phase = Phase.RECEIVED
    build_id: str = ""
    script_begun: datetime | None = None
    slot: int = 0
    """Number of its directory among the project's."""
    trust: str = ""
    """How far it is trusted, once that is decided."""
    directory: str = ""
    """Where its sources come to, once that is decided."""
    project: str = ""
    """The project's directory, once there is one."""
    prepared: tuple[str, ...] = ()
    """Steps beside the checkout itself that are done before the script, by name."""
    succeeded: bool = False
    failure_reason: str = ""
    exit_code: int = 0
    message: str = ""


@dataclass(frozen=True)
class JobFolder:
    """One job's directory under `$SMIDR_HOME/jobs`; it holds secrets, so it is ours alone."""

    path: Path
    registration: str
    payload: object = field(repr=False)

    @classmethod
    def create(
        cls,
        root: Path,
        registration: str,
        payload: object,
        job_id: int,
        state: JobState,
    ) -> Self:
        """Store a job that was just handed out; raises `HostError`.

        The registration is part of the name, since two servers may use the same number.
        """
        name = f"gitlab-{_NOT_IN_NAMES.sub('_', registration)}-{job_id:d}"
        path = root / name
        try:
            make_private_dir(root)
            if path.exists():  # a job that the server hands out again was lost on the way
                remove_marked_tree(path, root)
            make_marked_dir(path, mode=0o700)
            folder = cls(path, registration, payload)
            folder.save(state)
            text = json.dumps({"registration": registration, "payload": payload})
            write_atomic(path / "job.json", text, mode=0o600)
        except OSError as error:
            raise as_host_error(error, "can't store the job", path) from error
        return folder

    @classmethod
    def find_all(cls, root: Path, registration: str) -> Iterator[Self]:
        """The jobs of one registration that are not reported yet.

        One whose state is damaged (a disk that lost it) is left to be reported as the host's
        fault; without its payload nothing can be said of it.
        """
        for path in sorted(root.glob("gitlab-*")):
            try:
                found = json.loads(_read(path / "job.json"))
                folder = cls(path, found["registration"], found["payload"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("passing over %s: %s", path, error)
                continue
            if folder.registration != registration:
                continue
            try:
                folder.load()
            except HostError as error:
                log.warning("%s", error)
                folder.save(_lost(path))
            yield folder

    def load(self) -> JobState:
        """The state as it was saved last; raises `HostError`."""
        try:
            found = json.loads(_read(self.path / "state.json"))
            known = {item.name for item in fields(JobState)}
            values = {key: value for key, value in found.items() if key in known}
            values["received"] = datetime.fromisoformat(values["received"])
            begun = values.get("script_begun")
            values["script_begun"] = datetime.fromisoformat(begun) if begun else None
            values["prepared"] = tuple(values.get("prepared", ()))
            values["phase"] = Phase(values.get("phase", Phase.RECEIVED))
            return JobState(**values)
        except OSError as error:
            raise as_host_error(error, "can't read the job's state", self.path) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HostError(f"the job's state is damaged: {error}", where=str(self.path)) from error

    def save(self, state: JobState) -> None:
        """Replace the stored state; raises `HostError`."""
        plain = {**asdict(state), "received": state.received.isoformat()}
        if state.script_begun is not None:
            plain["script_begun"] = state.script_begun.isoformat()
        try:
            write_atomic(self.path / "state.json", json.dumps(plain), mode=0o600)
        except OSError as error:
            raise as_host_error(error, "can't store the job's state", self.path) from error

    def update(self, state: JobState, **changes: Any) -> JobState:  # noqa: ANN401 - its fields
        """The state with changes, saved."""
        changed = replace(state, **changes)
        self.save(changed)
        return changed

    def remove(self) -> None:
        """Forget the job: the server has its result."""
        try:
            remove_marked_tree(self.path, self.path.parent)
        except OSError as error:
            raise as_host_error(error, "can't delete the job's directory", self.path) from error


def _lost(path: Path) -> JobState:
    return JobState(
        received=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        phase=Phase.REPORT,
        failure_reason="runner_system_failure",
        message="the runner lost the state of this job",
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_MAX_BYTES)
