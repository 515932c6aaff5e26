"""A bare mirror of one repository, filled by need: usually one commit without its history.

A commit is "there" when our own ref to it exists; git writes a ref only after it has checked that
all objects arrived. Only the holder of the mirror's kernel lock writes, and the git child inherits
the lock, so after a `kill -9` what is half done belongs to nobody and is swept before the next
fetch. Mirrors are never packed or pruned by git behind our back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.cancel import CancelToken
from smidr_ci.files import make_marked_dir, remove_marked_tree
from smidr_ci.layers.credentials import ChildAccess
from smidr_ci.layers.failures import GitError, GitFailure
from smidr_ci.layers.gitcmd import Git
from smidr_ci.layers.locks import hold
from smidr_ci.layers.remote import Remote
from smidr_ci.layers.urls import RepositoryUrl

__all__ = ["Mirror"]

_KEPT: Final = "refs/smidr/commits"
_EVERYTHING: Final = (
    "+refs/heads/*:refs/smidr/heads/*",
    "+refs/tags/*:refs/smidr/tags/*",
)
_FORMAT: Final = "smidr-format"
_STALE: Final = ("*.lock", "objects/pack/tmp_*", "objects/pack/.tmp-*", "objects/??/tmp_obj_*")
_TMP_DIRS: Final = "objects/tmp_objdir-*"


@dataclass(frozen=True)
class Mirror:
    """The mirror of one repository at `path`, guarded by the kernel lock on `lock_path`."""

    path: Path
    lock_path: Path
    git: Git
    report: Callable[[str], None]

    def has(self, commit: str) -> bool:
        """Whether the commit with all its files is there; asks the file system only."""
        return (self.path / _KEPT / commit).is_file()

    def ensure(self, commit: str, remote: Remote, cancel: CancelToken) -> None:
        """Fetch the commit unless it is there; raises `GitError`, `CancelledError`."""
        if self.has(commit):
            return
        with self._writing(cancel) as lock:
            if not self.has(commit):
                self._prepare(commit, cancel)
                self.report(f"fetching {commit[:12]} from {remote.urls[0].url}")
                self._fetch(commit, remote, cancel, lock)

    def remake(self, cancel: CancelToken) -> None:
        """Throw a damaged mirror away; the next `ensure` starts from nothing."""
        with self._writing(cancel):
            self._remove()

    @contextmanager
    def reading(self, cancel: CancelToken) -> Iterator[None]:
        """Keep writers out, so that nobody sweeps or remakes what is being read."""
        with hold(self.lock_path, cancel, shared=True, waiting=self._tell_waiting):
            yield

    def find_on_branch(
        self, commit: str, branch: str, remote: Remote, cancel: CancelToken
    ) -> RepositoryUrl | None:
        """The URL whose branch has the commit in its history; None when it has not.

        For a mirror of its own, that holds commits without files. Raises `GitError`.
        """
        target = f"refs/smidr/heads/{branch}"
        with self._writing(cancel) as lock:
            self._prepare(commit, cancel)

            def fetch(url: RepositoryUrl, access: ChildAccess) -> RepositoryUrl:
                # A server that can't filter sends the files as well.
                refspec = f"+refs/heads/{branch}:{target}"
                self._fetch_from(url, access, [refspec], ["--filter=tree:0"], cancel, lock)
                return url

            url = remote.ask(fetch, cancel)
            try:
                self._git("merge-base", "--is-ancestor", commit, target, cancel=cancel)
            except GitError as error:
                if error.line == "git said nothing" or "Not a valid commit" in error.line:
                    return None
                if error.failure is GitFailure.CORRUPT:
                    self._remove()
                raise
        return url

    @contextmanager
    def _writing(self, cancel: CancelToken) -> Iterator[int]:
        with hold(self.lock_path, cancel, waiting=self._tell_waiting) as lock:
            yield lock

    def _tell_waiting(self) -> None:
        self.report(f"waiting for another process that uses {self.path.name}")

    def _git(self, *arguments: str, cancel: CancelToken) -> bytes:
        return self.git.run([f"--git-dir={self.path}", *arguments], cancel=cancel)

    def _prepare(self, commit: str, cancel: CancelToken) -> None:
        """Leave a sound, empty or filled repository at `path`; we hold the lock."""
        algorithm = "sha256" if len(commit) == 64 else "sha1"
        if self.path.exists() and not self._is_sound(algorithm):
            self.report(f"{self.path.name} is damaged; making it anew")
            self._remove()
        if self.path.exists():
            self._sweep()
        else:
            self._create(algorithm, cancel)

    def _create(self, algorithm: str, cancel: CancelToken) -> None:
        for left in self.path.parent.glob(f".new-{self.path.name}-*"):
            shutil.rmtree(left)
        fresh = Path(tempfile.mkdtemp(prefix=f".new-{self.path.name}-", dir=self.path.parent))
        make_marked_dir(fresh)
        self.git.run(
            ["init", "--quiet", "--bare", "--template=", f"--object-format={algorithm}", "--",
             str(fresh)],
            cancel=cancel,
        )  # fmt: skip
        (fresh / _FORMAT).write_text(f"1 {algorithm}\n", encoding="utf-8")
        fresh.rename(self.path)

    def _algorithm(self) -> str:
        return (self.path / _FORMAT).read_text(encoding="utf-8").split()[1]

    def _is_sound(self, algorithm: str) -> bool:
        try:
            said = (self.path / _FORMAT).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return False
        parts = (self.path / "HEAD").is_file() and (self.path / "objects").is_dir()
        return parts and said == f"1 {algorithm}\n"

    def _sweep(self) -> None:
        # Whoever made these is dead: a living writer would hold the lock.
        for folder, _, names in os.walk(self.path / "refs"):
            for name in names:
                if name.endswith(".lock"):
                    Path(folder, name).unlink(missing_ok=True)
        for pattern in _STALE:
            for stale in self.path.glob(pattern):
                stale.unlink(missing_ok=True)
        for unfinished in self.path.glob(_TMP_DIRS):
            shutil.rmtree(unfinished)

    def _remove(self) -> None:
        if self.path.exists():
            make_marked_dir(self.path)
            remove_marked_tree(self.path, self.path.parent)

    def _fetch(self, commit: str, remote: Remote, cancel: CancelToken, lock: int) -> None:
        target = f"{_KEPT}/{commit}"

        def fetch_one(url: RepositoryUrl, access: ChildAccess) -> None:
            try:
                self._fetch_from(url, access, [f"+{commit}:{target}"], ["--depth=1"], cancel, lock)
            except GitError as error:
                if error.failure not in {GitFailure.UNSERVED, GitFailure.OTHER}:
                    raise
                # An old server gives no commit by its id, a dumb one no part of the history.
                self.report(f"{url.url} can't serve one commit; fetching all branches and tags")
                self._fetch_history(url, access, cancel, lock)
                self._keep(commit, target, cancel)

        remote.ask(fetch_one, cancel)

    def _keep(self, commit: str, target: str, cancel: CancelToken) -> None:
        try:
            self._git("rev-list", "--quiet", "--max-count=1", commit, "--", cancel=cancel)
        except GitError as error:
            raise GitError(GitFailure.UNSERVED, f"no branch or tag has commit {commit}") from error
        self._git("update-ref", target, commit, cancel=cancel)

    def _fetch_history(
        self, url: RepositoryUrl, access: ChildAccess, cancel: CancelToken, lock: int
    ) -> None:
        everything = [*_EVERYTHING]
        if (self.path / "shallow").is_file():
            options = ["--prune", "--unshallow"]
            try:
                self._fetch_from(url, access, everything, options, cancel, lock)
            except GitError as error:
                if error.failure is not GitFailure.UNSERVED:
                    raise
            else:
                return
            # A dumb server can't deepen what another one cut; our trees don't need the old objects.
            algorithm = self._algorithm()
            self._remove()
            self._create(algorithm, cancel)
        self._fetch_from(url, access, everything, ["--prune"], cancel, lock)

    def _fetch_from(
        self,
        url: RepositoryUrl,
        access: ChildAccess,
        refspecs: list[str],
        options: list[str],
        cancel: CancelToken,
        lock: int,
    ) -> None:
        self._sweep()
        self.git.run(
            [f"--git-dir={self.path}", "fetch", "--quiet", "--force", "--no-tags",
             "--no-write-fetch-head", "--no-recurse-submodules",
             *options, "--", url.url, *refspecs],
            cancel=cancel,
            access=access,
            keep_fds=(lock,),
        )  # fmt: skip
