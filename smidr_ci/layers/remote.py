"""The far end of a repository: what its refs are, and how often and where to ask."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final, TypeVar

from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock
from smidr_ci.layers.credentials import ChildAccess, Credentials
from smidr_ci.layers.failures import GitError, GitFailure
from smidr_ci.layers.gitcmd import Git
from smidr_ci.layers.urls import RepositoryUrl

__all__ = ["Refs", "Remote"]

T = TypeVar("T")

_REF_LINE: Final = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\t(HEAD|refs/\S+)")
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0
_SLICE_S: Final = 0.5
# Trying elsewhere can't help: the fault is on this machine or in what was asked for.
_FINAL: Final = frozenset({GitFailure.DISK, GitFailure.CORRUPT, GitFailure.UNSERVED})


@dataclass(frozen=True)
class Refs:
    """Branches and tags (peeled to commits) of a repository, and where HEAD points."""

    url: RepositoryUrl
    """The URL that answered: the repository's own, or a mirror."""
    branches: Mapping[str, str]
    tags: Mapping[str, str]
    head: str | None

    def near(self, name: str) -> list[str]:
        """Branches, or else tags, whose names are most like this one."""
        for names in (self.branches, self.tags):
            found = get_close_matches(name, names, n=3, cutoff=0.5)
            if found:
                return found
        return sorted(self.branches)[:3]


@dataclass(frozen=True)
class Remote:
    """One repository under its URL and its mirrors' URLs, asked in this order."""

    urls: tuple[RepositoryUrl, ...]
    git: Git
    credentials: Credentials
    clock: Clock
    attempts: int
    report: Callable[[str], None]

    def list_refs(self, cancel: CancelToken) -> Refs:
        """One `git ls-remote`; raises `GitError` with the failure of the first URL."""

        def ask(url: RepositoryUrl, access: ChildAccess) -> Refs:
            raw = self.git.run(["ls-remote", "--", url.url], cancel=cancel, access=access)
            return _read_refs(url, raw.decode(errors="replace"))

        return self.ask(ask, cancel)

    def ask(self, question: Callable[[RepositoryUrl, ChildAccess], T], cancel: CancelToken) -> T:
        """Ask each URL, again after a network failure, until one answers.

        Raises the first URL's `GitError`, naming that URL and saying how the mirrors failed.
        """
        failed: list[GitError] = []
        for url in self.urls:
            try:
                return self._ask_patiently(url, question, cancel)
            except GitError as error:
                failed.append(GitError(error.failure, error.line, url.url))
                if error.failure in _FINAL:
                    break
                if url is not self.urls[-1]:
                    self.report(f"{url.url}: {error.failure}: {error.line}; trying a mirror")
        first = failed[0]
        others = "".join(f"; mirror {error.url}: {error.line}" for error in failed[1:])
        raise GitError(first.failure, first.line + others, first.url)

    def _ask_patiently(
        self,
        url: RepositoryUrl,
        question: Callable[[RepositoryUrl, ChildAccess], T],
        cancel: CancelToken,
    ) -> T:
        from tenacity import (  # noqa: PLC0415  a sync that needs no network needs no retries
            RetryCallState,
            Retrying,
            retry_if_exception,
            stop_after_attempt,
            wait_exponential_jitter,
        )

        def wait(seconds: float) -> None:
            # In slices, so that a cancel needs no half minute.
            while seconds > 0:
                cancel.raise_if_cancelled()
                self.clock.sleep(min(seconds, _SLICE_S))
                seconds -= _SLICE_S

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            line = error.line if isinstance(error, GitError) else error
            self.report(f"{url.url}: {line}; trying again")

        retrying = Retrying(
            retry=retry_if_exception(_is_network),
            stop=stop_after_attempt(max(1, self.attempts)),
            wait=wait_exponential_jitter(initial=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            sleep=wait,
            before_sleep=tell,
            reraise=True,
        )
        with _local_server_access(url, self.credentials.access(url)) as access:
            return retrying(question, url, access)


def _is_network(error: BaseException) -> bool:
    return isinstance(error, GitError) and error.failure is GitFailure.NETWORK


def _read_refs(url: RepositoryUrl, text: str) -> Refs:
    branches: dict[str, str] = {}
    tags: dict[str, str] = {}
    head = None
    for line in text.splitlines():
        found = _REF_LINE.fullmatch(line)
        if found is None:
            continue
        commit, ref = found.groups()
        if ref == "HEAD":
            head = commit
        elif ref.startswith("refs/heads/"):
            branches[ref.removeprefix("refs/heads/")] = commit
        elif ref.startswith("refs/tags/"):
            # An annotated tag comes twice; the line with ^{}, the commit, is the later one.
            tags[ref.removeprefix("refs/tags/").removesuffix("^{}")] = commit
    return Refs(url, branches, tags, head)


@contextmanager
def _local_server_access(url: RepositoryUrl, access: ChildAccess) -> Iterator[ChildAccess]:
    """Let git serve a `file` URL that another user owns.

    `git upload-pack` reads `safe.directory` from the global config file only.
    """
    path = url.local_path
    try:
        foreign = path is not None and path.stat().st_uid != os.geteuid()
    except OSError:
        foreign = False
    if not foreign:
        yield access
        return
    with tempfile.NamedTemporaryFile("w", prefix="smidr-git-", encoding="utf-8") as config:
        config.write(_safe_directories(path or Path("/")))
        config.flush()
        yield replace(access, environment={**access.environment, "GIT_CONFIG_GLOBAL": config.name})


def _safe_directories(path: Path) -> str:
    quoted = [
        str(place).replace("\\", "\\\\").replace('"', '\\"') for place in (path, path / ".git")
    ]
    return "[safe]\n" + "".join(f'\tdirectory = "{text}"\n' for text in quoted)
