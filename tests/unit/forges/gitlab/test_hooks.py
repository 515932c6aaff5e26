"""A job's hooks run around its checkout, and what is exported reaches all that comes later."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.model import BuildState
from smidr_ci.errors import LayerError
from tests.fakes.gitlab.server import FakeJob
from tests.fakes.gitlab.site import Site, open_site, payload

PRE, POST = "pre_get_sources_script", "post_get_sources_script"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as site:
        yield site


def plain(job: FakeJob) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*[mK]|\r", "", line[32:]) for line in job.trace.split("\n")[:-1]]


def sections(job: FakeJob) -> list[str]:
    return re.findall(r"section_start:\d+:(\w+)", job.trace)


def hooked(pre: str = "", post: str = "", **changes: Any) -> dict[str, Any]:
    hooks = [{"name": PRE, "script": [pre] if pre else None}]
    hooks.append({"name": POST, "script": [post] if post else []})
    return payload(**{"hooks": hooks, **changes})


def test_hooks_run_before_and_behind_the_checkout(site: Site) -> None:
    job = site.run_job(
        hooked("test ! -e smidr.yaml; echo before; echo kept > seen", "cat smidr.yaml; cat seen")
    )
    assert job.state == "success"
    assert sections(job)[1:5] == [PRE, "get_sources", POST, "step_script"]
    assert {"before", "name: p", "kept"} <= set(plain(job))
    assert [run.name for run in site.scripts.runs] == [PRE, POST]


def test_a_first_hook_runs_in_the_image_that_the_commits_config_names(site: Site) -> None:
    job = site.run_job(hooked("true"))
    assert job.state == "success"
    (run,) = site.scripts.runs
    apart, project = site.checkouts
    assert run.order.config_text == "name: p\n"
    assert run.order.directory == apart / "project"
    assert run.directory == project / "project"
    variables = {item.key: item.value for item in site.jobs[0].variables}
    assert variables["GIT_STRATEGY"] == "clone"
    assert site.jobs[0].git_info.depth == 1
    assert "GIT_STRATEGY" not in {item.key for item in site.jobs[1].variables}
    assert plain(job).count("Fetching changes...") == 1
    assert not apart.exists()


def test_hooks_have_the_jobs_variables_and_pass_on_what_they_export(site: Site) -> None:
    job = site.run_job(
        hooked(
            'echo "in $PLACE"; echo "ONE=1" >> "$GITLAB_ENV"',
            'echo "one is $ONE"; echo "TWO=2" >> "$GITLAB_ENV"',
            variables={"PLACE": "lab"},
            steps=[{"name": "script", "script": ["echo $ONE and $TWO", "smidr ci build"]}],
        )
    )
    assert {"in lab", "one is 1", "1 and 2"} <= set(plain(job))


@pytest.mark.parametrize(("pre", "post"), [("exit 7", ""), ("", "exit 7")])
def test_a_hook_that_fails_fails_the_job_before_its_script(site: Site, pre: str, post: str) -> None:
    steps = [
        {"name": "script", "script": ["echo ran", "smidr ci build"]},
        {"name": "after_script", "script": ["echo bye"]},
    ]
    job = site.run_job(hooked(pre, post, steps=steps))
    assert (job.failure_reason, job.exit_code) == ("script_failure", 7)
    assert not {"ran", "bye"} & set(plain(job))
    assert len(site.uploads) == 1


@pytest.mark.parametrize("strategy", ["none", "empty"])
def test_without_a_checkout_there_are_no_hooks(site: Site, strategy: str) -> None:
    job = site.run_job(hooked("false", "false", variables={"GIT_STRATEGY": strategy}))
    assert job.state == "success"
    assert site.scripts.runs == []


def test_a_hook_of_a_commit_that_is_not_there_does_not_run(site: Site) -> None:
    site.checkout_error = LayerError("no such ref")
    job = site.run_job(hooked("echo ran"))
    assert job.failure_reason == "script_failure"
    assert site.scripts.runs == []


def test_a_cancel_in_a_hook_ends_the_job(site: Site) -> None:
    job = site.server.add_job(hooked("echo begun; sleep 60"))
    site.runner().start()
    assert site.scripts.began.wait(20)
    site.server.change(job, state="canceling")
    site.wait_over(job)
    assert job.state == "canceled"
    assert site.builds.orders == []


def test_hooks_that_ran_do_not_run_again_after_a_restart(site: Site, tmp_path: Path) -> None:
    count = tmp_path / "count"
    site.builds.at_submit = site.builds.run_on
    job = site.server.add_job(hooked(f"echo pre >> {count}", f"echo post >> {count}"))
    site.runner().start()
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.runners[0].stop()
    site.builds.succeed(next(iter(site.builds.records)))
    site.runner().start()
    site.wait_over(job)
    assert job.state == "success"
    assert count.read_text() == "pre\npost\n"


def test_the_first_hook_is_not_repeated_when_the_agent_ends_in_the_checkout(
    site: Site, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    job = site.server.add_job(hooked(f"echo pre >> {count}"))
    site.hold_from_checkout = 2
    site.hold_checkout = threading.Event()
    site.runner().start()
    site.server.wait_until(lambda: len(site.checkouts) == 2)
    site.runners[0].stop()
    site.hold_checkout.set()
    site.runner().start()
    site.wait_over(job)
    assert job.state == "success"
    assert count.read_text() == "pre\n"


def test_80_what_the_script_exports_is_visible_in_after_script(site: Site) -> None:
    steps = [
        {"name": "script", "script": ['echo X=1 >> "$GITLAB_ENV"', "smidr ci build", "echo s=$X"]},
        {"name": "after_script", "script": ["echo after=$X"]},
    ]
    job = site.run_job(payload(steps=steps))
    assert job.state == "success"
    assert {"s=1", "after=1"} <= set(plain(job))


def test_80_what_a_line_exports_is_seen_by_the_uploads(site: Site) -> None:
    lines = ['echo VERSION=1.2 >> "$GITLAB_ENV"', 'echo CI_JOB_URL=x >> "$GITLAB_ENV"']
    steps = [{"name": "script", "script": [*lines, "smidr build"]}]
    site.run_job(payload(steps=steps))
    (job,) = site.uploaded_jobs
    found = {item.key: item.value for item in job.variables}
    assert found["VERSION"] == "1.2"
    assert "CI_JOB_URL" not in found
    assert BuildState.COMPLETED in {item.state for item in site.builds.records.values()}
