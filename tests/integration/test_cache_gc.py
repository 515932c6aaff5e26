"""The caches of real builds: collected under a running build, damaged, verified, and made anew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from docker import APIClient

from tests.fakes.fault_recipes import add_fault_recipes, wait_for_console
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

DAY_S = 86_400


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, make_hello_project: Callable[[Path], HelloProject]
) -> HelloProject:
    made = make_hello_project(tmp_path_factory.mktemp("gc"))
    add_fault_recipes(made)
    return made


@pytest.fixture
def smidr(project: HelloProject, tmp_path: Path, docker_client: APIClient) -> Smidr:
    assert docker_client.ping()
    return Smidr(tmp_path / "home", project.work)


def objects(smidr: Smidr) -> dict[str, Path]:
    found = (smidr.home / "sstate-cache").rglob("sstate:*.tgz")
    return {path.name: path for path in found if "damaged" not in path.parts}


def age(paths: list[Path], days: float) -> None:
    moment = time.time() - days * DAY_S
    for path in paths:
        for name in (path, path.with_name(f"{path.name}.siginfo")):
            if name.exists():
                os.utime(name, (moment, moment))


def test_a_running_build_keeps_what_it_needs_and_ends_well(
    smidr: Smidr, project: HelloProject
) -> None:
    text = project.config.read_text()
    other = project.work / "pc.yaml"
    other.write_text(text.replace("machine: hello-x86", "machine: hello-pc"))
    smidr.build("-c", "pc.yaml", "--customer", "other")
    of_pc = set(objects(smidr))
    smidr.build()
    needed = set(objects(smidr)) - of_pc
    assert needed
    age(list(objects(smidr).values()), 40)
    build = smidr.start("build", "-t", "patient", "-t", "hello-image", "--customer", "waiting")
    wait_for_console(smidr, "waiting", "patient waits")
    answer = smidr("cache", "gc", "--max-age", "30d", "--json")
    assert answer.code == 0, answer.text
    assert '"cache": "sstate"' in answer.out
    left = set(objects(smidr))
    assert needed <= left
    assert left < needed | of_pc
    (project.work / "go").touch()
    said, _ = build.communicate(timeout=120)
    (project.work / "go").unlink()
    assert build.returncode == 0, said
    record = smidr.newest()
    assert record["state"] == "completed"
    # What went is only made again by a build that wants it.
    again = smidr.build("-c", "pc.yaml", "--customer", "other")
    assert again["sstate"]["missed"] > 0
    assert set(objects(smidr)) >= of_pc


def test_a_damaged_object_is_set_aside_and_made_anew(smidr: Smidr) -> None:
    smidr.build()
    whole = smidr("cache", "verify")
    assert whole.code == 0, whole.text
    assert "proven" in whole.out
    name, path = next((name, path) for name, path in objects(smidr).items() if ":greeter:" in name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    told = smidr("cache", "verify", "--dry-run")
    assert told.code == 1
    assert name in told.out
    assert path.exists()
    done = smidr("cache", "verify")
    assert "damaged, set aside" in done.out
    assert not path.exists()
    assert (smidr.home / "sstate-cache" / "damaged" / name).exists()
    record = smidr.build()
    assert record["sstate"]["missed"] == 1
    assert path.read_bytes() == content
    assert smidr("cache", "verify").code == 0


def test_a_damaged_git_download_is_fetched_anew(smidr: Smidr) -> None:
    smidr.build()
    mirror = next((smidr.home / "downloads" / "git2").glob("*.git"))
    for path in (*mirror.glob("objects/pack/*.pack"), *mirror.glob("objects/??/*")):
        path.unlink()
    done = smidr("cache", "verify", "--cache", "downloads")
    assert done.code == 1, done.text
    assert not mirror.exists()
    answer = smidr("cache", "gc", "--max-age", "0")
    assert answer.code == 0, answer.text
    assert objects(smidr) == {}
    record = smidr.build()
    assert record["sstate"]["local"] == 0
    assert mirror.is_dir()
    assert objects(smidr)


def test_stats_tell_sizes_and_reuse(smidr: Smidr) -> None:
    smidr.build()
    smidr.build()
    found = smidr("cache", "stats", "--json").json
    by_name = {item["name"]: item for item in found["caches"]}
    assert by_name["sstate"]["objects"] >= len(objects(smidr))
    assert by_name["sstate"]["size_bytes"] > 0
    assert by_name["layers"]["files"] >= 2
    (reuse,) = found["reuse"]
    assert (reuse["project"], reuse["builds"], reuse["last_percent"]) == ("hello", 2, 100)
    text = smidr("cache", "stats")
    assert text.code == 0
    assert "sstate" in text.out
    assert "default/hello" in text.out
