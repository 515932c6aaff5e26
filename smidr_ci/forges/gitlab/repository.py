"""git commands in a job's project directory, which a stranger may have written.

Programs that a config or an attribute could name are off (`layers.gitcmd`), the job's token is
shown to the server's own address only, and no URL but http and https is used.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import ConfigError
from smidr_ci.files import open_untrusted
from smidr_ci.forges.gitlab.checkout_settings import CheckoutSettings
from smidr_ci.forges.gitlab.worktree import wipe
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.layers.credentials import ChildAccess, token_access
from smidr_ci.layers.failures import GitError
from smidr_ci.layers.gitcmd import Git

__all__ = ["Origin", "Repository", "tracked_by_nobody"]

_SCHEMES: Final = ("https", "http")
_LISTING_LIMIT: Final = 256 << 20
_MOST_ATTRIBUTES: Final = 1 << 20


@dataclass(frozen=True)
class Origin:
    """Where a job's sources come from, and what git needs to get there."""

    url: str
    """Without user and password."""
    access: ChildAccess

    @classmethod
    def of(cls, repo_url: str, tls: TlsFiles, settings: CheckoutSettings) -> Origin:
        """Take the token out of `git_info.repo_url`; raises `ConfigError` for what is no URL."""
        try:
            parts = urlsplit(repo_url)
            netloc = parts.netloc.rpartition("@")[2]
            is_good = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good, parts, netloc = False, urlsplit(""), ""
        if not is_good or any(not char.isprintable() or char.isspace() for char in repo_url):
            raise ConfigError(
                "the server gave no http or https URL for the project's repository",
                hint="Is 'Git access protocols' of the GitLab instance set to SSH only?",
            )
        origin = f"{parts.scheme}://{netloc}"
        user, secret = unquote(parts.username or ""), unquote(parts.password or "")
        login = token_access(origin, user, secret) if secret else ChildAccess()
        extra = (*_tls_settings(origin, tls), *_https_settings(origin, netloc, settings))
        url = urlunsplit((parts.scheme, netloc, parts.path, "", ""))
        environment = {**login.environment, "GIT_LFS_SKIP_SMUDGE": "1"}
        return cls(url, ChildAccess(environment, (*login.settings, *_QUIET, *extra), login.secrets))


_QUIET: Final = (
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "none"),
    # The directory may belong to the user whom builds run as.
    ("safe.directory", "*"),
    ("protocol.allow", "never"),
    ("protocol.http.allow", "always"),
    ("protocol.https.allow", "always"),
)


def _tls_settings(origin: str, tls: TlsFiles) -> Iterator[tuple[str, str]]:
    for key, path in (("sslCAInfo", tls.ca), ("sslCert", tls.cert), ("sslKey", tls.key)):
        if path is not None:
            yield f"http.{origin}.{key}", str(path.absolute())


def _https_settings(
    origin: str, netloc: str, settings: CheckoutSettings
) -> Iterator[tuple[str, str]]:
    if settings.submodules_force_https:
        host = netloc.partition(":")[0]
        for ssh in (f"git@{host}:", f"ssh://git@{host}/"):
            yield f"url.{origin}/.insteadOf", ssh


# As `git lfs install` would set them: without, git-lfs fetches and leaves the pointers in place.
_LFS: Final = (
    ("filter.lfs.clean", "git-lfs clean -- %f"),
    ("filter.lfs.smudge", "git-lfs smudge -- %f"),
    ("filter.lfs.process", "git-lfs filter-process"),
    ("filter.lfs.required", "true"),
    ("lfs.concurrenttransfers", "4"),
)


