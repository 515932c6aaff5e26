"""Whole jobs against the fake server: acceptance, execution, final states."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.model import BuildState
from smidr_ci.builds.service import AGENT_STOPPED
from smidr_ci.cancel import CancelLevel
from smidr_ci.errors import FailureKind, HostError, LayerError
from smidr_ci.forges.errors import ForgeError
from tests.fakes.gitlab.server import FakeJob, Fault
from tests.fakes.gitlab.site import Site, open_site, payload
from tests.fakes.gitlab.state import Request


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as site:
        yield site


def script(*lines: str, after: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    steps = [{"name": "script", "script": list(lines)}]
    if after:
        steps.append({"name": "after_script", "script": list(after)})
    return payload(steps=steps, **changes)


def start(site: Site, job: dict[str, Any] | None = None) -> FakeJob:
    queued = site.server.add_job(job or payload())
    site.runner().start()
    return queued


def plain(job: FakeJob) -> list[str]:
    """The trace's lines without times and colours."""
    return [re.sub(r"\x1b\[[0-9;]*[mK]|\r", "", line[32:]) for line in job.trace.split("\n")[:-1]]


def test_28_the_first_call_about_a_job_says_that_it_runs(site: Site) -> None:
    job = site.run_job()
    first = next(item for item in site.server.requests if item.path.startswith("jobs/42"))
    assert (first.method, first.json["state"]) == ("PUT", "running")
    assert first.headers["job-token"] == first.json["token"] == job.payload["token"]


def test_a_job_that_succeeds_is_built_uploaded_and_reported(site: Site) -> None:
    job = site.run_job()
    assert (job.state, job.finals, job.checksum_matches) == ("success", 1, True)
    assert plain(job)[-1] == "Job succeeded"
    assert "NOTE: Tasks Summary: all succeeded." in plain(job)
    assert len(site.builds.orders) == 1
    ((number, project, artifacts, outcome),) = site.uploads
    assert (number, outcome.succeeded) == (42, True)
    assert project == site.checkouts[0] / "project"
    assert artifacts is not None
    assert artifacts.name == outcome.build_id
    assert list((site.home.root / "jobs").iterdir()) == []


@pytest.mark.parametrize("headers", [{}, {"Job-Status": "canceled"}])
def test_29_a_job_that_is_refused_at_once_is_not_run(site: Site, headers: dict[str, str]) -> None:
    site.server.faults.append(Fault("update", 403, headers))
    start(site)

    def about() -> list[Request]:
        return [item for item in site.server.requests if item.path.startswith("jobs/42")]

    site.server.wait_until(lambda: len(about()) > 0)
    before = len(site.server.asked("request"))
    site.server.wait_until(lambda: len(site.server.asked("request")) > before + 3)
    assert len(about()) == 1
    assert site.checkouts == []
    assert list((site.home.root / "jobs").iterdir()) == []


def test_30_a_job_that_is_cancelled_before_its_start_is_not_run(site: Site) -> None:
    site.server.faults.append(Fault("update", 200, {"Job-Status": "canceling"}, 200, is_after=True))
    job = start(site)
    site.server.wait_until(lambda: job.is_over)
    assert site.server.asked("final")[0].json["state"] == "failed"
    assert site.checkouts == []


def test_31_a_job_whose_start_can_not_be_told_runs_anyway(site: Site) -> None:
    site.server.state.is_two_phase = False
    site.server.faults.append(Fault("update", 500, count=5))
    assert site.run_job().state == "success"


def test_32_a_two_phase_job_is_confirmed_before_the_host_does_anything(site: Site) -> None:
    site.hold_checkout = threading.Event()
    job = start(site)
    site.server.wait_until(lambda: job.state == "running")
    site.hold_checkout.set()
    site.wait_over(job)
    assert job.state == "success"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image": {"name": "x", "executor_opts": {"docker": {"privileged": True}}}},
            "unsupported option job.image.executor_opts.docker.privileged",
        ),
        ({"run": "[]"}, "'run' and 'script' exclude each other"),
        ({"variables": {}, "services": 3}, "has no list here"),
    ],
)
def test_34_a_job_that_asks_for_what_is_not_there_fails_as_the_runners_fault(
    site: Site, changes: dict[str, Any], message: str
) -> None:
    job = site.run_job({**payload(), **changes, "features": {}})
    assert (job.state, job.failure_reason) == ("failed", "runner_system_failure")
    assert message in job.trace
    assert site.checkouts == []


