"""The driver with real BitBake in a container.

BitBake from the wheel always; each branch in SMIDR_TEST_BITBAKE_BRANCHES of the git repository
SMIDR_TEST_BITBAKE when that is set.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.bitbake.parse_cache import cache_files
from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.user import builder_user
from smidr_ci.engine import Engine
from tests.fakes.bitbake_site import check_out
from tests.fakes.driver_builds import BuildSite, Checkout, layer_tree

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

MINI = Path(__file__).resolve().parents[1] / "data" / "bitbake" / "meta-mini"
BRANCHES = os.environ.get("SMIDR_TEST_BITBAKE_BRANCHES", "1.46 2.0 2.8 2.18 master").split()
RELEASES = ["wheel", *BRANCHES]
RECIPES = len(list(MINI.glob("recipes/*/*.bb")))


@pytest.fixture(scope="session")
def bitbakes() -> dict[str, Checkout]:
    """Checkouts that were made already, by name."""
    return {}


@pytest.fixture
def bitbake(
    request: pytest.FixtureRequest,
    bitbakes: dict[str, Checkout],
    tmp_path_factory: pytest.TempPathFactory,
) -> Checkout:
    """The release that the test's parameter names; the wheel by default."""
    name = getattr(request, "param", "wheel")
    if name not in bitbakes:
        target = tmp_path_factory.mktemp("bitbake") / name
        if name == "wheel":
            repository, branch = str(request.getfixturevalue("wheel_bitbake_repo")), "main"
        else:
            repository, branch = os.environ.get("SMIDR_TEST_BITBAKE", ""), name
            if not repository:
                pytest.skip(
                    "SMIDR_TEST_BITBAKE is not set: give it a clone (or the URL) of BitBake's "
                    f"git repository with the branch {name}"
                )
        bitbakes[name] = Checkout(name, check_out(repository, branch, target))
    return bitbakes[name]


@pytest.fixture
def site(
    engine: Engine, hello_builder_image: str, tmp_path: Path, bitbake: Checkout
) -> Iterator[BuildSite]:
    layer = tmp_path / "meta-mini"
    shutil.copytree(MINI, layer)
    site = BuildSite(
        DockerRuntime(engine=engine),
        hello_builder_image,
        builder_user(os.environ),
        tmp_path / "site",
        bitbake,
        (layer_tree("meta-mini", layer, "mini"),),
    )
    yield site
    site.clean_up()


every_release = pytest.mark.parametrize("bitbake", RELEASES, indirect=True)


@every_release
def test_a_build_is_followed_from_parsing_to_its_end(site: BuildSite) -> None:
    ended = site.run("quick")
    assert ended.exit.code == 0, ended.console
    assert ended.result is not None
    assert ended.result.error == ""
    progress = ended.progress
    assert progress.bitbake.startswith(".".join(map(str, site.bitbake.version)))
    assert progress.recipes == progress.recipes_parsed == RECIPES
    assert (progress.tasks_total, progress.tasks_completed) == (3, 3)
    assert progress.tasks_executed == 2
    assert progress.failures == ()
    assert progress.errors == ()
    assert not progress.running
    assert "Tasks Summary: Attempted 3 tasks" in ended.console
    assert not [path for path in site.topdir.glob("*") if path.suffix in {".lock", ".sock"}]


@every_release
def test_a_second_build_parses_nothing_and_runs_nothing(site: BuildSite) -> None:
    site.run("quick")
    again = site.run("quick").progress
    assert (again.recipes_parsed, again.recipes_cached) == (0, RECIPES)
    assert again.tasks_executed == 0
    assert again.exit_code == 0


@every_release
def test_a_failing_task_is_told_with_recipe_task_exit_code_and_log(site: BuildSite) -> None:
    ended = site.run("failing", "quick")
    assert ended.exit.code == 1
    (failure,) = ended.progress.failures
    assert (failure.pn, failure.pv, failure.task) == ("failing", "2.5", "do_compile")
    assert failure.file == "/smidr/layers/meta-mini/recipes/mini/failing_2.5.bb"
    assert failure.exit_code == 1
    log = site.topdir / Path(failure.logfile).relative_to("/smidr/build")
    assert "the compiler is on strike" in log.read_text()
    errors = [event for event in ended.named("log") if event["level"] == "error"]
    assert any(event.get("pn") == "failing" for event in errors)


@every_release
def test_a_missing_provider_is_told(site: BuildSite) -> None:
    ended = site.run("needy")
    assert ended.exit.code == 1
    (missing,) = ended.named("no-provider")
    assert missing["item"] == "no-such-recipe"
    assert "Nothing PROVIDES 'no-such-recipe'" in missing["message"]
    assert any("no-such-recipe" in text for text in ended.progress.errors)


