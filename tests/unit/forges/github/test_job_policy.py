"""Which jobs get a runner: workflows are strangers' text, read at the commit that they run for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smidr_ci.config.document import Mapping, compose
from smidr_ci.forges.github.runners.steps import is_named, runs_smidr
from tests.fakes.github.demand_bench import SMIDR_WORKFLOW, WORKFLOW, DemandBench
from tests.fakes.github.room import Room
from tests.fakes.github.scale_sets import TENANT
from tests.fakes.github.server import Fault, GitHubServer
from tests.fakes.github.state import SHA

CONTENTS = "GET /repos/.*/contents/.*"
PLAIN = "jobs: {image: {runs-on: smidr, steps: [{run: make}]}}"
FORK = {"id": 66, "full_name": "mallory/bsp"}

Make = Callable[..., DemandBench]


@pytest.fixture
def make(room: Room) -> Iterator[Make]:
    benches: list[DemandBench] = []

    def made(**settings: Any) -> DemandBench:
        settings = {"mode": "jit", "labels": ["smidr"], **settings}
        benches.append(DemandBench(room, **settings))
        return benches[-1]

    yield made
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make: Make) -> DemandBench:
    return make()


def gets_a_runner(bench: DemandBench) -> bool:
    bench.look()
    return bool(bench.runners.started)


# What a job's workflow says.


@pytest.mark.parametrize(
    "step",
    [
        "uses: smidr/build@v1\n        with: {config: smidr.yaml}",
        "uses: Smidr/Build@0123456789abcdef\n        with:\n          config: a/b.yaml",
        "run: smidr ci build smidr.yaml",
        "run: smidr build",
        "run: |\n          set -e\n          cd image && exec smidr ci build smidr.yaml",
        "run: FOO=1 sudo /usr/bin/smidr build image.yaml --target x",
        "run: python3 -m smidr_ci ci build x.yaml",
        "run: |\n          smidr \\\n            ci build x.yaml",
        "if: always()\n        run: 'smidr --verbose ci build x.yaml'",
    ],
)
def test_a_job_that_builds_with_smidr_gets_a_runner(bench: DemandBench, step: str) -> None:
    workflow = f"jobs:\n  image:\n    runs-on: smidr\n    steps:\n      - {step}\n"
    bench.job(workflow=workflow)
    assert gets_a_runner(bench)


@pytest.mark.parametrize(
    "step",
    [
        "run: make",
        "uses: actions/checkout@v5",
        "uses: smidr/build@v1",
        "uses: mallory/build@v1\n        with: {config: smidr.yaml}",
        "uses: smidr/build-everything@v1\n        with: {config: smidr.yaml}",
        "name: smidr/build@v1 with config",
        "run: '# smidr ci build'",
        "run: echo smidr ci build",
        "run: curl x # smidr ci build",
        "run: smidr status",
        "run: smidrx ci build",
        "if: false\n        run: smidr ci build",
        "if: ${{ false }}\n        uses: smidr/build@v1\n        with: {config: x}",
        "env: {X: smidr ci build}",
        "run: [smidr, ci, build]",
        "with: {config: smidr.yaml}",
    ],
)
def test_a_job_that_does_not_build_with_smidr_gets_none(bench: DemandBench, step: str) -> None:
    workflow = f"jobs:\n  image:\n    runs-on: smidr\n    steps:\n      - {step}\n"
    bench.job(workflow=workflow)
    assert not gets_a_runner(bench)
    assert bench.made.told().state == "asking"  # it is nobody's fault


def test_the_workflow_is_read_at_the_commit_of_the_run(
    bench: DemandBench, github: GitHubServer
) -> None:
    bench.job(workflow=PLAIN)
    github.state.runners.put(WORKFLOW, SMIDR_WORKFLOW, ref="main")
    assert not gets_a_runner(bench)
    (asked,) = github.asked(CONTENTS)
    assert asked.query["ref"] == SHA
    scopes = [item["permissions"] for item in github.state.token_requests]
    assert {"contents": "read"} in scopes


def test_a_commit_is_read_once(bench: DemandBench, github: GitHubServer) -> None:
    bench.job()
    bench.job()
    bench.look()
    bench.look()
    assert len(github.asked(CONTENTS)) == 1


def test_privileged_events_run_the_workflow_of_the_default_branch(
    bench: DemandBench, github: GitHubServer
) -> None:
    bench.job(run={"event": "pull_request_target"})  # whose head says that it is smidr's
    github.state.runners.put(WORKFLOW, PLAIN, ref="main")
    assert not gets_a_runner(bench)
    assert "ref" not in github.asked(CONTENTS)[0].query
    github.state.runners.put(WORKFLOW, SMIDR_WORKFLOW, ref="main")
    assert gets_a_runner(bench)


def test_the_job_counts_and_not_another_of_the_same_workflow(bench: DemandBench) -> None:
    workflow = """
