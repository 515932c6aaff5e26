"""`cache:` of jobs: what is kept, for whom, under which keys, and that no job fails for it."""

from __future__ import annotations

import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import LayerError
from smidr_ci.forges.gitlab.cache_keys import sanitized
from smidr_ci.forges.gitlab.parsing import parse_job
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.ports import JobLog
from smidr_ci.forges.gitlab.runner import GitLabRunner
from smidr_ci.forges.gitlab.trust import cache_owner
from smidr_ci.trust import Trust
from tests.fakes.gitlab.server import FakeJob
from tests.fakes.gitlab.site import Site, open_site, payload


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as site:
        yield site


class Jobs:
    """Numbered jobs, each with an empty project directory."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.number = 0
        self.runner: GitLabRunner | None = None
        self.host: dict[str, Any] = {}

    def run(self, *lines: str, cache: Any = None, after: str = "", **changes: Any) -> FakeJob:
        self.number += 1
        for directory in self.site.checkouts:
            shutil.rmtree(directory, ignore_errors=True)
        steps = [{"name": "script", "script": [*lines, "smidr ci build"]}]
        if after:
            steps.append({"name": "after_script", "script": [after]})
        host = changes.pop("host", {})
        job = self.site.server.add_job(
            payload(self.number, steps=steps, cache=cache or [entry()], **changes)
        )
        self.serve(**host)
        self.site.wait_over(job)
        return job

    def serve(self, **host: Any) -> None:
        """Have one runner, with these changes of its host."""
        if self.runner is None or host != self.host:
            self.stop()
            self.host, self.runner = host, self.site.runner(**host)
            self.runner.start()

    def stop(self) -> None:
        if self.runner is not None:
            self.runner.stop()
        self.runner = None


@pytest.fixture
def jobs(site: Site) -> Jobs:
    return Jobs(site)


def entry(**changes: Any) -> dict[str, Any]:
    return {"key": "deps", "paths": ["deps/"], "policy": "pull-push", **changes}


def plain(job: FakeJob) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*[mK]|\r", "", line[32:]) for line in job.trace.split("\n")[:-1]]


def sections(job: FakeJob) -> list[str]:
    return re.findall(r"section_start:\d+:(\w*cache\w*)", job.trace)


def archives(site: Site) -> list[str]:
    found = site.home.job_caches.rglob("cache.zip")
    return sorted(str(path.relative_to(site.home.job_caches)) for path in found)


def no_trust(_job: Job) -> Trust:
    return Trust.UNTRUSTED


MAKE = "mkdir deps; echo made > deps/file"
SHOW = "cat deps/file"


def test_a_cache_is_restored_before_the_script_and_saved_behind_it(jobs: Jobs) -> None:
    first = jobs.run(MAKE, after="echo after > deps/last")
    assert "No archive has this key." in plain(first)
    assert (
        "Failed to extract cache"
        in plain(first)[plain(first).index("No archive has this key.") + 1]
    )
    assert any(line.startswith("Created cache") for line in plain(first))
    second = jobs.run(SHOW, "cat deps/last")
    assert (first.state, second.state) == ("success", "success")
    assert {"made", "after", "Successfully extracted cache"} <= set(plain(second))
    assert sections(second) == ["restore_cache", "archive_cache"]
    names = re.findall(r"section_start:\d+:(\w+)", second.trace)
    assert names.index("get_sources") < names.index("restore_cache") < names.index("step_script")
    assert names.index("archive_cache") < names.index("upload_artifacts_on_success")


def test_a_job_without_cache_shows_no_section(site: Site) -> None:
    job = site.run_job()
    assert sections(job) == []
    assert not site.home.job_caches.exists()


def test_what_did_not_change_is_not_packed_again(jobs: Jobs, site: Site) -> None:
    jobs.run(MAKE, "ln -s file deps/link", "chmod 750 deps/file")
    (place,) = site.home.job_caches.rglob("cache.zip")
    inode = place.stat().st_ino
    assert "Archive is up to date!" in plain(jobs.run(SHOW))
    assert place.stat().st_ino == inode
    for change in (
        "echo more > deps/new",
        "rm deps/file",
        "ln -sf new deps/link",
        "chmod 700 deps/new",
    ):
        assert "Archive is up to date!" not in plain(jobs.run(change))
    with zipfile.ZipFile(place) as archive:
        assert archive.namelist() == ["deps/", "deps/link", "deps/new"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a/../b%2fc", "b/c"),
        ("../../../etc", "etc"),
        ("..%2F..%2fx", "x"),
        ("%2e%2E/x", "x"),
        ("a\\..\\..\\b", "b"),
        ("/abs//olute/", "abs/olute"),
        ("./a/.", "a"),
        (" a ", "a"),
        ("ok-main_1.2", "ok-main_1.2"),
        ("..", ""),
        ("a/..", ""),
        ("%2f", ""),
    ],
)
def test_98_keys_are_sanitized(key: str, name: str) -> None:
    assert sanitized(key) == name


def test_98_a_key_that_leads_out_stays_inside_and_is_told(jobs: Jobs, site: Site) -> None:
    job = jobs.run(MAKE, cache=[entry(key="a/../b%2fc")])
    assert 'WARNING: cache key "a/../b%2fc" sanitized to "b/c"' in plain(job)
    (place,) = site.home.root.rglob("cache.zip")
    assert place.is_relative_to(site.home.job_caches)
    assert "made" in plain(jobs.run(SHOW, cache=[entry(key="b/c")]))


def test_98_a_key_of_which_nothing_is_left_is_passed_over(jobs: Jobs, site: Site) -> None:
    job = jobs.run(MAKE, cache=[entry(key="../..")])
    assert job.state == "success"
    assert 'WARNING: cache key "../.." could not be sanitized; it is passed over' in plain(job)
    assert archives(site) == []


def test_98_variables_in_the_key_are_expanded_and_there_is_a_default(jobs: Jobs) -> None:
    variables = {"M": "qemuarm64", "CI_JOB_NAME": "image", "CI_COMMIT_REF_NAME": "main"}
    job = jobs.run(MAKE, cache=[entry(key="x-$M"), entry(key="")], variables=variables)
    text = "\n".join(plain(job))
    assert "Creating cache x-qemuarm64..." in text
    assert "Creating cache image/main..." in text


def test_99_the_first_fallback_key_with_an_archive_is_taken(jobs: Jobs) -> None:
    jobs.run(MAKE, cache=[entry(key="main")])
    wanted = entry(key="branch", fallback_keys=["none", "main", "never"])
    job = jobs.run(SHOW, cache=[wanted])
    assert "made" in plain(job)
    asked = [line for line in plain(job) if line.startswith("Checking cache for")]
    assert asked == [f"Checking cache for {key}..." for key in ("branch", "none", "main")]
    assert "Creating cache branch..." in plain(job)


def test_99_cache_fallback_key_is_the_last_to_be_tried(jobs: Jobs) -> None:
    jobs.run(MAKE, cache=[entry(key="common")])
    job = jobs.run(SHOW, cache=[entry(key="x")], variables={"CACHE_FALLBACK_KEY": "common"})
    assert "made" in plain(job)


@pytest.mark.parametrize("key", ["main-protected", "main-protected/", "main%2d-protected "])
def test_99_cache_fallback_key_does_not_reach_what_is_protected(jobs: Jobs, key: str) -> None:
    jobs.run(MAKE, cache=[entry(key="main-protected")])
    job = jobs.run("true", cache=[entry(key="x")], variables={"CACHE_FALLBACK_KEY": key})
    assert 'may not end in "-protected"' in "\n".join(plain(job))
    assert "Successfully extracted cache" not in plain(job)


def test_100_a_policy_of_pull_restores_and_does_not_save(jobs: Jobs, site: Site) -> None:
    jobs.run(MAKE)
    job = jobs.run(SHOW, "echo x > deps/x", cache=[entry(policy="$P")], variables={"P": "pull"})
    assert "made" in plain(job)
    assert sections(job) == ["restore_cache"]
    (place,) = site.home.job_caches.rglob("cache.zip")
    with zipfile.ZipFile(place) as archive:
        assert "deps/x" not in archive.namelist()


def test_100_a_policy_of_push_saves_and_does_not_restore(jobs: Jobs) -> None:
    jobs.run(MAKE)
    job = jobs.run("test ! -e deps; mkdir deps; echo b > deps/b", cache=[entry(policy="push")])
    assert (job.state, sections(job)) == ("success", ["archive_cache"])
    assert jobs.run("test -e deps/b").state == "success"


def test_100_a_policy_that_is_none_fails_the_job_before_its_script(jobs: Jobs) -> None:
    job = jobs.run("echo ran", cache=[entry(policy="$P")], variables={"P": "banana"})
    assert (job.state, job.failure_reason) == ("failed", "script_failure")
    assert "'banana' is no cache policy" in "\n".join(plain(job)[-3:])
    assert "ran" not in plain(job)


@pytest.mark.parametrize(
    ("line", "kept"), [("true", ["always", "on_success"]), ("false", ["always", "on_failure"])]
)
def test_70_when_says_after_which_end_a_cache_is_kept(
    jobs: Jobs, line: str, kept: list[str]
) -> None:
    cache = [entry(key=when, when=when) for when in ("on_success", "on_failure", "always")]
    job = jobs.run(MAKE, line, cache=cache)
    made = re.findall(r"Creating cache (\w+)\.\.\.", "\n".join(plain(job)))
    assert sorted(made) == kept
    name = "archive_cache" if line == "true" else "archive_cache_on_failure"
    assert sections(job) == ["restore_cache", name]


def test_70_after_a_checkout_that_failed_nothing_of_an_earlier_job_is_kept(
    jobs: Jobs, site: Site
) -> None:
    jobs.run(MAKE)
    project = site.checkouts[-1] / "project" / "deps"
    project.mkdir(parents=True, exist_ok=True)
    site.checkout_error = LayerError("no such ref")
    job = jobs.run(cache=[entry(when="always", key="other")])
    assert "WARNING: No files to cache." in plain(job)
    assert len(archives(site)) == 1


def test_untracked_files_need_a_repository_and_no_job_fails_without(jobs: Jobs) -> None:
    job = jobs.run(MAKE, cache=[entry(untracked=True)])
    assert job.state == "success"
    assert "WARNING: Failed to create cache" in plain(job)


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_a_damaged_archive_is_a_warning_and_is_replaced(
    jobs: Jobs, site: Site, damage: bytes | None
) -> None:
    jobs.run(MAKE)
    (place,) = site.home.job_caches.rglob("cache.zip")
    place.write_bytes(place.read_bytes()[:-30] if damage is None else damage)
    job = jobs.run(MAKE)
    assert job.state == "success"
    assert "WARNING: Failed to extract cache" in plain(job)
    assert "made" in plain(jobs.run(SHOW))


def test_an_archive_that_leads_out_writes_nothing_there(jobs: Jobs, site: Site) -> None:
    jobs.run(MAKE)
    (place,) = site.home.job_caches.rglob("cache.zip")
    with zipfile.ZipFile(place, "a") as archive:
        archive.writestr("../../evil", "x")
        archive.writestr(".git/config", "x")
    job = jobs.run(SHOW)
    assert "made" in plain(job)
    assert "\n".join(plain(job)).count("left out, it leads out of the project") == 2
    assert list(site.home.root.rglob("evil")) == []


def test_a_link_out_of_the_project_is_never_followed(jobs: Jobs, site: Site) -> None:
    secret = site.home.root / "secret"
    secret.write_text("operators own")
    jobs.run(f"mkdir deps; ln -s {site.home.root} deps/out; ln -s {secret} deps/file")
    (place,) = site.home.job_caches.rglob("cache.zip")
    assert b"operators own" not in place.read_bytes()
    job = jobs.run("test ! -e deps/out; test ! -e deps/file")
    assert job.state == "success"


def test_a_cache_over_the_hosts_limit_is_a_warning(jobs: Jobs, site: Site) -> None:
    site.cache_limit = 100_000
    job = jobs.run("mkdir deps; head -c 300000 /dev/urandom > deps/big")
    assert job.state == "success"
    assert "cache.job_caches_max_size" in "\n".join(plain(job))
    assert archives(site) == []


def test_a_host_that_can_not_keep_it_does_not_fail_the_job(jobs: Jobs, site: Site) -> None:
    site.home.job_caches.write_text("in the way")
    job = jobs.run(MAKE)
    assert job.state == "success"
    assert "WARNING: Failed to create cache" in plain(job)


def test_what_a_line_exported_names_the_key(jobs: Jobs) -> None:
    lines = (MAKE, 'echo "HASH=abc" >> "$GITLAB_ENV"')
    assert "Creating cache x-abc..." in plain(jobs.run(*lines, cache=[entry(key="x-$HASH")]))


def test_an_untrusted_job_writes_nothing_that_a_trusted_one_reads(jobs: Jobs) -> None:
    untrusted = {"trust_of": no_trust}
    jobs.run("mkdir deps; echo evil > deps/file", host=untrusted)
    assert jobs.run("test ! -e deps; " + MAKE).state == "success"
    job = jobs.run(SHOW, host=untrusted)
    assert "evil" in plain(job)
    assert "made" in plain(jobs.run(SHOW))


def test_projects_do_not_share(jobs: Jobs) -> None:
    jobs.run(MAKE)
    other = {"name": "image", "project_id": 8, "project_full_path": "acme/distro"}
    assert jobs.run("test ! -e deps", job_info=other).state == "success"


def test_merge_requests_of_forks_share_with_their_own_ref_only() -> None:
    def owner(ref: str, source: str = "", trust: Trust = Trust.UNTRUSTED) -> str:
        raw = payload(variables={"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": source} if source else {})
        job = parse_job({**raw, "git_info": {"ref": ref}})
        return cache_owner(job, "https://gitlab.example.com/sub/", trust)

    branch = owner("feature")
    assert owner("other") == branch == owner("refs/merge-requests/1/head", "7")
    forks = {owner(f"refs/merge-requests/{number}/head", "8") for number in (1, 2)}
    assert len(forks | {branch, owner("main", trust=Trust.TRUSTED)}) == 4
    assert owner("refs/merge-requests/1/head") in forks


def test_artifacts_of_earlier_jobs_come_after_the_cache_and_win(jobs: Jobs) -> None:
    def unpack(_job: Job, directory: Path, _cancel: CancelToken, say: JobLog) -> bool:
        with say.section("download_artifacts", "Downloading artifacts"):
            assert (directory / "deps" / "file").read_text() == "made\n"
            (directory / "deps" / "file").write_text("newer\n")
        return True

    given: list[Path] = []
    host = {"dependencies": lambda _client: unpack, "give": given.append}
    jobs.run(MAKE)
    earlier = {"id": 3, "name": "a", "token": "dep-token", "artifacts_file": {"filename": "a.zip"}}
    job = jobs.run(SHOW, dependencies=[earlier], host=host)
    assert "newer" in plain(job)
    names = re.findall(r"section_start:\d+:(\w+)", job.trace)
    assert names[1:5] == ["get_sources", "restore_cache", "download_artifacts", "step_script"]
    assert given == [jobs.site.checkouts[-1] / "project"] * 2


def test_a_cache_is_not_restored_again_over_what_the_script_did(jobs: Jobs, site: Site) -> None:
    jobs.run(MAKE)
    site.builds.at_submit = site.builds.run_on
    queued = site.server.add_job(
        payload(
            9,
            cache=[entry()],
            steps=[{"name": "script", "script": ["echo changed > deps/file", "smidr build", SHOW]}],
        )
    )
    site.builds.wait_for(lambda: len(site.builds.orders) == 2)
    jobs.stop()
    site.builds.succeed(list(site.builds.records)[-1])
    jobs.serve()
    site.wait_over(queued)
    assert queued.state == "success"
    assert plain(queued).count("Checking cache for deps...") == 1
    assert "changed" in plain(queued)


def test_an_agent_that_ends_in_the_uploads_keeps_the_cache_once(jobs: Jobs, site: Site) -> None:
    site.hold_uploads = threading.Event()
    steps = [{"name": "script", "script": [MAKE, "smidr build"]}]
    queued = site.server.add_job(payload(9, cache=[entry()], steps=steps))
    jobs.serve()
    assert site.upload_began.wait(20)
    (place,) = site.home.job_caches.rglob("cache.zip")
    inode = place.stat().st_ino
    jobs.stop()
    site.hold_uploads.set()
    jobs.serve()
    site.wait_over(queued)
    assert queued.state == "success"
    assert place.stat().st_ino == inode
    assert "Archive is up to date!" in plain(queued)


def test_jobs_at_the_same_time_see_whole_archives(site: Site) -> None:
    queued = [
        site.server.add_job(
            payload(
                number,
                cache=[entry()],
                steps=[
                    {
                        "name": "script",
                        "script": [
                            "test ! -e deps || test $(cat deps/* | wc -c) = 300000",
                            "mkdir -p deps; head -c 300000 /dev/urandom > deps/big",
                            "smidr ci build",
                        ],
                    }
                ],
            )
        )
        for number in range(1, 7)
    ]
    site.runner().start()
    for job in queued:
        site.wait_over(job, 40)
    assert [job.state for job in queued] == ["success"] * 6
    assert len(archives(site)) == 1


def test_after_the_jobs_time_nothing_is_kept(jobs: Jobs, site: Site) -> None:
    job = jobs.run(MAKE, "sleep 60", cache=[entry(when="always")], runner_info={"timeout": 1})
    assert job.failure_reason == "job_execution_timeout"
    assert archives(site) == []
