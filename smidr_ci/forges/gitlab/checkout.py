"""A job's sources on the host's disk, as the official runner brings them (its get_sources)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import BuildFailedError, ConfigError, FailureKind, HostError, SmidrError
from smidr_ci.files import as_host_error, make_marked_dir
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.checkout_settings import CheckoutSettings, attempts_of
from smidr_ci.forges.gitlab.payload import GitInfo, Job
from smidr_ci.forges.gitlab.ports import JobLog
from smidr_ci.forges.gitlab.repository import Origin, Repository, tracked_by_nobody
from smidr_ci.forges.gitlab.transport import Pause
from smidr_ci.forges.gitlab.variables import JobVariables, expand
from smidr_ci.forges.gitlab.worktree import scrub, wipe
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.layers.failures import GitError, GitFailure
from smidr_ci.layers.gitcmd import Git
from smidr_ci.text import printable

__all__ = ["PROJECT", "Checkout", "give_to", "untracked_files"]

PROJECT: Final = "project"
"""Name of the project's directory in the job's."""

_SHA: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REFSPEC: Final = re.compile(r"\+?[A-Za-z0-9][^\s\x00-\x1f\x7f~^?\\\[]*")
_TRIES: Final = 3
"""Of our own, when the job does not say and the network is to blame."""
_FIRST_WAIT_S: Final = 5.0
_HOST_FAULTS: Final = frozenset(
    {
        GitFailure.NETWORK,
        GitFailure.AUTHENTICATION,
        GitFailure.CERTIFICATE,
        GitFailure.DAMAGED_THERE,
        GitFailure.CORRUPT,
    }
)


@dataclass(frozen=True)
class Checkout:
    """Implements `ports.Checkout`.

    A directory may be used again, but only for the same project and the same trust.
    """

    git: Git = field(default_factory=lambda: Git(schemes=("https", "http")))
    tls: TlsFiles = TlsFiles()
    owner: tuple[int, int] | None = None
    """Uid and gid that the files are given to, when it is another user than ours."""
    pause: Pause | None = None
    """Waits between attempts; the default ends with the cancel."""

    def run(self, job: Job, directory: Path, cancel: CancelToken, log: JobLog) -> Path:
        """Check out the job's commit; the project's directory.

        Raises `ConfigError` for what the project or its variables ask for in vain, `ForgeError` and
        `HostError` for what is the server's or this host's fault, and `CancelledError`.
        """
        variables = expand(job.variables)
        project = directory / PROJECT
        try:
            make_marked_dir(directory)
        except OSError as error:
            raise as_host_error(error, "can't make the job's directory", directory) from error
        settings = CheckoutSettings.of(
            variables,
            allow_fetch=job.allow_git_fetch,
            depth=job.git_info.depth,
            warn=log.warning,
        )
        _Run(self, job, settings, project, directory, cancel, log).get_sources(variables)
        if self.owner is not None:
            give_to(project, self.owner)
        return project


@dataclass(frozen=True)
class _Run:
    how: Checkout
    job: Job
    settings: CheckoutSettings
    project: Path
    root: Path
    cancel: CancelToken
    say: JobLog

    def get_sources(self, variables: JobVariables) -> None:
        attempts, is_asked = _TRIES, "GET_SOURCES_ATTEMPTS" in variables
        if is_asked:
            attempts = attempts_of(variables, "GET_SOURCES_ATTEMPTS", self.say.warning)
        wait_s = _FIRST_WAIT_S
        for attempt in range(1, attempts + 1):
            try:
                with self.say.section("get_sources", "Getting source from Git repository"):
                    self._bring()
            except SmidrError as error:
                self.cancel.raise_if_cancelled()
                if attempt == attempts or not (is_asked or error.kind.is_infrastructure):
                    raise
                self.say.warning(f"{error}; trying again in {wait_s:.0f} s")
                self._clear()
                (self.how.pause or self.cancel.wait)(wait_s)
                self.cancel.raise_if_cancelled()
                wait_s *= 2
            else:
                return

    def _clear(self) -> None:
        header = "Deleting all tracked and untracked files due to source fetch failure"
        with self.say.section("clear_worktree", header):
            wipe(self.project, self.root)

    def _bring(self) -> None:
        strategy = self.settings.strategy
        if strategy == "none":
            self.project.mkdir(exist_ok=True)
            self.say.info("Skipping Git repository setup")
            return
        if strategy == "empty":
            wipe(self.project, self.root)
            self.project.mkdir()
            self.say.info("Skipping Git repository setup, the directory is empty")
            return
        if strategy == "clone":
            wipe(self.project, self.root)
        git_info = _checked(self.job.git_info)
        origin = Origin.of(git_info.repo_url, self.how.tls, self.settings)
        repository = Repository(self.how.git, self.project, self.root, origin, self.cancel)
        try:
            self._fetch(repository, git_info)
            if self.settings.does_checkout:
                self._checkout(repository, git_info)
            else:
                self.say.info("Skipping Git checkout")
            self._submodules(repository)
        except GitError as error:
            raise _failure(error, git_info, origin) from error

    def _fetch(self, repository: Repository, git_info: GitInfo) -> None:
        if self.project.is_symlink() or not scrub(
            self.project, object_format=git_info.object_format
        ):
            wipe(self.project, self.root)
            repository.init(git_info.object_format)
            self.say.info("Created fresh repository.")
        repository.set_origin()
        depth = self.settings.depth
        self.say(f"Fetching changes with git depth set to {depth}..." if depth else _WHOLE)
        repository.fetch(git_info.refspecs, self.settings)
        if not repository.has_commit(git_info.sha):
            # The refs have moved on, or the depth does not reach it.
            repository.fetch([git_info.sha], self.settings)

    def _checkout(self, repository: Repository, git_info: GitInfo) -> None:
        ref = printable(git_info.ref)[:200]
        self.say.info(f"Checking out {git_info.sha[:8]} as detached HEAD (ref is {ref})...")
        repository.checkout(git_info.sha, self.settings)
        if repository.pull_lfs(self.settings):
            self.say("Git LFS files are there.")

    def _submodules(self, repository: Repository) -> None:
        if self.settings.submodules == "none":
            self.say.info("Skipping Git submodules setup")
            return
        self.say.info(f"Updating submodules ({self.settings.submodules})...")
        try:
            repository.update_submodules(self.settings)
        except GitError as error:
            if error.failure not in _HOST_FAULTS:
                raise
            self.say.warning("Updating submodules failed. Retrying...")
            repository.update_submodules(self.settings)
        if self.settings.does_checkout:
            repository.pull_submodules_lfs(self.settings)


_WHOLE: Final = "Fetching changes..."


def untracked_files(
    project: Path, git: Git, cancel: CancelToken, *, object_format: str = "sha1"
) -> list[str]:
    """Files that git does not track, relative to the project.

    Raises `BuildFailedError` when the job has damaged its repository.
    """
    origin = Origin.of("https://none.invalid/", TlsFiles(), CheckoutSettings())
    why = "the project directory is no git repository any more"
    if scrub(project, object_format=object_format):
        try:
            return tracked_by_nobody(Repository(git, project, project.parent, origin, cancel))
        except GitError as error:
            why = f"git can't list them: {error.line}"
    raise BuildFailedError(
        f"untracked files can't be found: {why}",
        hint="Leave .git alone in the job, or name the files with artifacts:paths.",
        kind=FailureKind.ARTIFACTS,
    )


def _checked(git_info: GitInfo) -> GitInfo:
    if not _SHA.fullmatch(git_info.sha):
        raise ConfigError(f"the job's commit is no commit id: {printable(git_info.sha)[:80]!r}")
    if git_info.object_format not in {"sha1", "sha256"}:
        raise ConfigError(f"unknown object format {printable(git_info.object_format)[:20]!r}")
    for refspec in git_info.refspecs:
        if not _REFSPEC.fullmatch(refspec):
            raise ConfigError(f"the job has a strange refspec: {printable(refspec)[:80]!r}")
    return git_info


def _failure(error: GitError, git_info: GitInfo, origin: Origin) -> SmidrError:
    message = f"can't get the sources: {error.line}"
    if error.failure is GitFailure.DISK:
        hint = "Free some space on the build host."
        return HostError(message, where=origin.url, hint=hint, kind=FailureKind.DISK)
    if error.failure in _HOST_FAULTS:
        return ForgeError(message, where=origin.url, hint=_HINTS.get(error.failure, ""))
    hint = _HINTS.get(error.failure, "Try the same with git by hand.")
    return ConfigError(f"{message} (commit {git_info.sha[:12]})", where=origin.url, hint=hint)


_HINTS: Final = {
    GitFailure.NETWORK: "The server or the way to it is in trouble. Run the job again.",
    GitFailure.AUTHENTICATION: "The job's token was refused: it may have expired, or a submodule's"
    " project does not allow this project in its settings, CI/CD, Job token permissions.",
    GitFailure.CERTIFICATE: "Give the authority's certificate when the runner is registered"
    " (--tls-ca-file).",
    GitFailure.LFS: "A file's content was never pushed: 'git lfs push --all origin'.",
    GitFailure.UNSERVED: "The commit is gone, perhaps by a force-push. Run a new pipeline.",
    GitFailure.NOT_FOUND: "A submodule's URL is wrong, or its project does not allow this project"
    " in its settings, CI/CD, Job token permissions.",
    GitFailure.PROTOCOL: "A submodule has a URL that is not http or https. Set"
    " GIT_SUBMODULE_FORCE_HTTPS: 'true' for ssh URLs of the same server.",
}


def give_to(project: Path, owner: tuple[int, int]) -> None:
    """Hand all files over to this uid and gid; no link is followed. Raises `HostError`."""
    try:
        for folder, names, files in os.walk(project):
            for name in (*names, *files, "."):
                os.chown(os.path.join(folder, name), *owner, follow_symlinks=False)
    except OSError as error:
        raise as_host_error(error, "can't give the sources to the build's user", project) from error