jobs:
  image: {runs-on: smidr, steps: [{run: smidr ci build x.yaml}]}
  miner: {runs-on: smidr, name: "dig ${{ matrix.x }} now", steps: [{run: ./dig}]}
"""
    bench.job(name="dig gold now", workflow=workflow)
    assert not gets_a_runner(bench)
    bench.job(name="image")
    assert gets_a_runner(bench)


def test_a_matrix_adds_to_the_name(bench: DemandBench) -> None:
    workflow = """
jobs:
  image:
    runs-on: smidr
    strategy: {matrix: {machine: [a, b]}}
    steps: [{uses: smidr/build@v1, with: {config: x}}]
  lint: {runs-on: smidr, steps: [{run: make lint}]}
"""
    bench.job(name="image (a)", workflow=workflow)
    assert gets_a_runner(bench)


@pytest.mark.parametrize(
    ("job_id", "text", "shown", "fits"),
    [
        ("image", "{}", "image", True),
        ("image", "{}", "images", False),
        ("image", "{}", "image (a)", False),
        ("image", "{strategy: {matrix: {x: [1]}}}", "image (1, 2)", True),
        ("image", "{name: Build}", "image", False),
        ("image", "{name: Build}", "Build", True),
        ("image", '{name: "${{ x }}"}', "anything", True),
        ("image", '{name: "a ${{ x }} b ${{ y }} c"}', "a 1 b 2 c", True),
        ("image", '{name: "a ${{ x }} b ${{ y }} c"}', "a 1 c", False),
        ("image", '{name: "ab${{ x }}ba"}', "aba", False),
        ("image", '{name: "a ${{ unclosed"}', "a what", True),
    ],
)
def test_names_are_told_apart(job_id: str, text: str, shown: str, *, fits: bool) -> None:
    job = compose(text)
    assert isinstance(job, Mapping)
    assert is_named(job_id, job, shown) is fits


def test_a_workflow_of_the_same_commit_that_is_called_is_read_too(
    bench: DemandBench, github: GitHubServer
) -> None:
    caller = "jobs: {all: {uses: ./.github/workflows/inner.yml}}"
    github.state.runners.put(".github/workflows/inner.yml", SMIDR_WORKFLOW, ref=SHA)
    bench.job(name="all / image", workflow=caller)
    assert gets_a_runner(bench)


def test_a_workflow_of_another_repository_is_read_where_the_run_says(
    make: Make, github: GitHubServer
) -> None:
    where = "acme/ci/.github/workflows/image.yml@v1"
    caller = f"jobs: {{all: {{uses: {where}}}}}"
    pinned = "c" * 40
    github.state.runners.put(
        ".github/workflows/image.yml", SMIDR_WORKFLOW, repository="acme/ci", ref=pinned
    )
    bench = make(url=f"{github.web}/acme")
    referenced = [{"path": where, "sha": pinned, "ref": "refs/tags/v1"}]
    bench.job(name="all / image", workflow=caller, run={"referenced_workflows": referenced})
    assert gets_a_runner(bench)
    assert github.asked("GET /repos/acme/ci/contents/.*")[0].query["ref"] == pinned


@pytest.mark.parametrize(
    "called",
    [
        "mallory/ci/.github/workflows/x.yml@v1",
        "acme/ci/.github/workflows/x.yml",
        "acme/ci/../../x/.github/workflows/x.yml@v1",
        "acme/ci/.github/workflows/../../x.yml@v1",
        "./../../x.yml",
        "./.github/workflows/",
        "acme/ci/.github/workflows/x.yml@../..",
        "acme/ci/.github/workflows/x.yml@a?ref=b&x",
    ],
)
def test_called_workflows_that_could_be_anywhere_are_not_asked_for(
    bench: DemandBench, github: GitHubServer, called: str
) -> None:
    bench.job(name="all / image", workflow=json.dumps({"jobs": {"all": {"uses": called}}}))
    assert not gets_a_runner(bench)
    assert len(github.asked(CONTENTS)) == 1


def test_a_composite_action_of_the_repository_is_read_too(
    bench: DemandBench, github: GitHubServer
) -> None:
    workflow = "jobs: {image: {runs-on: smidr, steps: [{uses: ./.github/actions/image}]}}"
    action = "runs: {using: composite, steps: [{uses: smidr/build@v1, with: {config: x}}]}"
    github.state.runners.put(".github/actions/image/action.yaml", action, ref=SHA)
    bench.job(workflow=workflow)
    assert gets_a_runner(bench)


def test_actions_outside_of_the_repository_are_not_asked_for(
    bench: DemandBench, github: GitHubServer
) -> None:
    steps = [{"uses": used} for used in ("./../x", "./a/../../b", "./a\x00b", "./" + "a" * 400)]
    bench.job(workflow=json.dumps({"jobs": {"image": {"steps": steps}}}))
    assert not gets_a_runner(bench)
    assert len(github.asked(CONTENTS)) == 1


# What strangers may try.


def deep(levels: int) -> str:
    return "jobs: " + "[" * levels + "]" * levels


def laughs() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


def merges() -> str:
    lines = ["a: &a {x: 1}"]
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        deep(5000),
        laughs(),
        merges(),
        "jobs: &x {image: *x}",
        "!!python/object/apply:os.system ['touch /tmp/owned']",
        "jobs: !ruby/object:X {}",
        "",
        "jobs",
        "- jobs",
        "jobs: {image: 7}",
        "jobs: {image: {steps: 7}}",
        "jobs: {image: {steps: [7, [7], null]}}",
        "jobs: {image: {steps: [{run: {a: b}, uses: [x]}]}}",
        "jobs: {image: {uses: {a: b}}}",
        "\x00\x01\x02",
        "a: b\n---\njobs: {}",
        "jobs: {'" + "x" * 100_000 + "': {}}",
        'jobs: {image: {steps: [{run: "' + "smidr " * 20_000 + '"}]}}',
        'jobs: {image: {name: "' + "${{ x }} " * 20_000 + '"}}',
        "#" + "x" * 600_000,
    ],
)
def test_workflows_made_to_hurt_do_no_more_than_go_without_a_runner(
    bench: DemandBench, text: str
) -> None:
    before = time.process_time()
    bench.job(workflow=text)
    assert not gets_a_runner(bench)
    assert time.process_time() - before < 5
    bench.job(556, run={"head_sha": "d" * 40})
    assert gets_a_runner(bench)


def test_workflows_that_call_themselves_come_to_an_end(
    bench: DemandBench, github: GitHubServer
) -> None:
    bench.job(name="a / a / a", workflow=f"jobs: {{a: {{uses: ./{WORKFLOW}}}}}")
    assert not gets_a_runner(bench)
    assert len(github.asked(CONTENTS)) <= 20


def test_a_workflow_that_calls_hundreds_costs_few_calls(
    bench: DemandBench, github: GitHubServer
) -> None:
    jobs = {f"j{at}": {"uses": f"./.github/workflows/{at}.yml"} for at in range(250)}
    for at in range(250):
        github.state.runners.put(f".github/workflows/{at}.yml", PLAIN, ref=SHA)
    bench.job(name="what is this", workflow=json.dumps({"jobs": jobs}))
    assert not gets_a_runner(bench)
    assert len(github.asked(CONTENTS)) <= 20


def test_hundreds_of_new_workflows_are_read_bit_by_bit(
    bench: DemandBench, github: GitHubServer
) -> None:
    for number in range(42):
        bench.job(1000 + number, workflow=PLAIN, run={"head_sha": f"{number:040x}"})
    bench.job(999, run={"head_sha": "e" * 40})
    bench.look()
    first = len(github.asked(CONTENTS))
    assert first <= 40
    assert "more workflows are new" in bench.made.told().detail
    assert gets_a_runner(bench)


@pytest.mark.parametrize(
    "content",
    [
        {"type": "dir"},
        [],
        "text",
        {"content": "%%%", "size": 3},
        {"content": "gA==", "size": 1},
        {"content": 7, "size": 1},
        {"content": "eA==", "size": 10**12},
        {"content": "eA==", "size": "1"},
    ],
)
def test_answers_in_another_form_are_no_workflow(
    bench: DemandBench, github: GitHubServer, content: Any
) -> None:
    github.faults.append(Fault(CONTENTS, status=200, body=content, count=9))
    bench.job()
    assert not gets_a_runner(bench)


@pytest.mark.parametrize(
    "path",
    ["dynamic/dependabot/updates", ".github/workflows/../../x.yml", "x.yml", "", None, 7],
)
def test_runs_without_a_workflow_of_the_repository_get_no_runner(
    bench: DemandBench, github: GitHubServer, path: Any
) -> None:
    github.is_strict = False
    bench.job(run={"path": path})
    assert not gets_a_runner(bench)
    assert github.asked(CONTENTS) == []
    github.violations.clear()


def test_a_path_with_its_ref_behind_is_one(bench: DemandBench) -> None:
    bench.job(run={"path": f"{WORKFLOW}@refs/heads/main"})
    assert gets_a_runner(bench)


def test_a_workflow_that_is_gone_gets_no_runner(bench: DemandBench, github: GitHubServer) -> None:
    bench.job()
    github.state.runners.files.clear()
    assert not gets_a_runner(bench)


def test_while_github_does_not_answer_nothing_is_decided(
    bench: DemandBench, github: GitHubServer
) -> None:
    github.faults.append(Fault(CONTENTS, status=503, count=4))
    bench.job()
    assert not gets_a_runner(bench)
    assert bench.made.told().state == "waiting"
    assert gets_a_runner(bench)


# What the operator says.


def test_any_job_gets_a_runner_where_the_operator_says_so(make: Make, github: GitHubServer) -> None:
    bench = make(config={"github": {"only_smidr_jobs": "never"}})
    bench.job(workflow=PLAIN)
    assert gets_a_runner(bench)
    assert github.asked(CONTENTS) == []


def test_an_action_of_ones_own_counts_where_the_operator_names_it(make: Make) -> None:
    bench = make(config={"github": {"smidr_actions": ["acme/*"]}})
    step = "{uses: acme/image@v2, with: {config: x}}"
    bench.job(workflow=f"jobs: {{image: {{steps: [{step}]}}}}")
    assert gets_a_runner(bench)
    found = compose("{uses: smidr/build@v1, with: {config: x}}")
    assert isinstance(found, Mapping)
    assert not runs_smidr(found, ["acme/*"])


def fork_job(bench: DemandBench, **run: Any) -> dict[str, Any]:
    job = bench.job(run={"event": "pull_request", **run})
    bench.server.state.runs[555]["head_repository"] = {
        **bench.server.state.runs[555]["head_repository"],
        **FORK,
    }
    return job


def test_forks_get_no_runner_where_the_operator_refuses_them(make: Make) -> None:
    bench = make(config={"github": {"forks": "refuse"}})
    fork_job(bench)
    assert not gets_a_runner(bench)
    bench.job(556, run={"event": "pull_request"})
    assert gets_a_runner(bench)


def test_a_fork_waits_for_an_approval_of_its_commit(make: Make) -> None:
    bench = make(config={"github": {"forks": "approve"}})
    fork_job(bench)
    assert not gets_a_runner(bench)
    bench.look()
    assert [held[:2] for held in bench.held] == [("acme/bsp", SHA)]
    bench.approvals.add("acme/bsp", "f" * 40, "alice")
    assert not gets_a_runner(bench)
    bench.approvals.add("acme/bsp", SHA, "alice")
    bench.made.heard("acme/bsp")
    assert gets_a_runner(bench)


def test_a_run_whose_source_is_unknown_is_a_forks(make: Make, github: GitHubServer) -> None:
    bench = make(config={"github": {"forks": "refuse"}})
    github.is_strict = False
    bench.job(run={"event": "pull_request", "head_repository": None})
    assert not gets_a_runner(bench)
    github.violations.clear()


# Scale sets: GitHub counts refused jobs too.


def scale_set(make: Make, **github: Any) -> DemandBench:
    bench = make(mode="scale-set", scale_set="smidr-lab1", labels=[], config={"github": github})
    bench.start()
    bench.server.wait_until(lambda: bool(bench.server.scale_sets.capacities))
    return bench


def put(bench: DemandBench, *items: dict[str, Any], **totals: Any) -> int:
    with bench.server.lock:
        number = bench.server.scale_sets.put(*items, **totals)
        bench.server.lock.notify_all()
    bench.server.wait_until(lambda: number not in bench.server.scale_sets.only.messages)
    return number


def test_a_scale_set_takes_any_job_unless_told_otherwise(make: Make, github: GitHubServer) -> None:
    bench = scale_set(make)
    bench.job(workflow=PLAIN)
    put(bench, github.scale_sets.item("JobAssigned"), assigned=1)
    bench.runners.wait_until(lambda: len(bench.runners.started) == 1)
    assert github.asked(CONTENTS) == []


def test_refused_jobs_of_a_scale_set_get_no_runner_also_after_a_kill(
    make: Make, github: GitHubServer
) -> None:
    bench = scale_set(make, only_smidr_jobs="always")
    bench.job(workflow=PLAIN)
    item = github.scale_sets.item("JobAssigned")
    put(bench, item, assigned=1)
    bench.look()
    assert bench.runners.started == []
    bench.kill()
    bench.restart()
    bench.start()
    bench.server.wait_until(lambda: len(github.asked(f"POST {TENANT}/.*/sessions")) == 2)
    bench.job(556, run={"head_sha": "d" * 40})
    other = github.scale_sets.item("JobAssigned", workflowRunId=556, jobDisplayName="image")
    put(bench, other, assigned=2)
    bench.runners.wait_until(lambda: len(bench.runners.started) == 1)
    bench.look()
    assert len(bench.runners.started) == 1
    put(bench, {**item, "messageType": "JobCompleted", "result": "canceled"}, assigned=1)
    bench.look()
    assert len(bench.runners.started) == 1


def test_refused_jobs_that_are_to_be_had_are_not_taken(make: Make, github: GitHubServer) -> None:
    bench = scale_set(make, only_smidr_jobs="always")
    bench.job(workflow=PLAIN)
    put(bench, github.scale_sets.item("JobAvailable"), available=1)
    assert github.asked(".*/acquirejobs") == []


@pytest.mark.parametrize("changes", [{"repositoryName": "../x"}, {"workflowRunId": None}])
def test_items_that_say_nothing_of_their_run_get_no_runner(
    make: Make, github: GitHubServer, changes: dict[str, Any]
) -> None:
    bench = scale_set(make, forks="refuse")
    put(bench, github.scale_sets.item("JobAssigned", **changes), assigned=1)
    bench.look()
    assert bench.runners.started == []


def test_an_approved_forks_job_of_a_scale_set_gets_its_runner(
    make: Make, github: GitHubServer
) -> None:
    bench = scale_set(make, forks="approve")
    fork_job(bench)
    put(bench, github.scale_sets.item("JobAssigned"), assigned=1)
    bench.look()
    assert bench.runners.started == []
    bench.approvals.add("acme/bsp", SHA, "alice")
    bench.made.heard("acme/bsp")
    bench.runners.wait_until(lambda: len(bench.runners.started) == 1)
