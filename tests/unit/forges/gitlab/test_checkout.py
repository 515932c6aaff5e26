"""A job's sources come from a real git server, as specified, and a hostile tree gets nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError, ConfigError, FailureKind, InternalError, SmidrError
from smidr_ci.files import make_marked_dir
from smidr_ci.forges.gitlab import ports
from smidr_ci.forges.gitlab.checkout import Checkout, untracked_files
from smidr_ci.forges.gitlab.payload import GitInfo, Job, Variable
from smidr_ci.forges.gitlab.worktree import wipe
from smidr_ci.layers.gitcmd import Git
from tests.fakes.git_repository import GitRepository
from tests.fakes.git_server import GitServer, serve
from tests.fakes.job_log import RecordedLog

TOKEN = "glcbt-very-secret"
A_PORT: ports.Checkout = Checkout()


class Site:
    """A project on a git server that wants the job's token, and a job's directory."""

    def __init__(self, root: Path, server: GitServer) -> None:
        self.server = server
        self.root = root
        self.repo = self.project("group/project.git")
        self.log = RecordedLog()
        self.cancel = CancelToken()
        self.directory = root / "job"
        self.waits: list[float] = []
        server.password = ("gitlab-ci-token", TOKEN)

    def project(self, name: str) -> GitRepository:
        repository = GitRepository(self.server.root / name)
        repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
        return repository

    @property
    def files(self) -> Path:
        return self.directory / "project"

    def job(self, sha: str, *, depth: int = 20, ref: str = "main", **variables: str) -> Job:
        with_login = self.server.base.replace("://", f"://gitlab-ci-token:{TOKEN}@")
        spec = f"+{sha}:refs/pipelines/5"
        return Job(
            id=1,
            token=TOKEN,
            variables=tuple(Variable(key, value) for key, value in variables.items()),
            git_info=GitInfo(
                repo_url=f"{with_login}/group/project.git/.git",
                ref=ref,
                sha=sha,
                refspecs=(spec, f"+refs/heads/{ref}:refs/remotes/origin/{ref}"),
                depth=depth,
            ),
        )

    def run(self, job: Job) -> Path:
        def pause(seconds: float) -> bool:
            self.waits.append(seconds)
            return False

        return Checkout(pause=pause).run(job, self.directory, self.cancel, self.log)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", self.files, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serve(tmp_path / "srv") as server:
        yield Site(tmp_path, server)


def commits(repo: GitRepository, count: int) -> list[str]:
    return [repo.commit({"file": f"{number}\n"}) for number in range(count)]


def test_82_it_checks_out_the_commit_detached_with_the_jobs_refspecs_and_depth(site: Site) -> None:
    shas = commits(site.repo, 30)
    assert site.run(site.job(shas[-1])) == site.files
    assert (site.files / "file").read_text() == "29\n"
    assert site.git("rev-parse", "HEAD") == shas[-1]
    assert site.git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert site.git("rev-list", "--count", "HEAD") == "20"
    assert site.git("rev-parse", "refs/pipelines/5", "refs/remotes/origin/main").split() == [
        shas[-1], shas[-1],
    ]  # fmt: skip
    assert site.log.sections == ["get_sources"]
    assert "Fetching changes with git depth set to 20..." in site.log.lines
    assert f"Checking out {shas[-1][:8]} as detached HEAD (ref is main)..." in site.log.lines


def test_82_the_token_is_nowhere_on_disk_nor_in_the_log(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha))
    found = subprocess.run(
        ["grep", "-r", "-l", TOKEN, site.directory], capture_output=True, check=False
    )
    assert found.stdout == b""
    assert site.git("config", "remote.origin.url").endswith("/group/project.git/.git")
    assert "@" not in site.git("config", "remote.origin.url")
    assert TOKEN not in site.log.text


def test_depth_zero_brings_all_and_deepens_an_earlier_checkout(site: Site) -> None:
    shas = commits(site.repo, 5)
    site.run(site.job(shas[-1], depth=2))
    assert site.git("rev-list", "--count", "HEAD") == "2"
    site.run(site.job(shas[-1], depth=0))
    assert site.git("rev-list", "--count", "HEAD") == "5"


def test_a_commit_that_the_branch_has_left_behind_is_fetched(site: Site) -> None:
    shas = commits(site.repo, 6)
    job = site.job(shas[1], depth=1)
    branch_only = ("+refs/heads/main:refs/remotes/origin/main",)
    site.run(replace(job, git_info=replace(job.git_info, refspecs=branch_only)))
    assert (site.files / "file").read_text() == "1\n"


def test_85_a_second_job_fetches_cleans_and_keeps_what_clean_flags_say(site: Site) -> None:
    first, second = commits(site.repo, 2)
    site.run(site.job(first))
    (site.files / "build").mkdir()
    (site.files / "build/cache").write_text("kept")
    (site.files / "junk").write_text("x")
    (site.files / "file").write_text("changed by the job")
    site.run(site.job(second, GIT_CLEAN_FLAGS="-ffdx -e build/"))
    assert sorted(item.name for item in site.files.iterdir()) == [".git", "build", "file"]
    assert (site.files / "file").read_text() == "1\n"
    site.run(site.job(second, GIT_CLEAN_FLAGS="none"))
    assert (site.files / "build").is_dir()
    site.run(site.job(second))
    assert not (site.files / "build").exists()


def test_83_left_over_locks_do_not_stop_a_checkout(site: Site) -> None:
    first, second = commits(site.repo, 2)
    site.run(site.job(first))
    for name in ("index.lock", "shallow.lock", "HEAD.lock", "config.lock"):
        (site.files / ".git" / name).touch()
    (site.files / ".git/refs/remotes/origin/main.lock").touch()
    site.run(site.job(second))
    assert (site.files / "file").read_text() == "1\n"


@pytest.mark.parametrize(("strategy", "is_kept"), [("clone", False), ("fetch", True)])
def test_84_clone_starts_from_nothing(site: Site, strategy: str, is_kept: bool) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha))
    (site.files / "note").write_text("x")
    site.run(site.job(sha, GIT_STRATEGY=strategy, GIT_CLEAN_FLAGS="none"))
    assert (site.files / "note").exists() is is_kept


def test_a_server_that_forbids_fetching_means_clone(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha))
    (site.files / "note").write_text("x")
    site.run(replace(site.job(sha, GIT_CLEAN_FLAGS="none"), allow_git_fetch=False))
    assert not (site.files / "note").exists()


def test_84_none_and_empty_ask_the_server_nothing(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha))
    site.server.requests.clear()
    (site.files / "note").write_text("x")
    site.run(site.job(sha, GIT_STRATEGY="none"))
    assert (site.files / "note").exists()
    site.run(site.job(sha, GIT_STRATEGY="empty"))
    assert list(site.files.iterdir()) == []
    assert site.server.requests == []


def test_84_git_checkout_false_fetches_and_leaves_the_files(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha, GIT_CHECKOUT="false"))
    assert not (site.files / "file").exists()
    assert site.git("cat-file", "-t", sha) == "commit"
    assert "Skipping Git checkout" in site.log.lines


def test_nonsense_in_variables_is_a_warning(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha, GIT_STRATEGY="magic", GIT_CHECKOUT="maybe", GET_SOURCES_ATTEMPTS="99"))
    assert "WARNING: GIT_STRATEGY is 'magic'" in site.log.text
    assert "WARNING: GIT_CHECKOUT is 'maybe'" in site.log.text
    assert "WARNING: GET_SOURCES_ATTEMPTS is 99" in site.log.text
    assert (site.files / "file").exists()


def with_submodule(site: Site, url: str = "../../../lib.git/.git", *, nested: bool = False) -> str:
    lib = site.project("lib.git")
    if nested:
        deep = site.project("deep.git")
        head = deep.commit({"deep": "deep\n"})
        lib.write(
            {".gitmodules": '[submodule "deep"]\n\tpath = deep\n\turl = ../../deep.git/.git\n'}
        )
        lib.git("update-index", "--add", "--cacheinfo", f"160000,{head},deep")
        lib.git("add", ".gitmodules")
        lib.git("commit", "--quiet", "-m", "nested")
    lib.write({"lib": "lib\n"})
    lib.git("add", "lib")
    lib.git("commit", "--quiet", "-m", "lib")
    head = lib.git("rev-parse", "HEAD")
    site.repo.write(
        {".gitmodules": f'[submodule "lib"]\n\tpath = lib\n\turl = {url}\n', "file": "x"}
    )
    site.repo.git("add", ".gitmodules", "file")
    site.repo.git("update-index", "--add", "--cacheinfo", f"160000,{head},lib")
    site.repo.git("commit", "--quiet", "-m", "submodule")
    return site.repo.git("rev-parse", "HEAD")


def test_submodules_come_with_the_jobs_token(site: Site) -> None:
    sha = with_submodule(site, nested=True)
    site.run(site.job(sha))
    assert list((site.files / "lib").iterdir()) == []
    site.run(site.job(sha, GIT_SUBMODULE_STRATEGY="normal"))
    assert (site.files / "lib/lib").read_text() == "lib\n"
    assert not (site.files / "lib/deep/deep").exists()
    site.run(site.job(sha, GIT_SUBMODULE_STRATEGY="recursive", GIT_SUBMODULE_DEPTH="1"))
    assert (site.files / "lib/deep/deep").read_text() == "deep\n"
    found = subprocess.run(["grep", "-rl", TOKEN, site.files], capture_output=True, check=False)
    assert found.stdout == b""


def test_submodule_paths_choose(site: Site) -> None:
    sha = with_submodule(site)
    site.run(site.job(sha, GIT_SUBMODULE_STRATEGY="normal", GIT_SUBMODULE_PATHS=":(exclude)lib"))
    assert list((site.files / "lib").iterdir()) == []


def test_the_token_is_not_shown_to_a_submodules_other_host(site: Site, tmp_path: Path) -> None:
    with serve(tmp_path / "other") as other:
        GitRepository(tmp_path / "other/lib.git").commit({"a": "b"})
        other.password = ("a", "b")
        sha = with_submodule(site, f"{other.base}/lib.git/.git")
        with pytest.raises(SmidrError):
            site.run(site.job(sha, GIT_SUBMODULE_STRATEGY="normal", GET_SOURCES_ATTEMPTS="1"))
        assert other.requests
        assert {login for _, _, login in other.requests} == {None}


@pytest.mark.parametrize(
    "url", ["file:///etc", "/etc", "ext::sh -c touch% /tmp/x", "--upload-pack=touch x", "ssh://h/p"]
)
def test_submodules_with_other_protocols_are_refused(site: Site, url: str) -> None:
    sha = with_submodule(site, url)
    with pytest.raises(ConfigError) as caught:
        site.run(site.job(sha, GIT_SUBMODULE_STRATEGY="normal"))
    assert not caught.value.kind.is_infrastructure
    assert site.waits == []


def test_ssh_submodules_of_the_same_server_can_be_forced_to_https(site: Site) -> None:
    host = site.server.base.removeprefix("http://").partition(":")[0]
    sha = with_submodule(site, f"git@{host}:lib.git/.git")
    site.run(site.job(sha, GIT_SUBMODULE_STRATEGY="normal", GIT_SUBMODULE_FORCE_HTTPS="true"))
    assert (site.files / "lib/lib").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GIT_CLEAN_FLAGS", "-i"),
        ("GIT_CLEAN_FLAGS", "--interactive"),
        ("GIT_FETCH_EXTRA_FLAGS", "--upload-pack=touch"),
        ("GIT_FETCH_EXTRA_FLAGS", "--prune --output=x"),
        ("GIT_FETCH_EXTRA_FLAGS", "origin"),
        ("GIT_SUBMODULE_UPDATE_FLAGS", "--reference=/etc"),
        ("GIT_CLEAN_FLAGS", "'open"),
    ],
)
def test_options_that_a_job_may_not_give_are_refused(site: Site, name: str, value: str) -> None:
    (sha,) = commits(site.repo, 1)
    job = replace(site.job(sha), variables=(Variable(name, value),))
    with pytest.raises(ConfigError, match=name):
        site.run(job)


def test_nothing_that_an_earlier_job_left_is_run(site: Site, tmp_path: Path) -> None:
    first = site.repo.commit({"file": "a", ".gitattributes": "* filter=evil\n"})
    second = site.repo.commit({"file": "b"})
    site.run(site.job(first))
    proof = tmp_path / "proof"
    command = f"touch {proof}"
    git_dir = site.files / ".git"
    with (git_dir / "config").open("a") as config:
        config.write(
            f'[core]\n\tfsmonitor = "{command}"\n\tsshCommand = "{command}"\n'
            f'\teditor = "{command}"\n\tpager = "{command}"\n\tgitProxy = "{command}"\n'
            f'[filter "evil"]\n\tsmudge = "{command}"\n\tclean = "{command}"\n\trequired = true\n'
            f'[credential]\n\thelper = "!{command}"\n'
            f'[submodule "lib"]\n\tupdate = "!{command}"\n\tactive = true\n'
            f'[url "ext::{command}"]\n\tinsteadOf = http\n'
            f'[http]\n\tproxy = "http://127.0.0.1:9"\n'
            f'[remote "origin"]\n\tuploadpack = "{command}"\n'
        )
    for hook in ("post-checkout", "post-merge", "reference-transaction", "pre-auto-gc"):
        path = git_dir / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info/attributes").write_text("* filter=evil\n")
    site.run(site.job(second, GIT_SUBMODULE_STRATEGY="recursive"))
    assert (site.files / "file").read_text() == "b"
    assert not proof.exists()
    assert untracked_files(site.files, Git(), CancelToken()) == []


def test_a_repository_planted_where_a_submodule_will_be_is_not_used(
    site: Site, tmp_path: Path
) -> None:
    first = site.repo.commit({"file": "a"})
    second = with_submodule(site)
    site.run(site.job(first))
    proof = tmp_path / "proof"
    planted = GitRepository(site.files / "lib")
    planted.commit({".gitattributes": "* filter=evil\n", "lib": "evil"})
    planted.git("config", "filter.evil.smudge", f"touch {proof}")
    planted.git("config", "core.fsmonitor", f"touch {proof}")
    site.run(site.job(second, GIT_SUBMODULE_STRATEGY="normal", GIT_CLEAN_FLAGS="none"))
    assert (site.files / "lib/lib").read_text() == "lib\n"
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["file", "link", "link inside", "damaged", "missing head"])
def test_a_git_directory_beyond_repair_is_made_anew(site: Site, tmp_path: Path, kind: str) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha))
    git_dir = site.files / ".git"
    elsewhere = tmp_path / "elsewhere"
    if kind in {"file", "link"}:
        git_dir.rename(elsewhere)
        if kind == "file":
            git_dir.write_text(f"gitdir: {elsewhere}\n")
        else:
            git_dir.symlink_to(elsewhere)
    elif kind == "link inside":
        (git_dir / "refs/heads").rmdir()
        (git_dir / "refs/heads").symlink_to(tmp_path)
    elif kind == "damaged":
        shutil.rmtree(git_dir / "objects")
        (git_dir / "objects").mkdir()
    else:
        (git_dir / "HEAD").unlink()
    site.run(site.job(sha))
    assert (site.files / "file").read_text() == "0\n"
    assert git_dir.is_dir()
    assert not git_dir.is_symlink()


def test_a_project_directory_that_became_a_link_is_not_followed(site: Site, tmp_path: Path) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    shutil.rmtree(site.files)
    site.files.symlink_to(precious)
    site.run(site.job(sha))
    assert (precious / "file").read_text() == "precious"
    assert not site.files.is_symlink()


def test_only_below_a_marked_directory_is_anything_deleted(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    with pytest.raises(InternalError, match="not smidr's"):
        wipe(tmp_path / "a/b", tmp_path / "a")
    make_marked_dir(tmp_path / "c")
    with pytest.raises(InternalError, match="not below"):
        wipe(tmp_path / "a/b", tmp_path / "c")
    assert (tmp_path / "a/b").is_dir()


def test_71_trouble_on_the_way_is_tried_again_in_a_clean_directory(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.server.failures_left = 2
    site.run(site.job(sha))
    assert site.waits == [5.0, 10.0]
    assert site.log.sections == [
        "get_sources", "clear_worktree", "get_sources", "clear_worktree", "get_sources",
    ]  # fmt: skip
    assert (site.files / "file").exists()


def test_71_a_job_that_asks_for_attempts_gets_them_whatever_the_fault(site: Site) -> None:
    commits(site.repo, 1)
    job = site.job("1" * 40, GET_SOURCES_ATTEMPTS="3")
    with pytest.raises(ConfigError, match="1111"):
        site.run(job)
    assert site.waits == [5.0, 10.0]
    assert site.log.sections == [
        "get_sources", "clear_worktree", "get_sources", "clear_worktree", "get_sources",
    ]  # fmt: skip


def test_a_server_that_stays_down_is_not_the_projects_fault(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.server.failures_left = 99
    with pytest.raises(SmidrError) as caught:
        site.run(site.job(sha, GET_SOURCES_ATTEMPTS="2"))
    assert caught.value.kind is FailureKind.FORGE
    assert site.waits == [5.0]


def test_a_commit_that_is_gone_is_told_at_once(site: Site) -> None:
    commits(site.repo, 1)
    job = site.job("1" * 40)
    with pytest.raises(ConfigError) as caught:
        site.run(job)
    assert "force-push" in str(caught.value)
    assert site.waits == []


def test_a_refused_token_is_told_without_the_token(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.server.password = ("gitlab-ci-token", "other")
    with pytest.raises(SmidrError) as caught:
        site.run(site.job(sha, GET_SOURCES_ATTEMPTS="1"))
    assert "token was refused" in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "ssh://git@h/p.git", "file:///etc", "https:///x", "http://h/\n"]
)
def test_a_url_that_is_none_is_refused(site: Site, url: str) -> None:
    job = site.job("1" * 40)
    with pytest.raises(ConfigError, match="no http or https URL"):
        site.run(replace(job, git_info=replace(job.git_info, repo_url=url)))


def test_strange_commits_and_refspecs_are_refused(site: Site) -> None:
    job = site.job("1" * 40)
    for change in ({"sha": "--help"}, {"sha": "HEAD"}, {"refspecs": ("--upload-pack=x",)}):
        with pytest.raises(ConfigError):
            site.run(replace(job, git_info=replace(job.git_info, **change)))
    assert site.server.requests == []


def test_a_cancel_ends_the_fetch(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.server.hold_packs.clear()
    site.cancel.cancel("enough")
    with pytest.raises(CancelledError):
        site.run(site.job(sha))


def test_files_can_be_given_to_the_builds_user(site: Site) -> None:
    if os.getuid():
        pytest.skip("only root may give files away")
    first = site.repo.commit({"d/file": "a"})
    (site.repo.path / "way").symlink_to("/etc/passwd")
    second = site.repo.commit()
    before = os.stat("/etc/passwd").st_uid
    for sha in (first, second):
        Checkout(owner=(1234, 1234)).run(site.job(sha), site.directory, site.cancel, site.log)
    owners = {path.lstat().st_uid for path in site.files.rglob("*")}
    assert owners == {1234}
    assert os.stat("/etc/passwd").st_uid == before


def test_a_job_that_removed_git_is_told_why_untracked_files_are_not_found(site: Site) -> None:
    (sha,) = commits(site.repo, 1)
    site.run(site.job(sha))
    shutil.rmtree(site.files / ".git")
    with pytest.raises(SmidrError, match="no git repository") as caught:
        untracked_files(site.files, Git(), CancelToken())
    assert caught.value.kind is FailureKind.ARTIFACTS


def test_a_repository_with_sha256_is_checked_out_twice(site: Site) -> None:
    shutil.rmtree(site.repo.path)
    site.repo.path.mkdir()
    site.repo.git("init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    site.repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    for number in range(2):
        sha = site.repo.commit({"file": f"{number}\n"})
        job = site.job(sha)
        job = replace(job, git_info=replace(job.git_info, object_format="sha256"))
        site.run(job)
        assert (site.files / "file").read_text() == f"{number}\n"
    assert site.log.lines.count("Created fresh repository.") == 1


def test_94_untracked_means_ignored_files_too(site: Site) -> None:
    sha = site.repo.commit({".gitignore": "*.log\n"})
    site.run(site.job(sha))
    (site.files / "ä.log").write_text("x")
    (site.files / "new").mkdir()
    (site.files / "new/b").write_text("x")
    found = untracked_files(site.files, Git(), CancelToken())
    assert sorted(found) == ["new/b", "ä.log"]