def test_35_a_job_without_timeout_has_two_hours(site: Site) -> None:
    job = site.run_job(script("echo limit=$CI_JOB_TIMEOUT", runner_info={"timeout": 0}))
    assert job.state == "success"
    assert "limit=7200" in plain(job)


@pytest.mark.parametrize("keys", [("image", "services", "cache", "hooks", "artifacts"), ()])
def test_36_unknown_keys_and_nulls_do_no_harm(site: Site, keys: tuple[str, ...]) -> None:
    job = {**payload(), **dict.fromkeys(keys), "suspend_options": {"x": [1]}, "new": None}
    assert site.run_job(job).state == "success"


@pytest.mark.parametrize("broken", [{"id": "x"}, [], {"id": 1}, {"id": 1, "token": "a b\n"}, None])
def test_what_is_no_job_at_all_does_not_stop_the_runner(site: Site, broken: object) -> None:
    site.server.faults.append(Fault("request", 201, body=broken))
    assert site.run_job().state == "success"


def test_52_every_part_is_a_section_that_ends(site: Site) -> None:
    def build(build_id: str) -> None:
        site.builds.change(build_id, state=BuildState.PREPARING)
        threading.Timer(0.3, lambda: site.builds.succeed(build_id)).start()

    site.builds.at_submit = build
    job = site.run_job(script("smidr ci build", after=("echo bye",)))
    starts = re.findall(r"section_start:\d+:([\w.]+)(?:\[\S*\])?\r\x1b\[0K", job.trace)
    ends = re.findall(r"section_end:\d+:([\w.]+)\r\x1b\[0K", job.trace)
    assert starts == [
        "prepare_executor",
        "get_sources",
        "step_script",
        "smidr_preparing",
        "after_script",
        "upload_artifacts_on_success",
    ]
    assert sorted(starts) == sorted(ends)


def test_52_a_server_without_sections_gets_none(site: Site) -> None:
    job = site.run_job(payload(features={}))
    assert "section_" not in job.trace
    assert "Getting source from Git repository" in job.trace


def test_54_times_can_be_switched_off(site: Site) -> None:
    job = site.run_job(payload(variables={"FF_TIMESTAMPS": "false"}))
    assert job.trace.startswith("\x1b[0KRunning with smidr-ci")


def test_57_secrets_of_the_job_are_not_shown(site: Site) -> None:
    job = payload(
        steps=[{"name": "script", "script": ["echo a $S $CI_JOB_TOKEN $LOGIN b", "smidr build"]}],
        credentials=[{"type": "registry", "url": "r", "username": "u", "password": "pass-word"}],
    )
    job["variables"] += [
        {"key": "S", "value": "top-secret", "masked": True},
        {"key": "LOGIN", "value": "pass-word"},
        {"key": "CI_JOB_TOKEN", "value": job["token"]},
    ]
    assert "a [MASKED] [MASKED] [MASKED] b" in plain(site.run_job(job))


def test_58_debug_traces_can_be_switched_off(site: Site) -> None:
    job = payload(variables={"CI_DEBUG_TRACE": "true"})
    done = site.run_job(job, is_debug_trace_allowed=False)
    assert not done.is_debug
    assert "WARNING: CI_DEBUG_TRACE is switched off on this runner" in plain(done)


def test_61_a_script_that_exits_three_fails_the_job_with_three(site: Site) -> None:
    job = site.run_job(script("exit 3", "smidr ci build"))
    assert (job.state, job.failure_reason, job.exit_code) == ("failed", "script_failure", 3)
    assert plain(job)[-1] == "ERROR: Job failed: exit status 3"
    assert site.builds.orders == []


