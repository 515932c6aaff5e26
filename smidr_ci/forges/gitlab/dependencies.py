"""Artifacts of earlier jobs come down (GitLab: GET jobs/:id/artifacts) into the project."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import urljoin, urlsplit

import requests

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import BuildFailedError, FailureKind, SmidrError
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.checkout_settings import attempts_of
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.extraction import ExtractLimits, extract
from smidr_ci.forges.gitlab.payload import Dependency, Job
from smidr_ci.forges.gitlab.ports import JobLog
from smidr_ci.forges.gitlab.transport import Pause
from smidr_ci.forges.gitlab.variables import expand
from smidr_ci.text import printable

__all__ = ["Downloads"]

_TIMEOUT_S: Final = (30.0, 600.0)
_TRIES: Final = 3
_REDIRECTS: Final = 5
_FATAL: Final = {
    401: "the token of the job was refused",
    403: "the job's project may not read them",
    404: "there are none: they expired or were deleted, or the job made none",
}


class _TryAgainError(Exception):
    """What may go well the next time."""


@dataclass(frozen=True)
class Downloads:
    """Implements `ports.Dependencies`: fetches and unpacks."""

    client: RunnerClient
    scratch: Path
    """A directory on the host that no build sees."""
    max_bytes: int = 100 << 30
    limits: ExtractLimits = ExtractLimits()
    pause: Pause | None = None
    """Waits between attempts; the default ends with the cancel."""

    def __call__(self, job: Job, directory: Path, cancel: CancelToken, say: JobLog) -> bool:
        """Bring the archives in the job's order; raises `SmidrError`, `CancelledError`.

        Dependencies without an archive are passed over, and without any there is no section.
        """
        wanted = [item for item in job.dependencies if item.filename]
        if not wanted:
            return False
        tries = _TRIES * attempts_of(
            expand(job.variables), "ARTIFACT_DOWNLOAD_ATTEMPTS", say.warning
        )
        with say.section("download_artifacts", "Downloading artifacts"):
            for item in wanted:
                say(f"Downloading artifacts for {printable(item.name)} ({item.id})...")
                count = self._bring(item, directory, cancel, say, tries)
                say.info(f"Downloaded and unpacked {count} entries of {printable(item.name)}.")
        return True

    def _bring(
        self, item: Dependency, project: Path, cancel: CancelToken, say: JobLog, tries: int
    ) -> int:
        for attempt in range(1, tries + 1):
            cancel.raise_if_cancelled()
            try:
                make_private_dir(self.scratch)
                with tempfile.TemporaryFile(dir=self.scratch) as file:
                    self._download(item, file, cancel, is_direct=attempt == 1)
                    return extract(
                        file, project, warn=say.warning, cancel=cancel, limits=self.limits
                    )
            except _TryAgainError as error:
                if attempt == tries:
                    raise ForgeError(
                        f"can't download the artifacts of {printable(item.name)} ({item.id})"
                        f" after {tries} tries: {error}",
                        hint="Run the job again.",
                    ) from error
                say.warning(f"{error}; trying again")
                (self.pause or cancel.wait)(float(min(attempt, 10)))
            except OSError as error:
                raise as_host_error(error, "can't keep the artifacts", self.scratch) from error
        raise AssertionError("unreachable")

    def _download(
        self, item: Dependency, file: IO[bytes], cancel: CancelToken, *, is_direct: bool
    ) -> None:
        url = self.client.artifacts_url(item.id)
        headers: Mapping[str, str] = self.client.job_headers(item.token)
        params = {"direct_download": "true"} if is_direct else {}
        try:
            for _ in range(_REDIRECTS):
                with self.client.transport.session().get(
                    url,
                    params=params,
                    headers=dict(headers),
                    timeout=_TIMEOUT_S,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    target = response.headers.get("Location", "")
                    if response.status_code not in {301, 302, 303, 307, 308} or not target:
                        self._take(response, item, file, cancel)
                        return
                # Where it leads is the object storage: its URL is signed, and no token is its own.
                url, headers, params = _followed(url, target), {"User-Agent": "smidr-ci"}, {}
        except requests.RequestException as error:
            raise _TryAgainError(f"no answer: {printable(str(error))[:300]}") from error
        raise _TryAgainError("the server redirects without end")

    def _take(
        self, response: requests.Response, item: Dependency, file: IO[bytes], cancel: CancelToken
    ) -> None:
        if response.status_code != 200:
            raise _failure(response, item)
        left = self.max_bytes
        for chunk in response.iter_content(1 << 18):
            cancel.raise_if_cancelled()
            left -= len(chunk)
            if left < 0:
                raise _refused(item, f"they are bigger than {self.max_bytes / 1e9:.1f} GB")
            file.write(chunk)
        file.flush()


def _followed(url: str, target: str) -> str:
    found = urljoin(url, target)
    here, there = urlsplit(url).scheme, urlsplit(found).scheme
    if there not in {"http", "https"} or (here == "https" and there != "https"):
        raise ForgeError(
            f"the server sends the download to {printable(found)[:200]}", where=url,
            hint="Is the object storage of GitLab configured with an https address?",
        )  # fmt: skip
    return found


def _failure(response: requests.Response, item: Dependency) -> Exception:
    status = response.status_code
    if status in _FATAL:
        return _refused(item, f"{_FATAL[status]} (the server answers {status})")
    return _TryAgainError(f"the server answers {status}")


def _refused(item: Dependency, why: str) -> SmidrError:
    return BuildFailedError(
        f"can't use the artifacts of {printable(item.name)} ({item.id}): {why}",
        hint="Run that job again, or leave it out with `dependencies` in .gitlab-ci.yml.",
        kind=FailureKind.ARTIFACTS,
    )
