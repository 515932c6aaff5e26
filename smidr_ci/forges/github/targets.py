"""Where a build's check belongs; kept on disk until GitHub has heard of the build's end."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from smidr_ci.errors import UsageError
from smidr_ci.files import as_host_error, make_private_dir, write_atomic
from smidr_ci.forges.github.site import is_repository_name
from smidr_ci.home import Home

__all__ = ["JOB_PAGE", "CheckNames", "CheckTarget", "Targets"]

log = logging.getLogger(__name__)

JOB_PAGE: Final = re.compile(
    r"https?://[^/]+/([^/]+/[^/]+)/actions/runs/(\d{1,19})(?:/jobs?/(\d{1,19}))?(?![\w/])",
    re.ASCII,
)
"""The page of a run in Actions, or of a job: repository, run and job."""

_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&*+,;=%\[\]()'-]{1,2000}")
_MOST_NAMES: Final = 20
_MOST_REPOSITORIES: Final = 500
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class CheckTarget:
    """One check on one commit."""

    repository: str
    """`owner/name`, where the check is shown: for a fork's pull request the base repository."""
    head_sha: str
    name: str
    """The check's name; stable, since branch protection asks for it by name."""
    details_url: str = ""
    """Of the job in Actions, or of a page of the agent."""
    config_path: str = "smidr.yaml"
    """Relative to the repository."""
    directory: str = ""
    """The repository's files on this host, to tell which findings are in them; may be gone."""
    run_id: int = 0
    """The workflow run that the build belongs to; 0 without one."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for what GitHub or a path would not take."""
        if not is_repository_name(self.repository) or not _SHA.fullmatch(self.head_sha):
            raise UsageError("a check needs a repository 'owner/name' and a full commit id")
        if not self.name.strip() or len(self.name) > 200 or not self.name.isprintable():
            raise UsageError("a check needs a name of 1 to 200 characters")
        if self.details_url and not _URL.fullmatch(self.details_url):
            raise UsageError("a check's details must be at an http or https URL")

    @classmethod
    def from_plain(cls, raw: Mapping[str, Any]) -> Self:
        """The way back from `as_plain`; raises `TypeError` or `UsageError` for another shape."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in raw.items() if key in known})

    def as_plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Targets:
    """One file per build of a registration under `$SMIDR_HOME/github`."""

    def __init__(self, home: Home, registration: str) -> None:
        self._folder = home.root / "github" / registration / "checks"

    def save(self, build_id: str, target: CheckTarget) -> None:
        """On disk when this returns; raises `HostError`."""
        path = self._path(build_id)
        try:
            make_private_dir(self._folder)
            write_atomic(path, json.dumps(target.as_plain()), mode=0o600)
        except OSError as error:
            raise as_host_error(error, "can't store where a check belongs", path) from error

    def remove(self, build_id: str) -> None:
        """GitHub knows how the build ended, or will never know."""
        try:
            self._path(build_id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("can't forget the check of %s: %s", build_id, error)

    def get(self, build_id: str) -> CheckTarget | None:
        """The target of one build that is not over for GitHub."""
        return _read(self._path(build_id))

    def all(self) -> Iterator[tuple[str, CheckTarget]]:
        """Those that are not over for GitHub; what can't be read is passed over."""
        for path in sorted(self._folder.glob("*.json")):
            target = _read(path)
            if target is not None:
                yield path.stem, target

    def _path(self, build_id: str) -> Path:
        return self._folder / f"{Path(build_id).name}.json"


def _read(path: Path) -> CheckTarget | None:
    try:
        return CheckTarget.from_plain(json.loads(path.read_bytes()[:_MAX_BYTES]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, UsageError) as error:
        log.warning("passing over %s: %s", path, error)
        return None


class CheckNames:
    """Under which names this host reports in each repository, for commits of a merge queue."""

    def __init__(self, home: Home, registration: str) -> None:
        self._path = home.root / "github" / registration / "names.json"
        self._lock = threading.Lock()

    def add(self, repository: str, name: str) -> None:
        """Remember a name; trouble with it costs the merge queue's early check only."""
        with self._lock:
            known = self._load()
            names = [name, *(item for item in known.pop(repository, []) if item != name)]
            known = {repository: names[:_MOST_NAMES], **known}
            kept = dict(list(known.items())[:_MOST_REPOSITORIES])
            try:
                make_private_dir(self._path.parent)
                write_atomic(self._path, json.dumps(kept), mode=0o600)
            except OSError as error:
                log.warning("can't remember the name of a check: %s", error)

    def of(self, repository: str) -> tuple[str, ...]:
        """The names used last first."""
        return tuple(self._load().get(repository, ()))

    def _load(self) -> dict[str, list[str]]:
        try:
            found = json.loads(self._path.read_bytes()[:_MAX_BYTES])
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