@pytest.mark.parametrize(
    ("kind", "reason", "code"),
    [
        (FailureKind.BUILD, "script_failure", 1),
        (FailureKind.CONFIG, "script_failure", 2),
        (FailureKind.LAYERS, "script_failure", 3),
        (FailureKind.ENGINE, "runner_system_failure", 4),
        (FailureKind.DISK, "runner_system_failure", 4),
        (FailureKind.IMAGE, "runner_system_failure", 4),
        (FailureKind.INTERRUPTED, "runner_system_failure", 1),
        (FailureKind.INTERNAL, "runner_system_failure", 6),
        (FailureKind.TIMEOUT, "job_execution_timeout", 1),
    ],
)
def test_69_what_failed_decides_whether_gitlab_tries_again(
    site: Site, kind: FailureKind, reason: str, code: int
) -> None:
    site.builds.at_submit = lambda build_id: site.builds.fail(build_id, kind, "because so")
    job = site.run_job()
    assert (job.failure_reason, job.exit_code) == (reason, code)
    assert "because so" in plain(job)[-1]
    assert "because so" in "\n".join(plain(job)[:-1])


def test_70_after_a_failure_come_after_script_and_uploads(site: Site) -> None:
    job = site.run_job(script("false", "smidr ci build", after=("echo status=$CI_JOB_STATUS",)))
    assert "status=failed" in plain(job)
    ((_, _, artifacts, outcome),) = site.uploads
    assert not outcome.succeeded
    assert artifacts is None
    assert job.failure_reason == "script_failure"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ForgeError("git said no"), "runner_system_failure"),
        (LayerError("no such ref"), "script_failure"),
    ],
)
def test_71_without_sources_nothing_of_the_script_runs(site: Site, error: Any, reason: str) -> None:
    site.checkout_error = error
    job = site.run_job(script("smidr ci build", after=("echo bye",)))
    assert job.failure_reason == reason
    assert "bye" not in plain(job)
    assert error.message in plain(job)[-1]
    ((_, project, _, outcome),) = site.uploads
    assert not outcome.succeeded
    assert project != site.checkouts[0] / "project"


def test_72_an_upload_that_fails_fails_a_job_that_was_good(site: Site) -> None:
    site.upload_error = HostError("too large")
    job = site.run_job()
    assert (job.state, job.failure_reason) == ("failed", "runner_system_failure")
    assert "too large" in plain(job)[-1]


def test_72_an_upload_that_fails_does_not_hide_why_the_job_failed(site: Site) -> None:
    site.upload_error = HostError("too large")
    job = site.run_job(script("exit 3", "smidr ci build"))
    assert (job.failure_reason, job.exit_code) == ("script_failure", 3)
    assert "ERROR: too large" in plain(job)


def test_73_after_the_jobs_timeout_nothing_more_runs(site: Site) -> None:
    job = site.run_job(
        script("sleep 60", "smidr ci build", after=("echo bye",), runner_info={"timeout": 1})
    )
    assert (job.state, job.failure_reason) == ("failed", "job_execution_timeout")
    assert "execution took longer than 1s seconds" in plain(job)[-1]
    assert "bye" not in plain(job)
    assert site.uploads == []


def test_74_after_the_scripts_timeout_come_after_script_and_uploads(site: Site) -> None:
    lines = script("sleep 60", "smidr ci build", after=("echo st=$CI_JOB_STATUS",))
    lines["variables"].append({"key": "RUNNER_SCRIPT_TIMEOUT", "value": "500ms"})
    job = site.run_job(lines)
    assert job.failure_reason == "job_execution_timeout"
    assert "st=timedout" in plain(job)
    assert len(site.uploads) == 1


def test_74_a_build_that_takes_too_long_is_stopped_cleanly(site: Site) -> None:
    site.builds.at_submit = site.builds.run_on
    job = site.run_job(payload(variables={"RUNNER_SCRIPT_TIMEOUT": "300ms"}))
    assert job.failure_reason == "job_execution_timeout"
    assert [level for _, level in site.builds.cancels] == [CancelLevel.INTERRUPT]
    assert len(site.uploads) == 1


@pytest.mark.parametrize("text", ["soon", "-5m", "10h"])
def test_75_a_timeout_that_makes_no_sense_is_a_warning(site: Site, text: str) -> None:
    job = site.run_job(payload(variables={"RUNNER_SCRIPT_TIMEOUT": text}))
    assert job.state == "success"
    assert "WARNING: RUNNER_SCRIPT_TIMEOUT" in job.trace


