"""What becomes of hints: conformance cases 8, 34, 35, 38 and 44."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.model import BuildState
from smidr_ci.cancel import CancelToken
from smidr_ci.forges.deliveries import Delivery, GiveUp, RetryLater
from smidr_ci.forges.github.approvals import Approvals
from smidr_ci.forges.github.checks import PLACEHOLDER, CheckRuns
from smidr_ci.forges.github.events import Hint
from smidr_ci.forges.github.handling import HintHandler, Parts
from smidr_ci.forges.github.rebuilding import Rebuilds
from smidr_ci.home import Home
from tests.fakes.github.bench import TARGET, CheckBench
from tests.fakes.github.room import Room
from tests.fakes.github.server import Fault, GitHubServer
from tests.fakes.github.state import SHA

GROUP = "fedcba9876543210fedcba9876543210fedcba98"


class Desk:
    """A handler of hints over a bench of builds."""

    def __init__(self, bench: CheckBench) -> None:
        self.bench = bench
        self.jobs: list[str] = []
        self.approved: list[tuple[str, str]] = []
        self.approvals = Approvals(bench.home, "lab")
        store = bench.service.store
        rebuilds = Rebuilds(
            bench.service, bench.home, bench.client, lambda name: store.list(customer=name)
        )
        self.handler = HintHandler(
            Parts(
                client=bench.client,
                runs=CheckRuns(bench.client),
                service=bench.service,
                reporter=bench.reporter,
                names=bench.names,
                approvals=self.approvals,
                rebuilds=rebuilds,
                jobs_changed=self.jobs.append,
                approved=lambda repository, sha: self.approved.append((repository, sha)),
            )
        )

    def see_to(self, hint: Hint, attempt: int = 1) -> None:
        self.handler.deliver(
            Delivery(
                receiver="github:lab:hook:x",
                key=hint.guid,
                kind="hook",
                payload=hint.as_plain(),
                build_id=None,
                created=datetime.now(UTC),
                attempt=attempt,
                cancel=CancelToken(),
            )
        )

    def built(self) -> tuple[str, dict[str, Any]]:
        """A failed build and its check run."""
        build_id = self.bench.build()
        self.bench.wait_for(status="queued")
        self.bench.fail(build_id, 1)
        run = self.bench.wait_for(status="completed")
        self.bench.settle()
        return build_id, run


@pytest.fixture
def desk(room: Room, tmp_path: Path) -> Iterator[Desk]:
    bench = CheckBench(room, tmp_path)
    yield Desk(bench)
    bench.close()


def hint(run: dict[str, Any], action: str = "requested_action", **changes: Any) -> Hint:
    made = Hint("check_run", action, "guid-0001", "acme/bsp", int(run["id"]), sender="alice")
    return replace(made, **changes)


def test_a_rerequested_check_becomes_a_new_build_and_a_new_run(
    desk: Desk, github: GitHubServer
) -> None:
    old, run = desk.built()
    desk.see_to(hint(run, "rerequested"))
    order = desk.bench.service.orders[-1]
    assert order.requested_by == "github alice: github re-run guid-0001"
    assert (order.directory / "smidr.yaml").is_file()
    assert desk.bench.service.source == order.directory
    new = desk.bench.service.store.list(limit=1)[0].build_id
    assert new != old
    desk.bench.go(new, BuildState.BUILDING)
    desk.bench.until(lambda: len(github.state.checks) == 2)
    desk.bench.settle()
    fresh = max(github.state.checks.values(), key=lambda item: int(item["id"]))
    assert (fresh["name"], fresh["head_sha"]) == (TARGET.name, SHA)
    assert (fresh["external_id"], fresh["status"]) == (new, "in_progress")
    assert github.state.checks[run["id"]]["status"] == "completed"


def test_a_repeated_hint_starts_no_second_build(desk: Desk) -> None:
    _, run = desk.built()
    desk.see_to(hint(run, "rerequested"))
    desk.see_to(hint(run, "rerequested"), attempt=2)
    assert len(desk.bench.service.orders) == 2


def test_a_check_whose_build_runs_is_not_built_again(desk: Desk) -> None:
    desk.bench.build()
    run = desk.bench.wait_for(status="queued")
    desk.see_to(hint(run, "rerequested"))
    assert len(desk.bench.service.orders) == 1


@pytest.mark.parametrize(("page", "number"), [("555/job/666", 666), ("555", 555)])
def test_a_jobs_build_is_repeated_by_running_the_job_again(
    desk: Desk, github: GitHubServer, page: str, number: int
) -> None:
    page = f"https://github.com/acme/bsp/actions/runs/{page}"
    build_id = desk.bench.build(replace(TARGET, details_url=page))
    desk.bench.wait_for(status="queued")
    record = desk.bench.service.store.get(build_id)
    order = {**record.order, "directory": "/somewhere/else"}
    desk.bench.service.change(build_id, order=order)
    desk.bench.fail(build_id, 1)
    run = desk.bench.wait_for(status="completed")
    assert [item["identifier"] for item in run["actions"]] == ["rebuild"]
    github.state.roles["alice"] = "write"
    desk.see_to(hint(run, identifier="rebuild"))
    assert github.state.reruns == [number]
    assert len(desk.bench.service.orders) == 1


@pytest.mark.parametrize("role", ["none", "read"])
@pytest.mark.parametrize("button", ["approve", "cancel", "rebuild", "rebuild-clean"])
def test_a_button_does_nothing_for_who_may_not_write(
    desk: Desk, github: GitHubServer, role: str, button: str
) -> None:
    github.state.roles["alice"] = role
    _, run = desk.built()
    desk.see_to(hint(run, identifier=button))
    desk.see_to(hint(run, identifier=button, sender=""))
    assert desk.approved == []
    assert desk.approvals.by("acme/bsp", SHA) == ""
    assert len(desk.bench.service.orders) == 1
    assert desk.bench.service.cancelled == []


@pytest.mark.parametrize("role", ["write", "admin"])
def test_who_may_write_approves_one_commit(desk: Desk, github: GitHubServer, role: str) -> None:
    github.state.roles["alice"] = role
    _, run = desk.built()
    desk.see_to(hint(run, identifier="approve"))
    assert desk.approved == [("acme/bsp", SHA)]
    assert desk.approvals.by("ACME/bsp", SHA) == "alice"
    assert desk.approvals.by("acme/bsp", GROUP) == ""
    assert Approvals(desk.bench.home, "lab").by("acme/bsp", SHA) == "alice"


def test_cancel_stops_the_build(desk: Desk, github: GitHubServer) -> None:
    github.state.roles["alice"] = "write"
    build_id = desk.bench.build()
    run = desk.bench.wait_for(status="queued")
    desk.see_to(hint(run, identifier="cancel"))
    desk.see_to(hint(run, identifier="cancel"))
    assert [(item[0], item[1]) for item in desk.bench.service.cancelled] == [
        (build_id, "alice cancelled it on GitHub")
    ]


def test_rebuild_clean_builds_without_shared_state(desk: Desk, github: GitHubServer) -> None:
    github.state.roles["alice"] = "write"
    _, run = desk.built()
    desk.see_to(hint(run, identifier="rebuild-clean"))
    assert desk.bench.service.orders[-1].clean


def test_check_runs_of_other_apps_and_hosts_are_left_alone(
    desk: Desk, github: GitHubServer
) -> None:
    build_id, _ = desk.built()
    body = {"name": "x", "head_sha": SHA, "conclusion": "success"}
    foreign = github.state.add_check("acme/bsp", {**body, "external_id": build_id}, app_id=15368)
    elsewhere = github.state.add_check("acme/bsp", {**body, "external_id": "acme-ffffffff"})
    beginning = github.state.add_check("acme/bsp", {**body, "external_id": build_id[:8]})
    for run in (foreign, elsewhere, beginning):
        desk.see_to(hint(run, "rerequested"))
    assert len(desk.bench.service.orders) == 1


def test_a_rerequested_suite_repeats_each_of_our_checks(desk: Desk, github: GitHubServer) -> None:
    desk.built()
    body = {"name": "x", "head_sha": SHA, "external_id": "acme-ffffffff"}
    github.state.add_check("acme/bsp", body, app_id=15368)
    desk.see_to(Hint("check_suite", "rerequested", "guid-0002", "acme/bsp", 5, sender="alice"))
    assert len(desk.bench.service.orders) == 2


def test_a_merge_group_gets_the_required_checks_at_once(desk: Desk, github: GitHubServer) -> None:
    desk.built()
    group = Hint("merge_group", "checks_requested", "guid-0003", "acme/bsp", head_sha=GROUP)
    desk.see_to(group)
    desk.see_to(group, attempt=2)
    (early,) = [run for run in github.state.checks.values() if run["head_sha"] == GROUP]
    assert (early["name"], early["status"]) == (TARGET.name, "queued")
    assert early["external_id"] == PLACEHOLDER
    build_id = desk.bench.build(replace(TARGET, head_sha=GROUP))
    desk.bench.until(lambda: early["external_id"] == build_id)
    desk.bench.service.finish(build_id)
    desk.bench.until(lambda: early["conclusion"] == "success")
    desk.see_to(replace(group, guid="guid-0004"))
    assert len([run for run in github.state.checks.values() if run["head_sha"] == GROUP]) == 1


def test_events_of_jobs_only_say_that_somebody_should_look(
    desk: Desk, github: GitHubServer
) -> None:
    before = len(github.requests)
    for action in ("completed", "queued"):
        desk.see_to(Hint("workflow_job", action, f"guid-{action}", "acme/bsp", 1))
    assert desk.jobs == ["acme/bsp", "acme/bsp"]
    assert len(github.requests) == before


def test_a_github_that_is_down_is_asked_again_later(desk: Desk, github: GitHubServer) -> None:
    _, run = desk.built()
    github.faults.append(Fault(r"GET .*/check-runs/\d+", status=503, count=9))
    with pytest.raises(RetryLater):
        desk.see_to(hint(run, "rerequested"))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_github_refuses_does_not_hold_other_hints_up(
    desk: Desk, github: GitHubServer, status: int
) -> None:
    _, run = desk.built()
    github.faults.append(Fault(r"GET .*/check-runs/\d+", status=status))
    with pytest.raises(GiveUp):
        desk.see_to(hint(run, "rerequested"))


def test_what_nobody_understands_is_given_up(desk: Desk) -> None:
    run = {"id": 1}
    broken = hint(run)
    delivery = Delivery("r", "k", "hook", {"x": 1}, None, datetime.now(UTC), 1, CancelToken())
    with pytest.raises(GiveUp):
        desk.handler.deliver(delivery)
    with pytest.raises(GiveUp):
        desk.handler.deliver(replace(delivery, kind="what", payload=broken.as_plain()))


def test_a_plain_token_has_no_check_runs_to_see_to(room: Room, tmp_path: Path) -> None:
    bench = CheckBench(room, tmp_path, is_app=False)
    desk = Desk(bench)
    desk.see_to(hint({"id": 4}, "rerequested"))
    desk.see_to(Hint("workflow_job", "queued", "guid-0009", "acme/bsp", 1))
    assert desk.jobs == ["acme/bsp"]
    assert room.server.requests == []
    bench.close()


def test_approvals_are_bounded(tmp_path: Path) -> None:
    approvals = Approvals(Home(tmp_path), "lab")
    approvals._path.parent.mkdir(parents=True)
    approvals._path.write_text("{")
    assert approvals.by("acme/bsp", SHA) == ""
    approvals.add("acme/bsp", SHA, "alice")
    assert approvals._path.stat().st_mode & 0o777 == 0o600
