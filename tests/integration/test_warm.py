"""Builds that go on in the directory of an earlier one: real BitBake, containers, repositories."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from smidr_ci.bitbake.plan import CONTROL_FILES
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr, kill_hard, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_SOURCE = "meta-hello/recipes/hello/files/hello.c"
_RECIPE = "meta-hello/recipes/hello/hello_1.0.bb"
_SLOW = "do_compile() {\n    while [ ! -e /smidr/src/go-on ]; do sleep 0.1; done\n"


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Downloads and sstate of all tests, so that each begins with everything restored."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture
def smidr(
    caches: Path, tmp_path: Path, hello_project: HelloProject, docker_client: APIClient
) -> Smidr:
    assert docker_client.ping()
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    settings = {
        "workspaces": {"mode": "warm"},
        "directories": {"downloads": str(caches / "dl"), "sstate": str(caches / "sstate")},
    }
    (home / "agent.yaml").write_text(json.dumps(settings))
    return Smidr(home, hello_project.work)


def ran(smidr: Smidr, record: dict[str, Any]) -> set[str]:
    """Recipes and tasks that ran, such as `hello:do_compile`."""
    events = smidr.home / "builds" / record["build_id"] / "control" / "events.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    return {f"{one['pn']}:{one['task']}" for one in lines if one["event"] == "task-succeeded"}


def wait_for_compilers(smidr: Smidr, count: int) -> None:
    """Wait until so many builds are in the task that `_SLOW` holds up."""
    paths = f"builds/*/control/{CONTROL_FILES['events']}"

    def is_held(path: Path) -> bool:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        names = [one["event"] for one in lines if one.get("pn") == "hello"
                 and one.get("task") == "do_compile"]  # fmt: skip
        return names[-1:] == ["task-started"]

    wait_until(
        lambda: len([path for path in smidr.home.glob(paths) if is_held(path)]) == count,
        f"{count} builds that compile",
    )


def test_nothing_runs_again_in_a_warm_workspace(smidr: Smidr) -> None:
    first = smidr.build()
    mark = Path(first["workspace"]) / "build" / "tmp" / "mark"
    mark.write_text("from the first build")
    second = smidr.build()
    assert second["warm_from"] == first["build_id"]
    assert second["workspace"] == first["workspace"]
    assert mark.exists()
    assert (second["tasks"]["executed"], second["tasks"]["from_sstate"]) == (0, 0)
    assert second["tasks"]["recipes_parsed"] == 0
    same = [{item["path"]: item["sha256"] for item in one["artifacts"]} for one in (first, second)]
    assert same[0] == same[1] != {}
    assert f"warm, after build {first['build_id']}" in smidr("status").out


def test_one_changed_recipe_is_the_only_one_that_is_built(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    first = smidr.build()
    hello_project.edit(_SOURCE, "puts(line)", 'printf("%s\\n", line)')
    second = smidr.build()
    assert second["warm_from"] == first["build_id"]
    assert second["layer_commits"] != first["layer_commits"]
    assert {name.partition(":")[0] for name in ran(smidr, second)} <= {"hello", "hello-image"}
    assert "hello:do_compile" in ran(smidr, second)


def test_a_recipe_that_is_changed_back_gives_the_first_image_again(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    first = smidr.build()
    hello_project.edit(_SOURCE, "puts(line)", "puts(line + 1)")
    second = smidr.build()
    hello_project.edit(_SOURCE, "puts(line + 1)", "puts(line)")
    third = smidr.build()
    assert third["warm_from"] == second["build_id"]
    images = [{item["path"]: item["sha256"] for item in one["artifacts"]} for one in (first, third)]
    assert images[0] == images[1]
    assert third["artifacts"] != second["artifacts"]


def test_another_machine_and_a_release_get_workspaces_of_their_own(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    first = smidr.build()
    text = hello_project.config.read_text()
    assert text.count("hello-x86 ") == 1
    (hello_project.work / "pc").mkdir()
    other = text.replace("hello-x86 ", "hello-pc ").replace("source: .", "source: ..")
    (hello_project.work / "pc" / "smidr.yaml").write_text(other)
    pc = smidr.build("-c", "pc/smidr.yaml")
    assert pc["warm_from"] == ""
    assert pc["workspace"] != first["workspace"]
    tagged = Smidr(smidr.home, smidr.directory, {"CI_COMMIT_TAG": "v1"})
    release = tagged.build()
    assert (release["warm_from"], release["workspace"]) == ("", "")
    assert smidr.build("--fresh")["warm_from"] == ""
    assert smidr.build("-c", "pc/smidr.yaml")["warm_from"] == pc["build_id"]


def test_the_workspace_of_a_killed_build_is_never_used_again(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    first = smidr.build()
    hello_project.edit(_RECIPE, "do_compile() {\n", _SLOW)
    process = smidr.start("build")
    wait_for_compilers(smidr, 1)
    kill_hard(process)
    killed = smidr.newest()
    assert killed["warm_from"] == first["build_id"]
    hello_project.edit(_RECIPE, _SLOW, "do_compile() {\n")
    after = smidr.build()
    assert after["warm_from"] == ""
    assert after["workspace"] != first["workspace"]
    assert "workspace" in smidr("doctor", "--clean").text
    assert not Path(first["workspace"]).exists()


def test_of_two_builds_at_once_one_is_warm_and_the_other_fresh(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    first = smidr.build()
    hello_project.edit(_RECIPE, "do_compile() {\n", _SLOW)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(smidr.build)]
        wait_for_compilers(smidr, 1)
        runs.append(pool.submit(smidr.build))
        wait_for_compilers(smidr, 2)
        (hello_project.work / "go-on").touch()
        warm, fresh = (run.result() for run in runs)
    assert (warm["warm_from"], fresh["warm_from"]) == (first["build_id"], "")
    assert warm["workspace"] != fresh["workspace"]
    assert warm["artifacts"] == fresh["artifacts"]
    assert smidr.build()["warm_from"] in {warm["build_id"], fresh["build_id"]}


def test_a_failed_build_is_there_for_a_shell_until_the_next_goes_on(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    smidr.build()
    hello_project.edit(_SOURCE, "puts(line);", "puts(line)")
    assert smidr("build").code == 1
    failed = smidr.newest()
    assert Path(failed["workspace"]).is_dir()
    hello_project.edit(_SOURCE, "puts(line)\n", "puts(line);\n")
    repaired = smidr.build()
    assert repaired["warm_from"] == failed["build_id"]
    assert smidr("status", failed["build_id"], "--json").json["workspace"] == ""


def test_a_tmpdir_that_bitbake_refuses_is_replaced_by_a_fresh_one(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    check = (
        "python () {\n"
        "    if os.path.exists(d.expand('${TMPDIR}/moved')):\n"
        "        bb.fatal('Error, TMPDIR has changed location. You need to move it back.')\n"
        "}\n"
    )
    hello_project.add("meta-hello/recipes/hello/hello_1.0.bbappend", "")
    hello_project.edit(_RECIPE, "do_compile() {\n", f"{check}do_compile() {{\n")
    first = smidr.build()
    (Path(first["workspace"]) / "build" / "tmp" / "moved").touch()
    hello_project.edit(_SOURCE, "puts(line)", 'printf("%s\\n", line)')
    hello_project.edit(_RECIPE, check, f"{check}# parse this again\n")
    second = smidr.build()
    assert (second["state"], second["warm_from"]) == ("completed", "")
    assert not (Path(second["workspace"]) / "build" / "tmp" / "moved").exists()


def test_the_oldest_go_when_there_are_too_many(smidr: Smidr) -> None:
    settings = json.loads((smidr.home / "agent.yaml").read_text())
    settings["workspaces"]["max_count"] = 1
    (smidr.home / "agent.yaml").write_text(json.dumps(settings))
    first = smidr.build()
    second = smidr.build("--fresh")
    assert not Path(first["workspace"]).exists()
    assert smidr("status", first["build_id"], "--json").json["workspace"] == ""
    assert smidr.build()["warm_from"] == second["build_id"]