def test_76_a_runner_that_is_told_to_end_its_jobs_says_so(site: Site) -> None:
    site.builds.at_submit = site.builds.run_on
    job = start(site)
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.runners[0].stop(cancel_jobs=True)
    assert (job.state, job.failure_reason) == ("failed", "unknown_failure")
    assert site.builds.cancels[-1][1] is CancelLevel.KILL
    known = payload(43)
    known["features"]["failure_reasons"] = ["runner_interrupted"]
    other = start(site, known)
    site.builds.wait_for(lambda: len(site.builds.orders) == 2)
    site.runners[1].stop(cancel_jobs=True)
    assert other.failure_reason == "runner_interrupted"


def test_77_a_runner_that_drains_ends_its_jobs_and_takes_no_more(site: Site) -> None:
    site.builds.at_submit = site.builds.run_on
    job = start(site)
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.runners[0].drain()
    other = site.server.add_job(payload(43))
    site.builds.succeed(next(iter(site.builds.records)))
    site.wait_over(job)
    assert job.state == "success"
    assert other.state == "queued"


def test_78_a_canceled_job_still_runs_its_after_script(site: Site) -> None:
    site.builds.at_submit = site.builds.run_on
    job = start(site, script("smidr ci build", after=("echo st=$CI_JOB_STATUS",)))
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.server.change(job, state="canceling")
    site.wait_over(job)
    assert job.state == "canceled"
    assert "st=canceled" in plain(job)
    assert "WARNING: script canceled externally (UI, API)" in plain(job)
    assert [level for _, level in site.builds.cancels] == [CancelLevel.INTERRUPT]
    assert len(site.uploads) == 1


@pytest.mark.parametrize("status", ["canceled", "failed"])
def test_43_a_build_of_a_job_that_is_gone_is_killed(site: Site, status: str) -> None:
    site.builds.at_submit = site.builds.run_on
    job = start(site, script("smidr ci build", after=("echo bye",)))
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.server.change(job, state=status)
    site.builds.wait_for(lambda: bool(site.builds.cancels))
    for runner in site.runners:
        runner.wait(20)
    assert site.builds.cancels[-1][1] is CancelLevel.KILL
    assert site.uploads == []
    assert len(site.server.asked("final")) == 1
    assert list((site.home.root / "jobs").iterdir()) == []


def test_a_cancel_during_the_checkout_ends_the_job_without_script(site: Site) -> None:
    site.hold_checkout = threading.Event()
    job = start(site, script("smidr ci build", after=("echo bye",)))
    assert site.checkout_began.wait(20)
    site.server.change(job, state="canceling")
    site.wait_over(job)
    assert job.state == "canceled"
    assert site.builds.orders == []
    assert site.uploads == []
    assert "bye" not in plain(job)


def test_a_cancel_in_a_line_of_the_script_kills_the_line(site: Site) -> None:
    job = start(site, script("echo begun; sleep 60", "smidr ci build", after=("echo bye",)))
    site.server.wait_until(lambda: job.state == "running")
    assert site.scripts.began.wait(20)
    site.server.change(job, state="canceling")
    site.wait_over(job)
    assert job.state == "canceled"
    assert {"begun", "bye"} <= set(plain(job))
    assert site.builds.orders == []


def test_a_cancel_during_the_uploads_changes_nothing_of_them(site: Site) -> None:
    site.hold_uploads = threading.Event()
    job = start(site)
    assert site.upload_began.wait(20)
    site.server.change(job, state="canceling")
    site.server.wait_until(lambda: "uploads" not in job.trace and bool(job.stored))
    site.hold_uploads.set()
    site.wait_over(job)
    assert job.state == "canceled"
    assert len(site.uploads) == 1
    assert site.server.asked("final")[0].json["state"] == "success"


def test_an_abort_during_the_uploads_ends_them(site: Site) -> None:
    site.hold_uploads = threading.Event()
    job = start(site)
    assert site.upload_began.wait(20)
    site.server.change(job, state="canceled")
    for runner in site.runners:
        runner.drain()
        runner.wait(20)
    assert site.uploads == []
    assert not site.runners[0].running()


