"""Files that Git LFS keeps come with the checkout, by a real git-lfs, and only from the server."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind, SmidrError
from smidr_ci.forges.gitlab.checkout import Checkout
from smidr_ci.forges.gitlab.payload import GitInfo, Job, Variable
from tests.fakes.git_repository import GitRepository
from tests.fakes.git_server import GitServer, serve
from tests.fakes.job_log import RecordedLog

pytestmark = pytest.mark.skipif(
    shutil.which("git-lfs") is None,
    reason="git-lfs is not installed (Debian and Fedora: the package git-lfs)",
)

TOKEN = "glcbt-very-secret"
ATTRIBUTES = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
CONTENT = os.urandom(300_000)


class Site:
    def __init__(self, root: Path, server: GitServer) -> None:
        self.server = server
        self.repo = GitRepository(server.root / "group" / "project.git")
        self.repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
        self.log = RecordedLog()
        self.directory = root / "job"
        server.password = ("gitlab-ci-token", TOKEN)

    @property
    def files(self) -> Path:
        return self.directory / "project"

    def pointer(self, content: bytes, *, is_kept: bool = True) -> str:
        oid = hashlib.sha256(content).hexdigest()
        if is_kept:
            self.server.lfs[oid] = content
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
        )

    def commit(self, **files: str) -> str:
        named = {name.replace("_", "."): text for name, text in files.items()}
        return self.repo.commit({".gitattributes": ATTRIBUTES, **named})

    def run(self, sha: str, **variables: str) -> Path:
        login = self.server.base.replace("://", f"://gitlab-ci-token:{TOKEN}@")
        job = Job(
            id=1,
            token=TOKEN,
            variables=tuple(Variable(key, value) for key, value in variables.items()),
            git_info=GitInfo(
                repo_url=f"{login}/group/project.git/.git",
                ref="main",
                sha=sha,
                refspecs=(f"+{sha}:refs/pipelines/5",),
                depth=20,
            ),
        )
        checkout = Checkout(pause=lambda _: False)
        return checkout.run(job, self.directory, CancelToken(), self.log)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serve(tmp_path / "srv") as server:
        yield Site(tmp_path, server)


def test_files_that_lfs_keeps_come_with_the_jobs_token(site: Site) -> None:
    sha = site.commit(big_bin=site.pointer(CONTENT), small_txt="text\n")
    site.run(sha)
    assert (site.files / "big.bin").read_bytes() == CONTENT
    assert (site.files / "small.txt").read_text() == "text\n"
    assert "Git LFS files are there." in site.log.lines
    found = subprocess.run(
        ["grep", "-r", "-l", TOKEN, site.directory], capture_output=True, check=False
    )
    assert found.stdout == b""


def test_a_second_job_gets_what_changed(site: Site) -> None:
    site.run(site.commit(big_bin=site.pointer(CONTENT)))
    newer = CONTENT[::-1]
    sha = site.commit(big_bin=site.pointer(newer), other_bin=site.pointer(CONTENT))
    site.run(sha)
    assert (site.files / "big.bin").read_bytes() == newer
    assert (site.files / "other.bin").read_bytes() == CONTENT


def test_git_lfs_skip_smudge_leaves_the_pointers(site: Site) -> None:
    pointer = site.pointer(CONTENT)
    site.run(site.commit(big_bin=pointer), GIT_LFS_SKIP_SMUDGE="1")
    assert (site.files / "big.bin").read_text() == pointer
    assert site.server.asked("info/lfs") == 0


def test_a_project_without_lfs_does_not_ask_for_it(site: Site) -> None:
    site.run(site.repo.commit({"file": "x", ".gitattributes": "*.txt text\n"}))
    assert site.server.asked("info/lfs") == 0
    assert "Git LFS files are there." not in site.log.lines


def test_attributes_in_a_subdirectory_count_too(site: Site) -> None:
    sha = site.repo.commit({"a/b/.gitattributes": ATTRIBUTES, "a/b/c.bin": site.pointer(CONTENT)})
    site.run(sha)
    assert (site.files / "a/b/c.bin").read_bytes() == CONTENT


def test_a_file_that_the_server_does_not_have_fails_the_job(site: Site) -> None:
    sha = site.commit(big_bin=site.pointer(CONTENT, is_kept=False))
    with pytest.raises(SmidrError, match="Object does not exist") as caught:
        site.run(sha)
    assert "git lfs push" in caught.value.hint
    assert not caught.value.kind.is_infrastructure


def test_a_server_in_trouble_is_not_the_projects_fault(site: Site) -> None:
    sha = site.commit(big_bin=site.pointer(CONTENT))
    site.server.lfs_failures = 100
    with pytest.raises(SmidrError, match="503") as caught:
        site.run(sha)
    assert caught.value.kind is FailureKind.FORGE


def test_a_file_that_arrived_damaged_is_fetched_again(site: Site) -> None:
    sha = site.commit(big_bin=site.pointer(CONTENT))
    (oid,) = site.server.lfs
    site.server.lfs[oid] = CONTENT[:1000]
    with pytest.raises(SmidrError, match="expected OID") as caught:
        site.run(sha)
    assert caught.value.kind is FailureKind.FORGE
    site.server.lfs[oid] = CONTENT
    site.run(sha)
    assert (site.files / "big.bin").read_bytes() == CONTENT


def test_files_of_submodules_come_too(site: Site) -> None:
    inner = GitRepository(site.server.root / "group" / "inner.git")
    inner.commit(
        {
            ".gitattributes": ATTRIBUTES,
            ".lfsconfig": "[lfs]\n\turl = https://elsewhere.invalid/\n",
            "deep.bin": site.pointer(CONTENT),
        }
    )
    url = f"{site.server.base}/group/inner.git/.git"
    login = url.replace("://", f"://gitlab-ci-token:{TOKEN}@")
    site.repo.git("submodule", "--quiet", "add", login, "sub dir")
    site.repo.git("config", "-f", ".gitmodules", "submodule.sub dir.url", url)
    site.run(site.repo.commit({"x": "x"}), GIT_SUBMODULE_STRATEGY="recursive")
    assert (site.files / "sub dir" / "deep.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "config",
    [
        "[lfs]\n\turl = {other}/x.git/info/lfs\n",
        '[remote "origin"]\n\tlfsurl = {other}/x.git/info/lfs\n',
        "[lfs]\n\turl = file:///etc\n",
    ],
)
def test_the_projects_own_lfsconfig_names_no_other_server(
    site: Site, tmp_path: Path, config: str
) -> None:
    with serve(tmp_path / "other") as other:
        text = config.format(other=other.base)
        sha = site.repo.commit(
            {
                ".gitattributes": ATTRIBUTES,
                ".lfsconfig": text,
                "big.bin": site.pointer(CONTENT),
            }
        )
        site.run(sha)
        assert other.requests == []
    assert (site.files / "big.bin").read_bytes() == CONTENT


def test_a_link_in_the_place_of_a_kept_file_is_not_written_through(
    site: Site, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    site.run(site.commit(big_bin=site.pointer(CONTENT)))
    (site.files / "big.bin").unlink()
    (site.files / "big.bin").symlink_to(precious)
    site.run(site.commit(big_bin=site.pointer(CONTENT), more_txt="x"))
    assert precious.read_text() == "mine"
    assert (site.files / "big.bin").read_bytes() == CONTENT