@every_release
def test_a_parse_error_is_told_with_file_and_line(site: BuildSite) -> None:
    (site.trees[0].tree / "recipes/mini/broken_1.0.bb").write_text('A = "1"\nthis is no recipe\n')
    ended = site.run("quick")
    assert ended.exit.code == 1
    assert any("broken_1.0.bb:2" in text for text in ended.progress.errors), ended.progress.errors


@every_release
def test_a_running_task_is_seen_and_ended_by_a_cancel(site: BuildSite) -> None:
    handle = site.start("sleeper", interrupt_grace_s=3.0, kill_grace_s=20.0)
    site.wait_for_file(handle, "sleeping")
    began = time.monotonic()
    site.runtime.interrupt(handle)
    ended = site.finish(handle, 60)
    assert time.monotonic() - began < 30
    assert ended.result is not None
    assert (ended.result.interrupted, ended.result.timed_out) == (True, False)
    assert ended.exit.code == 1, ended.console
    started = [event["pn"] for event in ended.named("task-started")]
    assert "sleeper" in started
    steps = [event["step"] for event in ended.named("stop")]
    assert steps == ["interrupt", "interrupt-again"]
    assert not (site.topdir / "bitbake.lock").exists()
    assert site.run("quick").exit.code == 0


@every_release
def test_the_first_interrupt_lets_running_tasks_finish_and_starts_no_more(
    site: BuildSite,
) -> None:
    handle = site.start("after-patient", interrupt_grace_s=120.0)
    site.wait_for_file(handle, "sleeping")
    site.runtime.interrupt(handle)
    console = site.control / "console.log"
    site.wait_until(handle, lambda: "Keyboard Interrupt" in console.read_text(), "interrupt")
    (site.topdir / "go-on").touch()
    ended = site.finish(handle, 90)
    done = [(event["pn"], event["task"]) for event in ended.named("task-succeeded")]
    assert ("patient", "do_compile") in done
    assert ("after-patient", "do_compile") not in done
    assert ended.result is not None
    assert ended.result.interrupted is True
    assert ended.exit.code == 1


def test_the_time_limit_stops_the_build(site: BuildSite) -> None:
    ended = site.run("sleeper", time_limit_s=8.0, interrupt_grace_s=1.0, kill_grace_s=20.0)
    assert ended.result is not None
    assert ended.result.timed_out is True
    assert ended.exit.code == 1


@every_release
def test_a_workspace_whose_container_was_killed_can_be_used_again(site: BuildSite) -> None:
    handle = site.start("sleeper")
    site.wait_for_file(handle, "sleeping")
    site.runtime.kill(handle)
    ended = site.finish(handle, 60)
    assert ended.result is None
    assert (site.topdir / "bitbake.lock").exists()
    again = site.run("quick")
    assert again.exit.code == 0, again.console
    assert "Retrying server connection" not in again.console


def test_processes_killed_for_memory_are_counted(site: BuildSite) -> None:
    site.memory_bytes = 256 * 1024**2
    ended = site.run("hungry")
    assert ended.result is not None
    assert ended.result.oom_kills >= 1
    assert ended.exit.code == 1
    assert [failure.pn for failure in ended.progress.failures] == ["hungry"]


@every_release
def test_variables_of_the_config_reach_recipes(site: BuildSite) -> None:
    ended = site.run("curious", environment={"GREETING": "hej"}, passthrough=("GREETING",))
    assert "greeting is hej" in ended.console
    assert [event["message"] for event in ended.named("log")] == ["greeting is hej"]


@every_release
def test_fetch_and_build_are_phases_of_their_own(site: BuildSite) -> None:
    ended = site.run("quick", phases=("fetch", "build"))
    assert ended.exit.code == 0, ended.console
    assert [event["phase"] for event in ended.named("phase")] == ["fetch", "build"]
    tasks = [event["task"] for event in ended.named("task-succeeded")]
    assert tasks == ["do_fetch", "do_compile"]


@every_release
def test_a_copied_parse_cache_makes_a_fresh_directory_warm(site: BuildSite, tmp_path: Path) -> None:
    site.run("quick")
    fresh = BuildSite(
        site.runtime, site.image, site.user, tmp_path / "fresh", site.bitbake, site.trees
    )
    fresh.seed(site.topdir, cache_files(site.topdir))
    try:
        warm = fresh.run("quick").progress
    finally:
        fresh.clean_up()
    assert warm.exit_code == 0
    assert warm.recipes_parsed == 0
    assert warm.tasks_executed == 2