def test_a_build_that_somebody_cancels_here_is_no_success(site: Site) -> None:
    site.builds.at_submit = site.builds.run_on
    job = start(site)
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.builds.change(
        next(iter(site.builds.records)), state=BuildState.CANCELLED, cancel_reason="by bob"
    )
    site.wait_over(job)
    assert (job.state, job.failure_reason) == ("failed", "unknown_failure")
    assert "by bob" in plain(job)[-1]


def test_a_build_that_was_stopped_with_the_agent_is_the_runners_fault(site: Site) -> None:
    site.builds.at_submit = lambda build_id: site.builds.change(
        build_id, state=BuildState.CANCELLED, cancel_reason=AGENT_STOPPED
    )
    job = site.run_job()
    assert (job.state, job.failure_reason) == ("failed", "runner_system_failure")


def test_79_file_variables_go_to_the_script_with_their_content(site: Site) -> None:
    job = script("echo path=$KEY", "smidr ci build")
    job["variables"].append({"key": "KEY", "value": "one\ntwo\n", "file": True})
    done = site.run_job(job)
    assert site.scripts.runs[0].files == {"KEY": b"one\ntwo\n"}
    assert "path=/smidr/src.tmp/KEY" in plain(done)


def test_a_host_that_runs_no_lines_says_which_one_it_can_not(site: Site) -> None:
    job = site.run_job(script("make tools", "smidr ci build"), scripts=None)
    assert job.failure_reason == "script_failure"
    assert "make tools" in job.trace


def test_what_is_asked_for_in_vain_is_said(site: Site) -> None:
    job = script("smidr ci build", after=("echo bye",))
    job["hooks"] = [{"name": "pre_get_sources_script", "script": ["df"]}]
    job["cache"] = [{"key": "x", "paths": ["a"]}]
    done = site.run_job(job, scripts=None, caches=None)
    assert done.state == "success"
    warnings = [line.split(":")[1].strip() for line in plain(done) if line.startswith("WARNING")]
    assert warnings == ["hooks", "cache", "after_script"]


def test_33_a_job_that_the_host_can_not_even_store_is_its_fault(site: Site) -> None:
    (site.home.root / "jobs").write_text("in the way")
    job = start(site)
    site.server.wait_until(lambda: job.is_over)
    assert (job.state, job.failure_reason) == ("failed", "runner_system_failure")


def test_a_job_without_config_fails_at_once_and_says_what_to_write(site: Site) -> None:
    job = site.run_job(script("make all", variables={"SMIDR_CONFIG": ""}))
    assert job.failure_reason == "script_failure"
    assert "names no smidr config" in job.trace
    assert "SMIDR_CONFIG" in job.trace
    assert site.checkouts == []


def test_a_missing_config_file_is_the_projects_fault(site: Site) -> None:
    site.files.clear()
    job = site.run_job()
    assert job.failure_reason == "script_failure"
    assert "there is no such file" in job.trace


def test_a_long_console_is_shown_as_bitbake_wrote_it_but_for_routine_lines(site: Site) -> None:
    text = "".join(f"line {number} ä\n" for number in range(20_000)).encode()
    routine = b"NOTE: recipe x-1.0-r0: task do_compile: Started\n" * 1000

    def build(build_id: str) -> None:
        site.builds.say(build_id, text + routine + b"no end")
        site.builds.change(build_id, state=BuildState.COMPLETED)

    site.builds.at_submit = build
    job = site.run_job(payload(variables={"FF_TIMESTAMPS": "0"}))
    assert text.decode() + "no end" in job.trace
    assert "do_compile" not in job.trace
    assert job.checksum_matches


def test_what_happens_on_the_host_alone_is_reported_as_its_fault(site: Site) -> None:
    def broken(_build_id: str) -> None:
        raise RuntimeError("a bug")

    site.builds.at_submit = broken
    job = site.run_job()
    assert job.failure_reason == "runner_system_failure"
    assert plain(job)[-1].startswith("ERROR: Job failed (system failure): a fault of smidr's own")