@dataclass(frozen=True)
class Repository:
    """The project directory as a git work tree; raises `GitError` and `CancelledError`."""

    git: Git
    directory: Path
    root: Path
    """A marked directory above it, inside of which may be deleted."""
    origin: Origin
    cancel: CancelToken

    def run(
        self, *arguments: str, folder: Path | None = None, more: ChildAccess | None = None
    ) -> bytes:
        """One git command in the directory, or in a folder of it; its standard output."""
        access = more or self.origin.access
        environment = {**access.environment, "GIT_CEILING_DIRECTORIES": str(self.directory.parent)}
        return self.git.run(
            ["-C", str(folder or self.directory), *arguments],
            cancel=self.cancel,
            access=ChildAccess(environment, access.settings, access.secrets),
            output_limit=_LISTING_LIMIT,
        )

    def init(self, object_format: str) -> None:
        """Make an empty repository, without template and hooks."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.run("init", "--quiet", "--template=", f"--object-format={object_format}")

    def set_origin(self) -> None:
        """Name the remote, without any login."""
        self.run("config", "--replace-all", "remote.origin.url", self.origin.url)
        fetched = "+refs/heads/*:refs/remotes/origin/*"
        self.run("config", "--replace-all", "remote.origin.fetch", fetched)

    def fetch(self, refspecs: Sequence[str], settings: CheckoutSettings) -> None:
        """Bring the refs, at most so deep."""
        depth = [f"--depth={settings.depth}"] if settings.depth else []
        if not settings.depth and (self.directory / ".git" / "shallow").is_file():
            depth = ["--unshallow"]
        options = ["--no-recurse-submodules", *settings.fetch_flags, *depth]
        self.run("fetch", *options, "--", "origin", *refspecs)

    def has_commit(self, sha: str) -> bool:
        """Whether the commit is here."""
        try:
            self.run("cat-file", "-e", f"{sha}^{{commit}}")
        except GitError:
            return False
        return True

    def checkout(self, sha: str, settings: CheckoutSettings) -> None:
        """Bring the files to the commit and take away the rest."""
        self.drop_submodules()
        self.run("checkout", "--force", "--quiet", "--detach", sha, "--")
        self.clean(settings)

    def clean(self, settings: CheckoutSettings) -> None:
        """Remove what git does not track, as the job's flags say."""
        if settings.clean_flags:
            self.run("clean", *settings.clean_flags)

    def drop_submodules(self) -> None:
        """Empty the directories of submodules: their own `.git` may be a job's work."""
        for path in self._gitlinks():
            place = self.directory / path
            has_links = (self.directory.resolve() / path).parent != place.parent.resolve()
            if os.path.lexists(place) and not has_links:
                wipe(place, self.root)
                place.mkdir()

    def update_submodules(self, settings: CheckoutSettings) -> None:
        """Clone the submodules anew, to the commits that the project names."""
        self.drop_submodules()
        paths = ["--", *settings.submodule_paths] if settings.submodule_paths else []
        recursive = ["--recursive"] if settings.submodules == "recursive" else []
        depth = [f"--depth={settings.submodule_depth}"] if settings.submodule_depth else []
        self.run("submodule", "--quiet", "init", *paths)
        options = ["--init", *recursive, *depth, *settings.submodule_flags]
        self.run("submodule", "--quiet", "update", *options, *paths)
        if settings.clean_flags:
            words = shlex.join(["git", "clean", *settings.clean_flags])
            self.run("submodule", "--quiet", "foreach", *recursive, words)

    def pull_lfs(self, settings: CheckoutSettings) -> bool:
        """Bring the files that Git LFS keeps; False where there are none, or it is not here."""
        if not settings.fetches_lfs or shutil.which("git-lfs") is None or not self._has_lfs():
            return False
        self._pull_lfs(self.directory, self.origin.url)
        return True

    def pull_submodules_lfs(self, settings: CheckoutSettings) -> None:
        """The same in all submodules."""
        if not settings.fetches_lfs or shutil.which("git-lfs") is None:
            return
        recursive = ["--recursive"] if settings.submodules == "recursive" else []
        command = "printf '%s\\0' \"$displaypath\""
        listed = self.run("submodule", "--quiet", "foreach", *recursive, command).split(b"\0")
        for folder in (self.directory / os.fsdecode(path) for path in listed if path):
            url = self.run("config", "remote.origin.url", folder=folder)
            self._pull_lfs(folder, url.decode().strip())

    def _has_lfs(self) -> bool:
        """Whether the commit has files that Git LFS keeps; to ask git-lfs takes far longer."""
        listed = self.run("ls-files", "-z", "--", ":(glob)**/.gitattributes").split(b"\0")
        return any(_names_lfs(self.directory / os.fsdecode(path)) for path in listed if path)

    def _pull_lfs(self, folder: Path, url: str) -> None:
        # Pinned, since .lfsconfig is a stranger's: it could name another server, or this disk.
        pinned = (("lfs.url", f"{url.removesuffix('.git')}.git/info/lfs"),)
        access = self.origin.access
        settings = (*access.settings, *_LFS, *pinned)
        more = ChildAccess(access.environment, settings, access.secrets)
        self.run("lfs", "pull", folder=folder, more=more)

    def _gitlinks(self) -> list[str]:
        if not (self.directory / ".git" / "index").is_file():
            return []
        listed = self.run("ls-files", "--stage", "-z").split(b"\0")
        return [
            os.fsdecode(line.partition(b"\t")[2]) for line in listed if line.startswith(b"160000 ")
        ]


def _names_lfs(attributes: Path) -> bool:
    """What can't be read may name it."""
    try:
        with open_untrusted(attributes) as file:
            content = file.read(_MOST_ATTRIBUTES)
    except OSError:
        return True
    return b"lfs" in content or len(content) == _MOST_ATTRIBUTES


def tracked_by_nobody(repository: Repository) -> list[str]:
    """What `artifacts:untracked` means: files that git does not track, ignored ones too."""
    listed = repository.run("ls-files", "--others", "-z").split(b"\0")
    return [os.fsdecode(name) for name in listed if name and not name.endswith(b"/")]
