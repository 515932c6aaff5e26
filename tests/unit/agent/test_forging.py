"""The agent follows its registrations: real agent, real HTTP and git; containers are fakes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.agent.forging import Forges
from smidr_ci.agent.outbox import Outbox
from smidr_ci.agent.service import Agent
from smidr_ci.builds.database import Database
from smidr_ci.files import make_private_dir
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.home import Home
from tests.fakes.agent_bench import PROJECT, AgentBench
from tests.fakes.gitlab.forge import API_TOKEN, GitLabForge, open_forge
from tests.fakes.gitlab.server import FakeJob
from tests.fakes.smidr_process import wait_until

TOKEN = "glrt-abcdefghij0123456789"
CI = """\
image:
  script: [smidr ci build]
  variables: {SMIDR_CONFIG: smidr.yaml}
  artifacts: {when: always, reports: {codequality: smidr-reports/gl-code-quality-report.json}}
"""


@dataclass
class Site:
    bench: AgentBench
    forge: GitLabForge
    agent: Agent
    forges: Forges
    outbox: Outbox
    calls: list[tuple[str, str, str]]
    refusals: list[str | None]

    @property
    def home(self) -> Home:
        return Home(self.bench.root / "home")

    def register(self, name: str = "lab", **changes: Any) -> Registration:
        made = Registration(name, "gitlab", self.forge.url, TOKEN)
        made = replace(made, **changes)
        Registrations(self.home).save(made)
        return made

    def push(self) -> str:
        files = self.bench.bench.project
        (files / "smidr.yaml").write_text(PROJECT)
        (files / ".gitlab-ci.yml").write_text(CI)
        return self.forge.push(files)

    def start_job(self, **changes: Any) -> FakeJob:
        return self.forge.start_job("image", self.push(), **changes)

    def wait_over(self, job: FakeJob) -> None:
        self.forge.server.wait_until(lambda: job.is_over, 30)

    def states(self) -> list[str]:
        return [item.state for item in self.forges.status()]


def make_site(bench: AgentBench, forge: GitLabForge, database: Database) -> Site:
    host = bench.host()
    agent = bench.agent()
    calls: list[tuple[str, str, str]] = []
    refusals: list[str | None] = []

    def refusal(before: int) -> str | None:
        refusals.append(agent.refusal(before))
        return refusals[-1]

    outbox = Outbox(database, host.clock)
    forges = Forges(
        lambda: host,
        agent,
        outbox,
        refusal,
        lambda: agent.is_draining,
        lambda *call: calls.append(call),
    )
    agent.registrations = forges.status
    agent.is_needed = lambda: forges.is_busy
    return Site(bench, forge, agent, forges, outbox, calls, refusals)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    bench = AgentBench(tmp_path / "bench", {"max_concurrent_builds": 1})
    make_private_dir(bench.root / "home")
    database = Database(bench.root / "home" / "outbox.db")
    with open_forge(tmp_path / "forge") as forge:
        forge.server.state.add_runner(TOKEN)
        site = make_site(bench, forge, database)
        site.agent.start()
        site.outbox.start()
        site.forges.start()
        try:
            yield site
        finally:
            bench.may_end.set()
            site.forges.stop()
            site.agent.stop()
            site.outbox.stop()
            database.close()


def test_a_registration_made_while_it_runs_gets_its_jobs_done(site: Site) -> None:
    site.bench.may_end.set()
    assert site.forges.status() == ()
    site.register()
    job = site.start_job()
    site.wait_over(job)
    assert (job.state, job.checksum_matches, job.finals) == ("success", True, 1), job.trace
    wait_until(lambda: site.states() == ["asking"], "the next request")
    assert ("gitlab", "request-job", "201") in site.calls


def test_no_job_is_asked_for_while_the_only_slot_is_taken(site: Site) -> None:
    site.register()
    site.forges.look()
    first = site.start_job()
    site.forge.server.wait_until(lambda: "Building with BitBake" in first.trace)
    wait_until(lambda: site.states() == ["waiting"], "the wait")
    (status,) = site.forges.status()
    assert status.detail == "the only slot is taken"
    assert len(status.jobs) == 1
    second = site.start_job()
    asked, rounds = len(site.forge.server.asked("request")), len(site.refusals)
    wait_until(lambda: len(site.refusals) >= rounds + 2, "two more looks at the slots")
    assert (second.state, len(site.forge.server.asked("request"))) == ("queued", asked)
    site.bench.may_end.set()
    for job in (first, second):
        site.wait_over(job)
        assert job.state == "success", job.trace


def test_a_pause_is_noticed_and_jobs_go_on(site: Site) -> None:
    made = site.register()
    site.forges.look()
    job = site.start_job()
    site.forge.server.wait_until(lambda: "Building with BitBake" in job.trace)
    Registrations(site.home).save(replace(made, is_paused=True))
    wait_until(lambda: site.states() == ["paused"], "the pause")
    site.bench.may_end.set()
    site.wait_over(job)
    assert job.state == "success"


def test_an_unregistered_runner_ends_its_jobs_and_leaves(site: Site) -> None:
    site.register()
    site.forges.look()
    job = site.start_job()
    site.forge.server.wait_until(lambda: "Building with BitBake" in job.trace)
    Registrations(site.home).remove("lab")
    wait_until(lambda: site.states() == ["leaving"], "the registration to go")
    site.bench.may_end.set()
    site.wait_over(job)
    assert job.state == "success"
    wait_until(lambda: site.states() == [], "the runner to go")


def test_an_address_that_changed_is_used_and_its_jobs_go_on(site: Site) -> None:
    made = site.register()
    site.forges.look()
    job = site.start_job()
    site.forge.server.wait_until(lambda: "Building with BitBake" in job.trace)
    Registrations(site.home).save(replace(made, url=f"{site.forge.url}/ci"))
    wait_until(lambda: [item.url for item in site.forges.status()] == [f"{made.url}/ci"], "it")
    site.bench.may_end.set()
    site.wait_over(job)
    assert (job.state, job.checksum_matches, job.finals) == ("success", True, 1), job.trace


def test_a_registration_of_no_use_is_a_problem_and_no_trouble_to_others(site: Site) -> None:
    site.bench.may_end.set()
    site.register("other", forge="sourcehut")
    site.register("broken", tls_ca_file=Path("/nowhere/ca.pem"))
    (site.home.root / "registrations" / "damaged.json").write_text("{")
    site.register()
    site.forges.look()
    problems = " ".join(site.forges.problems)
    assert "sourcehut" in problems
    assert "damaged.json" in problems
    job = site.start_job()
    site.wait_over(job)
    assert job.state == "success"


def test_a_file_that_can_not_be_read_for_a_moment_ends_nothing(site: Site) -> None:
    site.register()
    site.forges.look()
    path = site.home.root / "registrations" / "lab.json"
    path.chmod(0o644)
    site.forges.look()
    assert len(site.forges.status()) == 1
    assert site.states() != ["leaving"]
    path.chmod(0o600)


def test_notes_and_statuses_are_told_with_an_api_token(site: Site, tmp_path: Path) -> None:
    site.bench.may_end.set()
    token = tmp_path / "api-token"
    token.touch(mode=0o600)
    token.write_text(f"{API_TOKEN}\n")
    site.register(api_token_file=token)
    job = site.start_job(merge_request=5, variables={"CI_MERGE_REQUEST_IID": "666"})
    site.wait_over(job)
    wait_until(lambda: site.forge.api.notes, "the note")
    wait_until(lambda: [item["status"] for item in site.forge.api.statuses] == ["success"], "it")
    assert ("POST", "/api/v4/projects/7/merge_requests/5/notes") in site.forge.api.requests
    assert not any("666" in path for _, path in site.forge.api.requests)


def test_without_an_api_token_nothing_is_told(site: Site) -> None:
    site.bench.may_end.set()
    site.register()
    job = site.start_job(merge_request=5)
    site.wait_over(job)
    assert site.forge.api.requests == []
    assert site.outbox.status() == ()


def test_a_drained_agent_waits_for_uploads_and_reports(site: Site) -> None:
    site.register()
    site.forges.look()
    job = site.start_job()
    site.forge.server.wait_until(lambda: "Building with BitBake" in job.trace)
    site.agent.drain()
    site.bench.may_end.set()
    assert site.agent.wait_until_ended(30)
    assert (job.state, job.finals) == ("success", 1)


def test_the_next_agent_goes_on_with_a_job(site: Site) -> None:
    site.register()
    site.forges.look()
    job = site.start_job()
    site.forge.server.wait_until(lambda: "Building with BitBake" in job.trace)
    site.forges.stop()
    again = Forges(site.bench.host, site.agent, site.outbox, site.agent.refusal, lambda: False)
    again.start()
    try:
        site.bench.may_end.set()
        site.wait_over(job)
        assert (job.state, job.checksum_matches, job.finals) == ("success", True, 1), job.trace
    finally:
        again.stop()


def test_a_trusted_jobs_build_is_trusted_and_a_strangers_is_not(site: Site) -> None:
    site.bench.may_end.set()
    site.register()
    for protected, trust in ((True, "trusted"), (False, "untrusted")):
        job = site.start_job(is_protected=protected)
        site.wait_over(job)
        (newest, *_) = site.bench.host().store.list(limit=1)
        assert newest.trust == trust
    names = {path.name for path in (site.home.root / "checkouts").iterdir()}
    assert "lab-7-trusted-0" in names
    assert len(names) == 2


def test_old_checkouts_go_with_the_chores(site: Site) -> None:
    site.bench.may_end.set()
    site.register()
    site.wait_over(site.start_job())
    root = site.home.root / "checkouts"
    wait_until(lambda: not list((site.home.root / "jobs").iterdir()), "the job's folder to go")
    site.forges.tidy()
    assert list(root.iterdir())
    site.bench.bench.clock.advance(400 * 24 * 3600.0 * 10)
    site.forges.tidy()
    assert list(root.iterdir()) == []


def test_who_asks_for_a_github_while_the_agent_starts_waits_for_the_registrations(
    tmp_path: Path,
) -> None:
    bench = AgentBench(tmp_path / "bench")
    make_private_dir(bench.root / "home")
    with closing(Database(bench.root / "home" / "outbox.db")) as database:
        host, agent = bench.host(), bench.agent()
        outbox = Outbox(database, host.clock)
        forges = Forges(lambda: host, agent, outbox, agent.refusal, lambda: False)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(forges.github_for, "https://github.com", "acme/bsp")
            with pytest.raises(TimeoutError):
                asked.result(0.2)
            forges.start()
            assert asked.result(20) is None
        forges.stop()
