"""Check runs and commit statuses: conformance cases 28 to 43, 97 and 98."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.errors import FailureKind, UsageError
from smidr_ci.forges.github.rendering import (
    Button,
    annotated,
    annotation_list,
    buttons,
    check_body,
    status_body,
)
from smidr_ci.forges.github.targets import CheckNames, CheckTarget, Targets
from smidr_ci.forges.github.texts import clip_bytes
from smidr_ci.home import Home
from tests.fakes.build_service import a_record
from tests.fakes.github.bench import PREFIX, TARGET, CheckBench, finding
from tests.fakes.github.room import Room
from tests.fakes.github.server import Fault, GitHubServer
from tests.fakes.github.state import SHA

PATCH = r"PATCH /repos/acme/bsp/check-runs/\d+"
POST = "POST /repos/acme/bsp/check-runs"
EMOJI = "\N{PILE OF POO}"


@pytest.fixture
def bench(room: Room, tmp_path: Path) -> Iterator[CheckBench]:
    made = CheckBench(room, tmp_path)
    yield made
    made.close()


@pytest.fixture
def plain(room: Room, tmp_path: Path) -> Iterator[CheckBench]:
    made = CheckBench(room, tmp_path, is_app=False)
    yield made
    made.close()


def sent_annotations(github: GitHubServer) -> list[int]:
    found = [*github.asked(POST), *github.asked(PATCH)]
    return [len(item.body.get("output", {}).get("annotations", ())) for item in found]


def messages(github: GitHubServer) -> list[str]:
    (listed,) = github.state.annotations.values()
    return [item["message"] for item in listed]


def test_a_check_follows_its_build_from_queued_to_its_end(
    bench: CheckBench, github: GitHubServer
) -> None:
    build_id = bench.build()
    run = bench.wait_for(status="queued")
    assert run["name"] == "smidr / qemux86-64"
    assert run["external_id"] == build_id
    assert run["details_url"] == "https://ci.acme.example/b/42"
    assert [item["identifier"] for item in run["actions"]] == ["cancel"]
    bench.go(build_id, BuildState.PREPARING)
    bench.wait_for(status="in_progress")
    bench.go(build_id, BuildState.BUILDING)
    bench.settle()
    assert "Building core-image-minimal" in bench.check()["output"]["title"]
    bench.service.finish(build_id)
    run = bench.wait_for(status="completed", conclusion="success")
    assert run["completed_at"] is not None
    assert [item["identifier"] for item in run["actions"]] == ["rebuild", "rebuild-clean"]
    bench.settle()
    assert list(bench.targets.all()) == []
    assert len(github.state.checks) == 1


def test_120_findings_are_50_and_50_and_20_annotations(
    bench: CheckBench, github: GitHubServer
) -> None:
    build_id = bench.build()
    bench.wait_for(status="queued")
    bench.fail(build_id, 120)
    run = bench.wait_for(status="completed", conclusion="failure")
    bench.settle()
    assert [count for count in sent_annotations(github) if count] == [50, 50, 20]
    assert run["output"]["annotations_count"] == 120
    ends = [item.body for item in github.asked(PATCH) if "conclusion" in item.body]
    assert len(ends) == 1
    assert len(ends[0]["output"]["annotations"]) == 20
    assert ends[0]["completed_at"]


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_no_annotation_is_doubled_after_a_lost_answer(
    bench: CheckBench, github: GitHubServer, lost: int
) -> None:
    build_id = bench.build()
    bench.wait_for(status="queued")
    bench.settle()
    passed = threading.Event()
    passed.set()
    before = Fault(PATCH, count=lost - 1, until=passed)
    github.faults += [before, Fault(PATCH, is_cut=True, is_after=True)]
    bench.fail(build_id, 120)
    run = bench.wait_for(status="completed")
    assert run["output"]["annotations_count"] == 120
    found = messages(github)
    assert len(set(found)) == len(found) == 120
    assert github.asked(r"GET /repos/acme/bsp/check-runs/\d+")


def test_a_check_run_whose_creation_was_not_answered_is_found_again(
    bench: CheckBench, github: GitHubServer
) -> None:
    github.faults.append(Fault(POST, is_cut=True, is_after=True))
    build_id = bench.build()
    bench.until(lambda: bool(github.state.checks))
    bench.settle()
    bench.go(build_id, BuildState.BUILDING)
    bench.wait_for(status="in_progress")
    assert len(github.asked(POST)) == 1


def test_a_lost_creation_is_found_by_a_later_delivery_in_a_new_process(
    bench: CheckBench, github: GitHubServer
) -> None:
    build_id = bench.build()
    bench.wait_for(status="queued")
    bench.restart()
    bench.go(build_id, BuildState.BUILDING)
    bench.wait_for(status="in_progress")
    bench.fail(build_id, 3)
    bench.wait_for(status="completed")
    bench.settle()
    assert len(messages(github)) == 3


def test_another_apps_run_with_our_id_is_not_ours(bench: CheckBench, github: GitHubServer) -> None:
    with github.lock:
        github.is_down = True
    build_id = bench.build()
    with github.lock:
        body = {"name": TARGET.name, "head_sha": SHA, "external_id": build_id}
        foreign = github.state.add_check("acme/bsp", body, app_id=15368)
        github.is_down = False
    bench.settle()
    bench.until(lambda: len(github.state.checks) == 2)
    bench.fail(build_id, 1)
    bench.settle()
    assert foreign["status"] == "queued"
    assert len(github.asked(POST)) == 1


def test_an_hour_without_github_loses_nothing(bench: CheckBench, github: GitHubServer) -> None:
    with github.lock:
        github.is_down = True
    build_id = bench.build()
    for state in (BuildState.PREPARING, BuildState.BUILDING, BuildState.EXTRACTING):
        bench.go(build_id, state)
    bench.fail(build_id, 60)
    for _ in range(60):
        bench.room.advance(60)
        bench.outbox.flush(0.02)
    assert github.state.checks == {}
    with github.lock:
        github.is_down = False
    bench.wait_for(status="completed", conclusion="failure")
    assert len(set(messages(github))) == 60
    assert len(github.asked(POST)) + len(github.asked(PATCH)) <= 3


def test_the_outbox_waits_as_long_as_github_asks(bench: CheckBench, github: GitHubServer) -> None:
    github.faults.append(Fault(POST, status=429, headers={"Retry-After": "90"}))
    build_id = bench.build()
    bench.until(lambda: bool(github.asked(POST)))

    def waits() -> bool:
        found = [item for item in bench.outbox.status() if build_id in item.receiver]
        due = found[0].next_try if found else None
        return due is not None and 85 <= (due - bench.room.clock.now()).total_seconds() <= 91

    for _ in range(200):
        if waits():
            return
        bench.outbox.flush(0.1, retry=False)
    raise AssertionError(bench.outbox.status())


def test_a_build_that_an_earlier_process_left_is_reported_on(
    bench: CheckBench, github: GitHubServer
) -> None:
    build_id = bench.build()
    bench.wait_for(status="queued")
    bench.stop()
    bench.service.change(
        build_id, state=BuildState.CANCELLED, failure_kind=FailureKind.CANCELLED, exit_code=130
    )
    bench._start()
    bench.wait_for(status="completed", conclusion="cancelled")
    bench.settle()
    bench.restart()
    assert list(bench.targets.all()) == []
    assert len(github.state.checks) == 1


def test_progress_is_told_once_a_minute(bench: CheckBench, github: GitHubServer) -> None:
    build_id = bench.build()
    bench.go(build_id, BuildState.BUILDING)
    bench.wait_for(status="in_progress")
    bench.settle()
    before = len(github.asked(PATCH))
    for done in range(1, 20):
        bench.service.show(build_id, progress=_progress(done))
    bench.settle()
    assert len(github.asked(PATCH)) == before
    bench.room.advance(61)
    bench.service.show(build_id, progress=_progress(20))
    bench.until(lambda: len([1 for item in github.requests if item.method == "PATCH"]) > 0)
    bench.settle()
    bench.until(lambda: "20 of 4123 tasks" in bench_summary(github))


def bench_summary(github: GitHubServer) -> str:
    return str(next(iter(github.state.checks.values()))["output"]["summary"])


def _progress(done: int) -> Progress:
    return Progress(phase="build", tasks_total=4123, tasks_completed=done)


def test_a_summary_is_cut_at_whole_characters_and_says_so() -> None:
    text = clip_bytes("a" + EMOJI * 70_000, 65_535, "\n(cut)")
    assert len(text.encode()) <= 65_535
    assert text.endswith(f"{EMOJI}\n(cut)")
    assert clip_bytes(EMOJI, 4) == EMOJI
    assert clip_bytes("\ud800x", 10) == "?x"


def a_view(**fields: Any) -> BuildView:
    return BuildView(1, replace(a_record(BuildState.FAILED), **fields))


def test_a_summary_of_70000_characters_fits() -> None:
    names = {f"layer-{number}-{EMOJI * 20}": "0" * 40 for number in range(2000)}
    found = tuple(finding(number, message=EMOJI * 900) for number in range(40))
    body = check_body(a_view(layer_commits=names, findings=found), TARGET)
    assert len(body["output"]["summary"].encode()) <= 65_535
    assert "left out" in body["output"]["summary"]
    assert len(body["output"]["title"]) <= 255


def test_messages_and_titles_of_annotations_are_cut() -> None:
    found = (finding(1, message=EMOJI * 80_000, recipe="r" * 400, hint="h" * 80_000),)
    record = a_view(findings=found).record
    (made,) = annotation_list(record, TARGET, annotated(record, TARGET))
    assert len(made["message"].encode()) < 64 * 1024
    assert len(made["title"]) <= 255


def test_findings_outside_of_the_repository_are_no_annotations(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "own.bb").touch()
    paths = ["recipes/own.bb", "recipes/other.bb", "/etc/passwd", "../x", "smidr.yaml", None]
    found = tuple(finding(number, repo_path=path) for number, path in enumerate(paths))
    record = a_view(findings=found).record
    here = replace(TARGET, directory=str(tmp_path))
    assert annotated(record, here) == [0, 4]
    gone = replace(TARGET, directory=str(tmp_path / "gone"))
    assert annotated(record, gone) == [0, 1, 4]


LAYERS = """\
name: demo
layers:
  - {name: own, path: layers/meta-own}
  - {name: foreign, git: "https://git.example/foreign.git"}
  - {name: self, git: "https://github.example/acme/bsp.git"}
