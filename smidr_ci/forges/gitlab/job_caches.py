"""A job's `cache:` is restored before its script and saved after it.

A cache only saves time: whatever goes wrong with it is a warning, and no job fails for it.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Final

from smidr_ci.caches.job_archives import JobArchives
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import ConfigError, SmidrError
from smidr_ci.files import as_host_error
from smidr_ci.forges.gitlab.archive import LEVELS, zip_pieces
from smidr_ci.forges.gitlab.cache_keys import fallback_keys, key_of, policy_of
from smidr_ci.forges.gitlab.checkout import untracked_files
from smidr_ci.forges.gitlab.context import in_project, variables_of
from smidr_ci.forges.gitlab.extraction import ExtractLimits, entry_time, extract
from smidr_ci.forges.gitlab.payload import Cache, Job
from smidr_ci.forges.gitlab.ports import JobLog
from smidr_ci.forges.gitlab.selection import Selection, Tree, select
from smidr_ci.forges.gitlab.unpacking import MAX_LINK
from smidr_ci.forges.gitlab.variables import JobVariables, expand_text
from smidr_ci.layers.gitcmd import Git
from smidr_ci.text import printable

__all__ = ["JobCaches"]

_PULLED: Final = frozenset({"pull", "pull-push"})
_PUSHED: Final = frozenset({"push", "pull-push"})


@dataclass(frozen=True)
class JobCaches:
    """Implements `ports.Caches`."""

    archives: Callable[[], JobArchives]
    """With the operator's newest limits."""
    git: Git = field(default_factory=Git)
    limits: ExtractLimits = ExtractLimits()

    def restore(
        self, job: Job, owner: str, directory: Path, cancel: CancelToken, log: JobLog
    ) -> bool:
        """See `ports.Caches`."""
        variables = variables_of(job)
        wanted = [item for item in _filled(job) if policy_of(item, variables) in _PULLED]
        if not wanted:
            return False
        run = _Run(self, job, owner, directory, variables, cancel, log)
        with log.section("restore_cache", "Restoring cache"):
            for entry in wanted:
                run.restore(entry)
        return True

    def save(
        self,
        job: Job,
        owner: str,
        directory: Path,
        cancel: CancelToken,
        log: JobLog,
        *,
        succeeded: bool,
    ) -> None:
        """See `ports.Caches`."""
        variables = variables_of(job)
        fitting = {"always", "on_success" if succeeded else "on_failure"}
        due = [entry for entry in _filled(job) if entry.when in fitting]
        wanted = [entry for entry in due if _is_pushed(entry, variables)]
        if not wanted:
            return
        run = _Run(self, job, owner, directory, variables, cancel, log)
        name = "archive_cache" if succeeded else "archive_cache_on_failure"
        word = "successful" if succeeded else "failed"
        with log.section(name, f"Saving cache for {word} job"):
            for entry in wanted:
                run.save(entry)


def _filled(job: Job) -> list[Cache]:
    return [entry for entry in job.cache if entry.paths or entry.untracked]


def _is_pushed(entry: Cache, variables: JobVariables) -> bool:
    try:
        return policy_of(entry, variables) in _PUSHED
    except ConfigError:  # the job has failed for it already
        return False


@dataclass(frozen=True)
class _Run:
    """The caches of one job, at one end of it."""

    how: JobCaches
    job: Job
    owner: str
    directory: Path
    variables: JobVariables
    cancel: CancelToken
    say: JobLog

    def restore(self, entry: Cache) -> None:
        """Unpack the first archive that is there."""
        warn = self.say.warning
        key = key_of(entry, self.variables, warn)
        if not key:
            return
        for name in chain([key], fallback_keys(entry, self.variables, warn)):
            if name and self._unpack(name):
                return

    def _unpack(self, key: str) -> bool:
        self.say(f"Checking cache for {printable(key)}...")
        archives = self.how.archives()
        try:
            file = archives.open(self.owner, key)
            if file is None:
                self.say("No archive has this key.")
            else:
                with file:
                    self._extract(file)
                self.say.info("Successfully extracted cache")
                return True
        except OSError as error:
            self.say.warning(
                as_host_error(
                    error, "can't read the cache", archives.place(self.owner, key)
                ).message
            )
        except SmidrError as error:
            self.cancel.raise_if_cancelled()
            self.say.warning(error.message)
        self.say.warning("Failed to extract cache")
        return False

    def _extract(self, file: IO[bytes]) -> None:
        extract(
            file,
            self.directory,
            warn=self.say.warning,
            cancel=self.cancel,
            limits=self.how.limits,
        )

    def save(self, entry: Cache) -> None:
        """Keep what the entry names, unless it is kept just so already."""
        key = key_of(entry, self.variables, self.say.warning)
        if not key:
            return
        self.say(f"Creating cache {printable(key)}...")
        try:
            selection = self._select(entry)
            if not selection.paths:
                self.say.warning("No files to cache.")
            elif self._is_kept(key, selection):
                self.say("Archive is up to date!")
            else:
                size = self._pack(key, selection)
                self.say.info(f"Created cache ({size / 1e6:.1f} MB)")
        except SmidrError as error:
            self.cancel.raise_if_cancelled()
            self.say.warning(str(error))
            self.say.warning("Failed to create cache")

    def _select(self, entry: Cache) -> Selection:
        return select(
            Tree(self.directory),
            paths=[in_project(expand_text(path, self.variables)) for path in entry.paths],
            untracked=self._untracked() if entry.untracked else (),
            warn=self.say.warning,
            note=self.say,
        )

    def _untracked(self) -> Iterable[str]:
        form = self.job.git_info.object_format
        return untracked_files(self.directory, self.how.git, self.cancel, object_format=form)

    def _is_kept(self, key: str, selection: Selection) -> bool:
        try:
            file = self.how.archives().open(self.owner, key)
            if file is None:
                return False
            with file:
                return _holds(file, selection)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
            return False

    def _pack(self, key: str, selection: Selection) -> int:
        name = self.variables.get("CACHE_COMPRESSION_LEVEL", "default")
        level = LEVELS.get(name, LEVELS["default"])
        pieces = zip_pieces(selection, level=level, warn=self.say.warning)
        chunks = (piece.data for piece in pieces)
        return self.how.archives().save(self.owner, key, chunks, self.cancel)


def _holds(file: IO[bytes], selection: Selection) -> bool:
    """Whether the archive has just these entries, with the sizes, times and modes of now."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        for path in selection.paths:
            place = selection.place(path)
            info = place.lstat()
            if stat.S_ISDIR(info.st_mode):
                entry = entries.pop(f"{path}/", None)
                is_same = entry is not None
            elif stat.S_ISREG(info.st_mode):
                entry = entries.pop(path, None)
                is_same = entry is not None and _facts(entry) == _facts_now(info)
            elif stat.S_ISLNK(info.st_mode):
                entry = entries.pop(path, None)
                is_same = entry is not None and _target(archive, entry) == os.readlink(place)
            else:
                is_same = True  # no archive has such
            if not is_same:
                return False
    return not entries


def _facts(entry: zipfile.ZipInfo) -> tuple[int, int, int]:
    return entry.file_size, entry.external_attr >> 16 & 0o777, int(entry_time(entry))


def _facts_now(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_size, info.st_mode & 0o777, int(info.st_mtime)


def _target(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str | None:
    is_link = stat.S_ISLNK(entry.external_attr >> 16) and entry.file_size <= MAX_LINK
    return os.fsdecode(archive.read(entry)) if is_link else None
