"""The agent ends in the middle of a job: conformance case 101."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smidr_ci.builds.model import BuildState
from smidr_ci.forges.gitlab.jobstore import JobFolder, JobState, Phase
from tests.fakes.clock import FakeClock
from tests.fakes.gitlab.server import Fault
from tests.fakes.gitlab.site import Site, open_site, payload


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as site:
        yield site


def text_of(trace: str) -> str:
    return "".join(line[32:] + "\n" for line in trace.split("\n")[:-1])


def test_101_a_build_goes_on_and_its_trace_has_no_gap_and_no_doubles(site: Site) -> None:
    site.builds.at_submit = lambda build_id: site.builds.say(build_id, b"line 1\nline 2\nhal")
    job = site.server.add_job(payload())
    site.runner().start()
    site.server.wait_until(lambda: b"line 2" in job.stored)
    site.runners[0].stop()
    assert not site.builds.cancels
    assert job.state == "running"

    build_id = next(iter(site.builds.records))
    site.builds.say(build_id, b"f a line\n")
    site.runner().start()
    site.builds.say(build_id, b"line 4\n")
    site.builds.change(build_id, state=BuildState.COMPLETED)
    site.wait_over(job)
    assert (job.state, job.finals, job.checksum_matches) == ("success", 1, True)
    assert len(site.builds.orders) == 1
    shown = text_of(job.trace)
    for line in ("line 1\n", "line 2\n", "half a line\n", "line 4\n", "Running with smidr"):
        assert shown.count(line) == 1, line
    assert "smidr was restarted; the job goes on." in shown
    assert shown.count(":smidr_building\r") == 2


def test_101_a_build_that_ended_meanwhile_is_reported(site: Site) -> None:
    site.builds.at_submit = site.builds.run_on
    job = site.server.add_job(payload())
    site.runner().start()
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.runners[0].stop()
    site.builds.say(next(iter(site.builds.records)), b"said meanwhile\n")
    site.builds.change(next(iter(site.builds.records)), state=BuildState.COMPLETED)
    site.runner().start()
    site.wait_over(job)
    assert job.state == "success"
    assert "said meanwhile" in job.trace
    assert len(site.uploads) == 1


def test_a_checkout_that_was_broken_off_is_done_again(site: Site) -> None:
    site.hold_checkout = threading.Event()
    job = site.server.add_job(payload())
    site.runner().start()
    assert site.checkout_began.wait(20)
    site.runners[0].stop()
    assert job.state == "running"
    site.hold_checkout.set()
    site.runner().start()
    site.wait_over(job)
    assert job.state == "success"
    assert len(site.checkouts) == 2
    assert len(set(site.checkouts)) == 1


def test_uploads_that_were_broken_off_are_done_again(site: Site) -> None:
    site.hold_uploads = threading.Event()
    job = site.server.add_job(payload())
    site.runner().start()
    assert site.upload_began.wait(20)
    site.runners[0].stop()
    site.hold_uploads.set()
    site.runner().start()
    site.wait_over(job)
    assert job.state == "success"
    assert len(site.uploads) == 1
    assert len(site.builds.orders) == 1


def test_64_a_result_that_could_not_be_told_is_told_after_a_restart(site: Site) -> None:
    site.server.faults.append(Fault("final", 501, count=1000))
    job = site.server.add_job(payload())
    site.runner().start()
    site.server.wait_until(lambda: len(site.server.asked("final")) >= 2)
    site.runners[0].stop()
    assert not job.is_over
    site.server.faults.clear()
    site.runner().start()
    site.wait_over(job)
    assert (job.state, job.finals, job.checksum_matches) == ("success", 1, True)
    assert text_of(job.trace).count("Job succeeded") == 1
    assert len(site.uploads) == 1


def test_a_job_that_was_canceled_while_the_agent_was_away_is_canceled(site: Site) -> None:
    site.builds.at_submit = lambda build_id: site.builds.say(build_id, b"one\n")
    job = site.server.add_job(payload())
    site.runner().start()
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.runners[0].stop()
    site.server.change(job, state="canceling")
    site.builds.say(next(iter(site.builds.records)), b"two\n")
    site.runner().start()
    site.wait_over(job)
    assert job.state == "canceled"
    assert len(site.builds.cancels) == 1


def test_a_job_that_is_gone_meanwhile_is_dropped_with_its_build(site: Site) -> None:
    site.builds.at_submit = site.builds.run_on
    job = site.server.add_job(payload())
    site.runner().start()
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.runners[0].stop()
    site.server.change(job, state="canceled")
    site.runner().start()
    site.builds.wait_for(lambda: bool(site.builds.cancels))
    site.runners[1].wait(20)
    assert list((site.home.root / "jobs").iterdir()) == []


def test_time_that_passed_while_the_agent_was_away_counts(site: Site) -> None:
    site.builds.at_submit = site.builds.run_on
    job = site.server.add_job(payload(runner_info={"timeout": 2}))
    site.runner().start()
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.runners[0].stop()
    (folder,) = JobFolder.find_all(site.home.root / "jobs", "lab")
    state = folder.load()
    folder.save(replace(state, received=state.received.replace(year=state.received.year - 1)))
    site.runner().start()
    site.wait_over(job)
    assert job.failure_reason == "job_execution_timeout"


def test_jobs_of_other_registrations_and_damaged_ones_are_left_alone(tmp_path: Path) -> None:
    now = FakeClock().now()
    for registration, number in (("a", 1), ("b", 2)):
        state = JobState(received=now, phase=Phase.BUILD, build_id="x-00000001", script_begun=now)
        folder = JobFolder.create(tmp_path, registration, payload(number), number, state)
        assert folder.load() == state
    damaged = JobFolder.create(tmp_path, "a", payload(3), 3, JobState(received=now))
    (damaged.path / "job.json").write_text("[]")
    (tmp_path / "gitlab-a-4").mkdir()
    (found,) = JobFolder.find_all(tmp_path, "a")
    assert found.payload["id"] == 1  # type: ignore[index]  # it is JSON
    assert (found.path / "job.json").stat().st_mode & 0o777 == 0o600
    assert found.path.stat().st_mode & 0o777 == 0o700
    assert "glcbt" not in repr(found)


@pytest.mark.parametrize("state", ["[]", "{}", '{"received": 1}', ""])
def test_a_job_whose_state_is_lost_is_reported_as_the_hosts_fault(site: Site, state: str) -> None:
    site.builds.at_submit = site.builds.run_on
    job = site.server.add_job(payload())
    site.runner().start()
    site.builds.wait_for(lambda: bool(site.builds.orders))
    site.runners[0].stop()
    (folder,) = JobFolder.find_all(site.home.root / "jobs", "lab")
    (folder.path / "state.json").write_text(state)
    site.runner().start()
    site.wait_over(job)
    assert job.failure_reason == "runner_system_failure"
    assert "lost the state" in job.trace


def test_a_job_that_is_handed_out_again_begins_anew(tmp_path: Path) -> None:
    now = FakeClock().now()
    first = JobFolder.create(tmp_path, "a", payload(1), 1, JobState(received=now))
    (first.path / "trace").write_text("old")
    again = JobFolder.create(tmp_path, "a", payload(1), 1, JobState(received=now))
    assert not (again.path / "trace").exists()