"""


def test_annotations_lie_where_the_repository_has_the_layers(
    bench: CheckBench, github: GitHubServer
) -> None:
    build_id = bench.build(replace(TARGET, config_path="ci/smidr.yaml"))
    bench.wait_for(status="queued")
    found = tuple(finding(layer=name) for name in ("own", "foreign", "self", "unheard-of"))
    commits = {"own": "local-1", "foreign": "f" * 40, "self": SHA}
    bench.fail(build_id, 0, findings=found, config_text=LAYERS, layer_commits=commits)
    bench.wait_for(status="completed")
    (listed,) = github.state.annotations.values()
    assert [item["path"] for item in listed] == [
        "ci/layers/meta-own/recipes/foo/foo_0.bb",
        "recipes/foo/foo_0.bb",
    ]


def test_a_fault_of_the_config_is_shown_at_its_line() -> None:
    record = a_view(
        failure_kind=FailureKind.CONFIG, failure_message="smidr.yaml:7:3: no such key"
    ).record
    (made,) = annotation_list(record, TARGET, annotated(record, TARGET))
    assert (made["path"], made["start_line"]) == ("smidr.yaml", 7)


def test_there_are_at_most_three_buttons_within_the_limits() -> None:
    candidates = [Button("l" * 30, "d" * 50, f"{number}" + "i" * 30) for number in range(4)]
    made = buttons(candidates)
    assert len(made) == 3
    for item in made:
        assert len(item["label"]) <= 20
        assert len(item["description"]) <= 40
        assert len(item["identifier"]) <= 20


@pytest.mark.parametrize(
    ("fields", "conclusion", "state"),
    [
        ({"state": BuildState.COMPLETED}, "success", "success"),
        ({"failure_kind": FailureKind.BUILD}, "failure", "failure"),
        ({"failure_kind": FailureKind.DISK}, "failure", "failure"),
        ({"failure_kind": FailureKind.TIMEOUT}, "timed_out", "failure"),
        (
            {"state": BuildState.CANCELLED, "failure_kind": FailureKind.CANCELLED},
            "cancelled",
            "error",
        ),
    ],
)
def test_the_end_of_a_build_has_a_word_of_githubs(
    fields: dict[str, Any], conclusion: str, state: str
) -> None:
    view = a_view(ended=datetime(2026, 1, 2, tzinfo=UTC), **fields)
    body = check_body(view, TARGET)
    assert (body["status"], body["conclusion"]) == ("completed", conclusion)
    assert body["completed_at"] == "2026-01-02T00:00:00Z"
    assert status_body(view, TARGET)["state"] == state


def test_a_strangers_text_is_no_markup_in_a_running_summary() -> None:
    record = replace(
        a_record(BuildState.PREPARING), project="<script>", targets=("@everyone #1 ![x](y)",)
    )
    text = check_body(BuildView(1, record), TARGET)["output"]["summary"]
    assert "<script>" not in text
    assert "@everyone" not in text


def test_with_a_plain_token_the_commit_gets_a_status(
    plain: CheckBench, github: GitHubServer
) -> None:
    build_id = plain.build()
    plain.until(lambda: len(github.state.statuses) == 1)
    plain.settle()
    plain.service.show(build_id, notes=("fetching",))
    plain.room.advance(100)
    plain.service.show(build_id, notes=("fetching more",))
    plain.settle()
    plain.fail(build_id, 2)
    plain.until(lambda: len(github.state.statuses) == 2)
    plain.settle()
    assert [item["state"] for item in github.state.statuses] == ["pending", "failure"]
    last = github.state.statuses[-1]
    assert last["context"] == "smidr / qemux86-64"
    assert last["target_url"] == "https://ci.acme.example/b/42"
    assert github.asked(POST) == []


def test_a_statuss_description_has_at_most_140_characters() -> None:
    view = a_view(state=BuildState.FAILED, findings=(finding(1, recipe="r" * 300),))
    assert len(status_body(view, TARGET)["description"]) <= 140


def test_a_status_whose_answer_was_lost_is_not_posted_again(
    plain: CheckBench, github: GitHubServer
) -> None:
    github.faults.append(Fault("POST .*/statuses/.*", is_cut=True, is_after=True))
    plain.build()
    plain.until(lambda: len(github.state.statuses) == 1)
    plain.settle()
    plain.restart()
    plain.settle()
    assert len(github.state.statuses) == 1


def test_after_too_many_statuses_there_are_no_more_tries(
    plain: CheckBench, github: GitHubServer
) -> None:
    github.state.most_statuses = 0
    build_id = plain.build()
    plain.until(lambda: bool(github.asked("POST .*/statuses/.*")))
    plain.settle()
    plain.go(build_id, BuildState.BUILDING)
    plain.fail(build_id, 1)
    plain.settle()
    assert len(github.asked("POST .*/statuses/.*")) == 1


def test_a_build_that_nobody_knows_is_given_up(bench: CheckBench, github: GitHubServer) -> None:
    bench.targets.save("acme-00000000", TARGET)
    bench.restart()
    bench.settle()
    assert github.asked(POST) == []
    assert list(bench.targets.all()) == []


def test_a_check_run_that_is_gone_is_made_again(bench: CheckBench, github: GitHubServer) -> None:
    build_id = bench.build()
    bench.wait_for(status="queued")
    bench.settle()
    with github.lock:
        github.state.checks.clear()
    bench.fail(build_id, 1)
    bench.wait_for(status="completed", external_id=build_id)


def test_a_commit_that_github_does_not_know_is_given_up(
    bench: CheckBench, github: GitHubServer
) -> None:
    github.faults.append(Fault(POST, status=422, count=99))
    build_id = bench.build()
    bench.fail(build_id, 1)
    bench.until(lambda: list(bench.targets.all()) == [])
    assert sum(item.given_up for item in bench.outbox.status()) >= 1


def test_a_damaged_target_is_passed_over(tmp_path: Path) -> None:
    targets = Targets(Home(tmp_path), "lab")
    targets.save("acme-1", TARGET)
    folder = tmp_path / "github" / "lab" / "checks"
    (folder / "bad.json").write_text("{")
    (folder / "worse.json").write_text(json.dumps({"repository": "../..", "head_sha": "x"}))
    assert list(targets.all()) == [("acme-1", TARGET)]
    assert (folder / "acme-1.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "changes",
    [
        {"repository": "acme/../x"},
        {"repository": "acme"},
        {"head_sha": "main"},
        {"name": " "},
        {"name": "n" * 201},
        {"name": "a\nb"},
        {"details_url": "javascript:alert(1)"},
    ],
)
def test_a_target_that_github_would_not_take_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(TARGET, **changes)


def test_names_of_checks_are_remembered_newest_first(tmp_path: Path) -> None:
    names = CheckNames(Home(tmp_path), "lab")
    for number in range(30):
        names.add("acme/bsp", f"check {number}")
    names.add("acme/bsp", "check 15")
    assert names.of("acme/bsp")[:2] == ("check 15", "check 29")
    assert len(names.of("acme/bsp")) == 20
    assert names.of("acme/other") == ()


def test_receivers_fit_the_outbox() -> None:
    longest = f"{PREFIX}check:{'c' * 48}-12345678"
    assert len(longest) < 255
    assert CheckTarget.from_plain(TARGET.as_plain()) == TARGET
