"""Which official runner this host starts: the operator's archive, or the newest of GitHub's.

GitHub refuses runners that are some weeks behind, so what it offers is looked at now and then.
REST: `GET /repos|orgs/.../actions/runners/downloads`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from smidr_ci.clock import Clock
from smidr_ci.config.runners import RunnerSettings
from smidr_ci.errors import HostError, SmidrError
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.github.runners.archive import Archive, verify
from smidr_ci.forges.github.runners.ports import Downloads, RunnerDownload
from smidr_ci.forges.sessions import SessionHolder, root_of
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.text import printable

__all__ = ["Installs"]

log = logging.getLogger(__name__)

_CHUNK: Final = 1 << 20
_MOST_BYTES: Final = 2 << 30
_TIMEOUTS_S: Final = (15.0, 60.0)
_UNUSED: Final = timedelta(days=7)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_VERSION: Final = re.compile(
    r"-([0-9]{1,4}(?:\.[0-9]{1,6}){2})(?:-[a-z-]{1,40})?\.tar\.gz$", re.ASCII
)
_ARCHITECTURES: Final = {"x86_64": "x64", "aarch64": "arm64", "armv7l": "arm"}
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Installs:
    """The archive of one registration; `folder` keeps what was downloaded. Thread-safe."""

    def __init__(
        self,
        settings: Callable[[], RunnerSettings],
        folder: Path,
        downloads: Downloads,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._downloads = downloads
        self._clock = clock
        self._lock = threading.Lock()
        self._session = SessionHolder(TlsFiles(), pool_size=1)
        self._current: Archive | None = None
        self._refused: set[str] = set()
        self.problem = "the official runner is not there yet"
        """Why `current` is None, or why it is not the newest; empty when all is well."""

    @property
    def current(self) -> Archive | None:
        """What runners are unpacked from; None as long as there is nothing of use."""
        found = self._current
        return None if found is None or found.sha256 in self._refused else found

    def doubt(self) -> None:
        """Use it no more until `refresh` has looked at it again: something is wrong with it."""
        self._current = None
        self.problem = "the official runner could not be started, and is looked at again"

    def refuse(self, sha256: str, version: str) -> None:
        """GitHub takes no runner of this version any more; another one is needed."""
        self._refused.add(sha256)
        hint = " (github.runners.tarball names it)" if self._settings().tarball else ""
        self.problem = f"GitHub takes no runner of version {version or sha256[:12]} any more{hint}"
        log.error("%s", self.problem)

    def refresh(self) -> None:
        """Find out what to use, and download it when it is not here; trouble is in `problem`."""
        with self._lock:
            try:
                found = self._chosen()
            except SmidrError as error:
                what = "official runner" if self._current is None else "newer official runner"
                where = f" ({error.where})" if error.where else ""
                self.problem = f"there is no {what}: {error.message}{where}"
                log.warning("%s", error)
                return
            if found.sha256 in self._refused:
                return
            if found != self._current:
                log.info("the official runner is version %s", found.version or "unknown")
            self._current = found
            self.problem = ""
        self._forget_old()

    def close(self) -> None:
        """End a download that runs; nothing is downloaded any more."""
        self._session.end()
        self._session.close()

    def _chosen(self) -> Archive:
        settings = self._settings()
        if settings.tarball is not None and settings.sha256 is not None:
            path = settings.tarball.resolve()
            archive = Archive(path, settings.sha256, _version_of(path.name))
            if self._current is None or archive != self._current:
                verify(archive)
            return archive
        return self._downloaded(_newest(self._downloads()))

    def _downloaded(self, offer: RunnerDownload) -> Archive:
        sha256 = offer.sha256_checksum.lower()
        if not _SHA256.fullmatch(sha256):
            raise ForgeError(
                "GitHub names no SHA-256 of the official runner",
                hint="Name an archive and its SHA-256 in agent.yaml, under github.runners.",
            )
        version = _version_of(offer.filename)
        archive = Archive(
            self._folder / f"{version or 'any'}-{sha256[:16]}.tar.gz", sha256, version
        )
        if archive == self._current and archive.path.exists():
            return archive
        with contextlib.suppress(SmidrError):  # not there, or changed
            verify(archive)
            return archive
        self._fetch(offer, archive)
        return archive

    def _fetch(self, offer: RunnerDownload, archive: Archive) -> None:
        parts = urlsplit(offer.download_url)
        if parts.scheme != "https" and parts.hostname not in _LOCAL:
            raise ForgeError("GitHub offers the official runner without TLS")
        log.info("downloading the official runner %s", archive.version)
        token = offer.temp_download_token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            make_private_dir(self._folder)
            self._remove_parts()
            part = self._folder / f".part-{secrets.token_hex(6)}"
            try:
                with part.open("xb") as file:
                    found = self._copy(offer.download_url, headers, file)
                if found != archive.sha256:
                    raise HostError(
                        f"the download has the SHA-256 {found}, and not GitHub's {archive.sha256}",
                        where=f"{parts.scheme}://{parts.netloc}{parts.path}",
                        hint="Does a proxy change what is downloaded?",
                    )
                part.replace(archive.path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise as_host_error(error, "can't keep the official runner", self._folder) from error

    def _copy(self, url: str, headers: dict[str, str], file: IO[bytes]) -> str:
        """Download into the file; the SHA-256 of what came."""
        import requests  # noqa: PLC0415 - imported with the session anyway

        hashed, size = hashlib.sha256(), 0
        try:
            session = self._session.get()
            with session.get(url, headers=headers, stream=True, timeout=_TIMEOUTS_S) as answer:
                if answer.status_code != 200:
                    raise ForgeError(
                        f"the official runner can't be downloaded: HTTP {answer.status_code}",
                        where=url.partition("?")[0],
                        status=answer.status_code,
                    )
                for chunk in answer.iter_content(_CHUNK):
                    size += len(chunk)
                    if size > _MOST_BYTES:
                        raise ForgeError("the download of the official runner does not end")
                    hashed.update(chunk)
                    file.write(chunk)
        except (requests.RequestException, ValueError) as error:
            said = printable(str(root_of(error)))[:300]
            raise ForgeUnreachableError(
                f"the download of the official runner broke off: {said}",
                where=url.partition("?")[0],
            ) from None
        file.flush()
        os.fsync(file.fileno())
        return hashed.hexdigest()

    def _remove_parts(self) -> None:
        """What a download left that a crash ended."""
        oldest = (self._clock.now() - timedelta(hours=6)).timestamp()
        for part in self._folder.glob(".part-*"):
            with contextlib.suppress(OSError):
                if part.lstat().st_mtime < oldest:
                    part.unlink()

    def _forget_old(self) -> None:
        """Remove versions that nothing was unpacked from for a week."""
        now = self._clock.now()
        current = self._current
        for path in self._folder.glob("*.tar.gz"):
            with contextlib.suppress(OSError):
                if current is not None and path == current.path:
                    os.utime(path, (now.timestamp(), now.timestamp()))
                elif path.lstat().st_mtime < (now - _UNUSED).timestamp():
                    path.unlink()


def _newest(offers: Sequence[RunnerDownload]) -> RunnerDownload:
    machine = platform.machine()
    wanted = ("linux", _ARCHITECTURES.get(machine, machine))
    found = [item for item in offers if (item.os, item.architecture) == wanted]
    if not found:
        raise ForgeError(
            f"GitHub offers no runner for {machine}",
            hint="Name an archive in agent.yaml, under github.runners.",
        )
    return max(found, key=lambda item: _numbers(_version_of(item.filename)))


def _version_of(filename: str) -> str:
    found = _VERSION.search(filename)
    return found[1] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")) if version else ()
