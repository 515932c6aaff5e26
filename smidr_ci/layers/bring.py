"""Makes one entry present: what is missing is fetched, checked out or copied; the rest is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock
from smidr_ci.errors import LayerError
from smidr_ci.layers.credentials import Credentials
from smidr_ci.layers.discover import discover
from smidr_ci.layers.failures import GitError, GitFailure, OneLayerError
from smidr_ci.layers.gitcmd import Git
from smidr_ci.layers.gittree import read_commit, write_commit
from smidr_ci.layers.local import LocalSource, content_of, snapshot
from smidr_ci.layers.mirror import Mirror
from smidr_ci.layers.remote import Remote
from smidr_ci.layers.resolve import Asked, Resolved, disk_or_other, problem_from
from smidr_ci.layers.tree import StoredTree, TreeStore
from smidr_ci.layers.urls import RepositoryUrl
from smidr_ci.layers.verified import record_on_branch, was_on_branch
from smidr_ci.layers.writing import TreeWriter

__all__ = ["Bringer"]


@dataclass(frozen=True)
class Bringer:
    """All that one `sync` needs to fetch with; used by several threads at once."""

    mirrors: Path
    trees: TreeStore
    git: Git
    credentials: Credentials
    clock: Clock
    attempts: int
    report: Callable[[str], None]
    cancel: CancelToken
    apart: tuple[Path, ...] = ()
    """Directories of smidr's own, never part of a layer."""

    def remote(self, asked: Asked) -> Remote:
        """The far end of an entry."""
        return Remote(
            asked.urls, self.git, self.credentials, self.clock, self.attempts, self.report
        )

    def bring(self, one: Resolved) -> StoredTree:
        """The tree of a commit, fetched when it must be; raises `OneLayerError`."""
        try:
            return self._bring_or_remake(one)
        except GitError as error:
            raise problem_from(error, one.asked.name) from error
        except LayerError as error:
            raise OneLayerError(one.asked.name, error.message, error.hint) from error
        except OSError as error:
            raise disk_or_other(error, one.asked.name) from error

    def copy(self, name: str, root: Path) -> StoredTree:
        """The snapshot of a local directory; raises `OneLayerError`."""
        source = LocalSource(name, root, self.apart)
        try:
            return snapshot(source, self.trees, self.git, _look_around, self.cancel)
        except LayerError as error:
            raise OneLayerError(source.name, error.message, error.hint) from error
        except OSError as error:
            raise disk_or_other(error, source.name) from error

    def content_of(self, name: str, root: Path) -> str:
        """A hash of what a local directory holds now; raises `LayerError` or `OSError`."""
        source = LocalSource(name, root, self.apart)
        return content_of(source, self.trees, self.git, self.cancel)

    def _mirror(self, url: RepositoryUrl) -> Mirror:
        lock = self.trees.locks / f"mirror-{url.directory_name}.lock"
        return Mirror(self.mirrors / url.mirror_name, lock, self.git, self.report)

    def _history(self, url: RepositoryUrl) -> Mirror:
        lock = self.trees.locks / f"history-{url.directory_name}.lock"
        return Mirror(self.mirrors / url.history_name, lock, self.git, self.report)

    def _bring_or_remake(self, one: Resolved) -> StoredTree:
        mirror = self._mirror(one.asked.url)
        try:
            return self._bring_once(one, mirror)
        except GitError as error:
            if error.failure is not GitFailure.CORRUPT:
                raise
            self.report(f"{one.asked.name}: damaged mirror ({error.line}); making it anew")
        mirror.remake(self.cancel)
        return self._bring_once(one, mirror)

    def _bring_once(self, one: Resolved, mirror: Mirror) -> StoredTree:
        remote = self.remote(one.asked)
        self._verify_branch(one, mirror, remote)
        repository = one.asked.url.directory_name
        found = self.trees.find(repository, one.commit)
        if found is not None:
            return found
        mirror.ensure(one.commit, remote, self.cancel)
        return self.trees.make(
            repository, one.commit, lambda tree: self._fill(tree, one.commit, mirror), self.cancel
        )

    def _fill(self, tree: Path, commit: str, mirror: Mirror) -> Mapping[str, Any]:
        with mirror.reading(self.cancel):
            facts = read_commit(self.git, mirror.path, commit, self.cancel)
            time = self.trees.claim_time(facts.time, facts.tree, self.cancel)
            writer = TreeWriter(tree, time, self.trees.shared)
            submodules = write_commit(self.git, mirror.path, commit, writer, self.cancel)
        return {"submodules": submodules, **_look_around(tree)}

    def _verify_branch(self, one: Resolved, mirror: Mirror, remote: Remote) -> None:
        branch = one.asked.must_be_on
        if branch is None or was_on_branch(mirror.path, one.commit, branch, one.asked.urls):
            return
        refs = remote.list_refs(self.cancel)
        if refs.branches.get(branch) == one.commit:
            mirror.ensure(one.commit, remote, self.cancel)
            record_on_branch(mirror.path, one.commit, branch, refs.url)
        elif branch not in refs.branches:
            raise LayerError(
                f"branch {branch} does not exist in {refs.url.url}",
                hint=f"The nearest names there: {', '.join(refs.near(branch))}.",
            )
        elif url := self._history(one.asked.url).find_on_branch(
            one.commit, branch, remote, self.cancel
        ):
            mirror.ensure(one.commit, remote, self.cancel)
            record_on_branch(mirror.path, one.commit, branch, url)
        else:
            raise LayerError(
                f"commit {one.commit} is not on branch {branch} of {refs.url.url}",
                hint="Correct `commit` or `branch`, or leave `branch` out.",
            )


def _look_around(tree: Path) -> dict[str, Any]:
    return discover(tree).to_notes()
