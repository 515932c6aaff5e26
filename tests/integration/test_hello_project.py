"""The hello project under real BitBake, without smidr's pipeline: what the layer itself promises.

BitBake comes from the wheel, and from every branch in SMIDR_TEST_BITBAKE_BRANCHES of the git
repository SMIDR_TEST_BITBAKE when that is set.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.user import builder_user
from smidr_ci.engine import Engine
from tests.fakes.bitbake_site import Console, Site, check_out, read_cpio
from tests.fakes.hello import HelloProject

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

BRANCHES = os.environ.get("SMIDR_TEST_BITBAKE_BRANCHES", "2.0 2.8 master").split()
IMAGE = Path("tmp/deploy/images/hello-x86/hello-image-hello-x86.cpio.gz")


@pytest.fixture
def site(engine: Engine, hello_builder_image: str, tmp_path: Path) -> Iterator[Site]:
    runtime = DockerRuntime(engine=engine)
    root = tmp_path / "site"
    root.mkdir()
    site = Site(runtime, hello_builder_image, root, builder_user(os.environ))
    yield site
    for handle in site.started:
        runtime.remove(handle)


@pytest.fixture(scope="session")
def wheel_bitbake(wheel_bitbake_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return check_out(str(wheel_bitbake_repo), "main", tmp_path_factory.mktemp("bitbake") / "wheel")


@pytest.fixture
def warm_site(site: Site, warm_caches: Path) -> Site:
    """A site whose caches hold the example as it is."""
    for name in ("downloads", "sstate"):
        subprocess.run(["cp", "-a", str(warm_caches / name), str(site.root)], check=True)
    return site


@pytest.fixture(scope="session")
def warm_caches(
    engine: Engine,
    hello_builder_image: str,
    wheel_bitbake: Path,
    make_hello_project: Callable[[Path], HelloProject],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """`downloads` and `sstate` after one build, and the workspace `first` of that build."""
    root = tmp_path_factory.mktemp("warm")
    runtime = DockerRuntime(engine=engine)
    site = Site(runtime, hello_builder_image, root, builder_user(os.environ))
    project = make_hello_project(tmp_path_factory.mktemp("project"))
    try:
        done = site.run(project, wheel_bitbake, "first")
    finally:
        for handle in site.started:
            runtime.remove(handle)
    assert done.code == 0, done.text
    return root


def test_wheel_repository_holds_bitbake_and_our_launchers(wheel_bitbake: Path) -> None:
    for name in ("bin/bitbake", "bin/bitbake-server", "bin/bitbake-worker"):
        assert os.access(wheel_bitbake / name, os.X_OK)
    assert not (wheel_bitbake / "lib" / "bitbake_setup").exists()
    version = (wheel_bitbake / "lib" / "bb" / "__init__.py").read_text()
    assert re.search(r'^__version__ = "2\.19\.0"', version, re.MULTILINE)


def test_image_is_an_archive_that_linux_can_boot(warm_caches: Path) -> None:
    files = read_cpio(warm_caches / "first" / IMAGE)
    for program in ("init", "usr/bin/hello"):
        mode, content = files[program]
        assert mode == 0o100755
        assert content.startswith(b"\x7fELF")
    assert b"Hello from %s!" in files["usr/bin/hello"][1]
    assert files["etc/os-release"] == (0o120777, b"../usr/lib/os-release")
    assert b'"Hello Linux 1.0 (hello-x86)"' in files["usr/lib/os-release"][1]
    assert {"dev", "proc", "sys"} <= files.keys()
    assert not [name for name in files if name.endswith((".a", ".h"))]


def test_deploy_directory_holds_image_link_and_manifest(warm_caches: Path) -> None:
    folder = (warm_caches / "first" / IMAGE).parent
    link = folder / "hello-image.cpio.gz"
    assert sorted(path.name for path in folder.iterdir()) == [
        "hello-image-hello-x86.cpio.gz",
        "hello-image-hello-x86.manifest",
        "hello-image.cpio.gz",
    ]
    assert os.readlink(link) == "hello-image-hello-x86.cpio.gz"
    assert (folder / "hello-image-hello-x86.manifest").read_text().splitlines() == [
        "base-files hello-x86 1.0-r0",
        "hello x86_64-linux-gnu 1.0-r0",
        "init hello-x86 1.0-r0",
    ]


def test_build_says_no_warning_and_no_error(warm_caches: Path) -> None:
    console = (warm_caches / "first" / "console").read_text()
    assert not re.search("WARNING|ERROR", console)
    assert "all succeeded" in console


def test_fresh_workspace_restores_every_cacheable_task(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path, warm_caches: Path
) -> None:
    conf = 'BB_NUMBER_THREADS = "3"\nPARALLEL_MAKE = "-j 7"\nDEPLOY_DIR = "${TOPDIR}/out"\n'
    done = warm_site.run(hello_project, wheel_bitbake, "second", conf=conf)
    assert done.code == 0
    assert done.sstate == (
        "Wanted 5 Local 5 Mirrors 0 Missed 0 Current 0 (100% match, 100% complete)"
    )
    assert {task.partition(":")[2] for task in done.ran} == {
        "do_populate_sysroot_setscene",
        "do_deploy_setscene",
    }
    image = warm_site.root / "second" / "out" / IMAGE.relative_to("tmp/deploy")
    assert image.read_bytes() == (warm_caches / "first" / IMAGE).read_bytes()


def test_second_run_in_a_workspace_parses_and_runs_nothing(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    warm_site.run(hello_project, wheel_bitbake, "same")
    done = warm_site.run(hello_project, wheel_bitbake, "same")
    assert done.code == 0
    assert "Loaded 6 entries from dependency cache" in done.text
    assert "Parsing of" not in done.text
    assert "24 didn't need to be rerun and all succeeded" in done.text


def test_changed_source_rebuilds_its_recipe_and_what_needs_it(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    hello_project.edit(
        "meta-hello/recipes/hello/files/hello.c", "puts(line)", 'printf("%s\\n", line)'
    )
    done = warm_site.run(hello_project, wheel_bitbake, "changed")
    assert done.code == 0, done.text
    assert done.sstate.startswith("Wanted 5 Local 3 Mirrors 0 Missed 2 ")
    rebuilt = {task.partition(":")[0] for task in done.ran if not task.endswith("_setscene")}
    assert rebuilt == {"hello", "hello-image"}


def test_other_machine_shares_what_does_not_depend_on_it(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    warm_site.run(hello_project, wheel_bitbake, "machines")
    done = warm_site.run(hello_project, wheel_bitbake, "machines", conf='MACHINE = "hello-pc"\n')
    assert done.code == 0, done.text
    assert done.sstate.startswith("Wanted 3 Local 0 Mirrors 0 Missed 3 Current 2 ")
    assert "greeter:do_compile" not in done.ran
    pc = warm_site.root / "machines/tmp/deploy/images/hello-pc/hello-image-hello-pc.cpio.gz"
    assert b"/dev/tty1" in read_cpio(pc)["init"][1]
    assert b"/dev/ttyS0" in read_cpio(warm_site.root / "machines" / IMAGE)["init"][1]


def refusal(site: Site, project: HelloProject, bitbake: Path, conf: str) -> Console:
    """What raw BitBake says; now and then its UI ends before it has heard anything."""
    runs = (site.run(project, bitbake, f"refused-{number}", conf=conf) for number in range(5))
    return next(done for done in runs if done.text)


def test_unknown_machine_is_refused_with_the_known_ones(
    site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    done = refusal(site, hello_project, wheel_bitbake, 'MACHINE = "hello-z80"\n')
    assert done.code == 1
    assert 'MACHINE = "hello-z80": no layer has conf/machine/hello-z80.conf' in done.text
    assert "hello-arm64, hello-pc, hello-x86" in done.text
    assert "Traceback" not in done.text


def test_machine_without_a_compiler_names_the_package(
    site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    done = refusal(site, hello_project, wheel_bitbake, 'MACHINE = "hello-arm64"\n')
    assert done.code == 1
    assert "aarch64-linux-gnu-gcc, which the builder image does not have" in done.text
    assert "gcc-aarch64-linux-gnu" in done.text


def test_failing_compiler_is_reported_with_recipe_task_and_log(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    hello_project.edit("meta-hello/recipes/hello/files/hello.c", "puts(line);", "puts(line)")
    done = warm_site.run(hello_project, wheel_bitbake, "broken")
    assert done.code == 1
    assert "hello.c:15:15: error: expected" in done.text
    assert "ERROR: hello-1.0-r0 do_compile: Execution of" in done.text
    assert "(/smidr/layers/meta-hello/recipes/hello/hello_1.0.bb:do_compile) failed" in done.text
    log = re.search(r"Logfile of failure stored in: /smidr/build/(\S+)", done.text)
    assert log
    assert "hello.c:15:15" in (warm_site.root / "broken" / log[1]).read_text()


def test_two_builds_at_once_share_downloads_and_sstate(
    site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    started = {name: site.start(hello_project, wheel_bitbake, name) for name in ("left", "right")}
    for name, handle in started.items():
        done = site.finish(handle, name)
        assert done.code == 0, done.text
        assert not re.search("WARNING|ERROR", done.text)
    images = [(site.root / name / IMAGE).read_bytes() for name in started]
    assert images[0] == images[1]
    objects = [path.name for path in site.folder("sstate").rglob("*") if path.is_file()]
    assert len([name for name in objects if name.endswith("_populate_sysroot.tgz")]) == 4
    assert all(name.endswith((".tgz", ".tgz.siginfo")) for name in objects)


def test_damaged_object_is_set_aside_and_built_anew(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    (damaged,) = warm_site.folder("sstate").rglob("sstate:init:*_populate_sysroot.tgz")
    damaged.write_bytes(damaged.read_bytes()[:100])
    done = warm_site.run(hello_project, wheel_bitbake, "damaged")
    assert done.code == 0, done.text
    assert "init:do_compile" in done.ran
    assert "is damaged" in done.text
    again = warm_site.run(hello_project, wheel_bitbake, "mended")
    assert again.sstate.startswith("Wanted 5 Local 5 ")
    assert "WARNING" not in again.text


def test_objects_come_from_a_read_only_mirror(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    warm_site.folder("mirror").rmdir()
    (warm_site.root / "sstate").rename(warm_site.root / "mirror")
    conf = 'SSTATE_MIRRORS = "file://.* file:///smidr/mirror/PATH"\n'
    done = warm_site.run(hello_project, wheel_bitbake, "mirrored", conf=conf, sstate="private")
    assert done.code == 0, done.text
    assert done.sstate.startswith("Wanted 5 Local 0 Mirrors 5 Missed 0 ")
    assert (warm_site.root / "mirrored" / IMAGE).is_file()


def test_used_objects_are_marked_as_used(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    packed = list(warm_site.folder("sstate").rglob("*.tgz"))
    objects = [*packed, *(path.with_name(path.name + ".siginfo") for path in packed)]
    for path in objects:
        os.utime(path, (1_600_000_000, 1_600_000_000))
    warm_site.run(hello_project, wheel_bitbake, "used")
    assert [path for path in objects if path.stat().st_mtime < 1_700_000_000] == []


def test_interrupts_end_running_tasks_and_the_build(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    stubborn = "do_compile() {\n    trap '' TERM\n    sleep 3000 & wait\n    sleep 3000\n"
    hello_project.edit("meta-hello/recipes/hello/hello_1.0.bb", "do_compile() {\n", stubborn)
    handle = warm_site.start(hello_project, wheel_bitbake, "cancel")
    warm_site.wait_for(handle, "cancel", "recipe hello-1.0-r0: task do_compile: Started")
    interrupt = warm_site.runtime.engine.api.kill
    interrupt(handle.container_id, "SIGINT")
    warm_site.wait_for(handle, "cancel", "Keyboard Interrupt, closing down...")
    interrupt(handle.container_id, "SIGINT")
    done = warm_site.finish(handle, "cancel")
    assert done.code == 1
    assert "Second Keyboard Interrupt, stopping..." in done.text
    assert "Execution was interrupted, returning a non-zero exit code." in done.text
    assert "left partial message" not in done.text


def test_flood_of_events_arrives_whole_and_in_order(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    recipe = """
deltask compile
python do_flood() {
    for number in range(3000):
        name = d.getVar("PN")
        bb.plain("flood %s %d </event></exitcode>" % (name, number) + "x" * 300)
}
addtask flood
"""
    for name in ("one", "two", "three"):
        hello_project.add(f"meta-hello/recipes/flood/flood-{name}_1.0.bb", recipe)
    targets = " ".join(f"flood-{name}:do_flood" for name in ("one", "two", "three"))
    done = warm_site.run(hello_project, wheel_bitbake, "flood", target=targets)
    assert done.code == 0, done.text[-2000:]
    for name in ("one", "two", "three"):
        numbers = re.findall(
            rf"flood flood-{name} (\d+) </event></exitcode>x{{300}}$", done.text, re.MULTILINE
        )
        assert numbers == [str(number) for number in range(3000)]


def test_read_only_sstate_directory_is_named(
    warm_site: Site, hello_project: HelloProject, wheel_bitbake: Path
) -> None:
    conf = 'SSTATE_DIR = "/smidr/src"\n'
    done = warm_site.run(hello_project, wheel_bitbake, "readonly-ws", conf=conf)
    assert done.code == 1
    assert 'make SSTATE_DIR = "/smidr/src" writable' in done.text


@pytest.mark.parametrize("branch", BRANCHES)
def test_released_bitbake_builds_and_restores(
    branch: str, site: Site, hello_project: HelloProject, tmp_path: Path, warm_caches: Path
) -> None:
    repository = os.environ.get("SMIDR_TEST_BITBAKE")
    if not repository:
        pytest.skip("set SMIDR_TEST_BITBAKE to a git repository of BitBake")
    bitbake = check_out(repository, branch, tmp_path / "bitbake")
    first = site.run(hello_project, bitbake, "first")
    assert first.code == 0, first.text
    assert not re.search("WARNING|ERROR", first.text)
    second = site.run(hello_project, bitbake, "second")
    assert second.sstate.startswith("Wanted 5 Local 5 Mirrors 0 Missed 0 "), second.text
    images = {(site.root / name / IMAGE).read_bytes() for name in ("first", "second")}
    assert images == {(warm_caches / "first" / IMAGE).read_bytes()}
    shutil.rmtree(bitbake)
