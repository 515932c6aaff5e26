"""Wrong input and a host that lacks something: `smidr build` says what, where and what to do."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from docker import APIClient

from tests.fakes.disk import small_disk
from tests.fakes.fault_recipes import add_fault_recipes
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Answer, Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


@dataclass(frozen=True)
class Site:
    """The hello project with recipes that fail, and a home that the module's tests share."""

    project: HelloProject
    smidr: Smidr

    def build_with(self, old: str, new: str, *arguments: str) -> Answer:
        """Build with one change in the config, which is called `changed.yaml`."""
        self.change(old, new)
        return self.smidr("build", "-c", "changed.yaml", *arguments)

    def change(self, old: str, new: str) -> None:
        text = self.project.config.read_text()
        assert old in text
        (self.project.work / "changed.yaml").write_text(text.replace(old, new, 1))

    def line_of(self, text: str) -> int:
        """The first line of `changed.yaml` that has the text."""
        lines = (self.project.work / "changed.yaml").read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Site:
    assert docker_client.ping()
    root = tmp_path_factory.mktemp("faults")
    project = make_hello_project(root)
    add_fault_recipes(project)
    return Site(project, Smidr(root / "home", project.work))


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("build:\n", "build:\n  imgae: x\n", "20:3", "Did you mean `image`?"),
        ("build:\n", "name: again\nbuild:\n", "19:1", "the first one is in line 3"),
        ("  image:", "  bb_number_threads: many\n  image:", "20:22", "must be a whole number"),
        ("machine: hello-x86", "machine: hello-x68", "7:12", "Did you mean hello-x86"),
        ("distro: hello", "distro: helo", "8:11", "Did you mean hello?"),
    ],
)
def test_a_wrong_config_is_refused_with_its_line_and_the_nearest_name(
    site: Site, old: str, new: str, place: str, said: str
) -> None:
    answer = site.build_with(old, new)
    assert answer.code == 2, answer.text
    assert f"changed.yaml:{place}: " in answer.text
    assert said in answer.text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("layers:\n", "layers:\n  - name: bad\n    path: none\n", "none does not exist"),
        ("meta-hello.git", "none.git", "Check the spelling of the URL"),
        ("branch: main", "branch: mian", "The nearest names there: main"),
    ],
)
def test_a_layer_that_is_not_there_is_named_with_its_line(
    site: Site, old: str, new: str, said: str
) -> None:
    answer = site.build_with(old, new)
    assert answer.code == 3, answer.text
    name = "bad" if "bad" in new else "meta-hello"
    assert f"changed.yaml:{site.line_of(f'name: {name}')}:5: " in answer.text
    assert said in answer.text


def test_a_missing_layer_dependency_is_named_before_bitbake_starts(site: Site) -> None:
    conf = site.project.work / "needy" / "conf"
    conf.mkdir(parents=True)
    (conf / "layer.conf").write_text(
        'BBFILE_COLLECTIONS += "needy"\nBBFILE_PATTERN_needy = "^${LAYERDIR}/"\n'
        'LAYERDEPENDS_needy = "networking-layer"\nLAYERSERIES_COMPAT_needy = "hello"\n'
    )
    answer = site.build_with("layers:\n", "layers:\n  - name: needy\n    path: needy\n")
    assert answer.code == 3, answer.text
    assert f"changed.yaml:{site.line_of('name: needy')}:5: needy needs the layer" in answer.text
    assert "meta-networking of https://git.openembedded.org/meta-openembedded" in answer.text
    assert "building" not in answer.err


def test_layers_of_another_series_are_refused(site: Site) -> None:
    answer = site.build_with("name: hello\n", "name: hello\nyocto_series: scarthgap\n")
    assert answer.code == 3, answer.text
    assert "yocto_series is scarthgap, but meta-hello is for hello" in answer.text
    assert f"changed.yaml:{site.line_of('name: meta-hello')}:5: " in answer.text


def test_locked_without_a_lock_names_the_layers_and_the_command(site: Site) -> None:
    answer = site.smidr("build", "--locked")
    assert answer.code == 3, answer.text
    assert "layer meta-hello: branch:main is not pinned" in answer.text
    assert "Run `smidr lock`" in answer.text


def test_an_engine_that_does_not_run_is_said_and_how_to_start_it(site: Site) -> None:
    answer = site.smidr("build", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert answer.code == 4, answer.text
    assert "no container engine at /nonexistent/docker.sock" in answer.text
    assert "systemctl start docker" in answer.text


def test_an_image_that_cannot_be_pulled_points_at_base_image(site: Site) -> None:
    image = "base_image: localhost:1/nothing:1"
    answer = site.build_with("container:\n", f"container:\n  {image}\n")
    assert answer.code == 4, answer.text
    assert f"changed.yaml:{site.line_of(image)}:15: can't pull the image" in answer.text
    assert site.smidr.newest()["failure_kind"] == "image"


def test_an_unknown_package_points_at_its_line(site: Site) -> None:
    answer = site.build_with("    - cpio\n", "    - cpio\n    - no-such-package\n")
    assert answer.code == 4, answer.text
    assert f"changed.yaml:{site.line_of('no-such-package')}:7: " in answer.text
    assert "apt does not know these packages" in answer.text


def test_a_target_that_nobody_provides_points_at_its_line(site: Site) -> None:
    answer = site.build_with("image: hello-image", "image: hello-imgae")
    assert answer.code == 1, answer.text
    cause = site.smidr.newest()["findings"][0]
    assert cause["category"] == "missing-provider"
    assert (cause["file"], cause["line"]) == ("changed.yaml", site.line_of("hello-imgae"))
    assert "Nothing PROVIDES 'hello-imgae'" in answer.out


def test_globs_that_match_nothing_fail_the_build_they_were_written_for(site: Site) -> None:
    answer = site.build_with("images/*/hello-image*", "nothing/*")
    assert answer.code == 1, answer.text
    assert f"changed.yaml:{site.line_of('nothing/*')}:3: nothing matches" in answer.text
    record = site.smidr.newest()
    assert record["failure_kind"] == "artifacts"
    assert Path(record["workspace"]).is_dir()
    other = site.build_with("images/*/hello-image*", "nothing/*", "-t", "motd")
    assert other.code == 0, other.text


def test_a_link_that_leads_out_of_the_deploy_directory_is_left_out_and_said(site: Site) -> None:
    answer = site.build_with("images/*/hello-image*", "images/**", "-t", "leaky")
    assert answer.code == 0, answer.text
    record = site.smidr.newest()
    assert [item["path"] for item in record["artifacts"]] == ["images/hello-x86/fine.txt"]
    for name in ("absolute.txt", "relative.txt"):
        assert f"artifact left out: images/hello-x86/{name}: leads out" in answer.err
    shown = site.smidr("artifacts", "show", record["build_id"]).out
    assert "left out: images/hello-x86/absolute.txt" in shown


@contextlib.contextmanager
def mounted_read_only(path: Path) -> Iterator[None]:
    path.mkdir(parents=True)
    place = str(path)
    mounts = [["mount", "--bind", place, place], ["mount", "-o", "remount,ro,bind", place]]
    if os.geteuid() != 0 or any(
        subprocess.run(one, check=False, capture_output=True).returncode for one in mounts
    ):
        pytest.skip("needs root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("name", ["downloads", "sstate"])
def test_a_read_only_cache_is_named_with_its_mount(site: Site, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "caches" / name
    with mounted_read_only(cache):
        answer = site.build_with("directories:\n", f"directories:\n  {name}: {cache}\n")
    assert answer.code == 4, answer.text
    assert f"{cache}: " in answer.text
    assert "Read-only file system" in answer.text
    assert f"remount,rw {cache}" in answer.text
    assert site.smidr.newest()["failure_kind"] == "cache"


def test_a_home_that_cannot_be_written_is_named(site: Site, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with mounted_read_only(home):
        answers = [
            Smidr(place, site.project.work)("build", "--json") for place in (home, home / "inner")
        ]
    for answer in answers:
        assert answer.code == 4, answer.text
        assert answer.json["error"]["kind"] == "host"
        assert str(home) in answer.json["error"]["message"] + answer.json["error"]["where"]
        assert answer.json["error"]["hint"]


def test_too_little_free_disk_keeps_a_build_from_starting(site: Site, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "20m") as disk:
        smidr = replace(site.smidr, home=disk)
        answer = smidr("build")
        record = smidr.newest()
    assert answer.code == 4, answer.text
    assert f"{disk}: only 0.0 GiB are free" in answer.text
    assert f"limits.min_free_disk in {disk}/agent.yaml" in answer.text
    assert (record["state"], record["failure_kind"]) == ("failed", "disk")


def test_a_disk_that_fills_up_is_the_recorded_cause_and_is_freed(
    site: Site, tmp_path: Path
) -> None:
    site.change("container:\n", "advanced:\n  disk_monitoring: false\ncontainer:\n")
    with small_disk(tmp_path / "disk", "150m") as disk:
        (disk / "agent.yaml").write_text("limits:\n  min_free_disk: 50M\n")
        (disk / "agent.yaml").chmod(0o600)
        smidr = replace(site.smidr, home=disk)
        answer = smidr("build", "-c", "changed.yaml", "-t", "fat")
        record = smidr.newest()
        again = smidr("build", "-c", "changed.yaml", "-t", "motd")
    assert answer.code == 4, answer.text
    assert (record["state"], record["failure_kind"]) == ("failed", "disk")
    assert record["findings"][0]["category"] == "disk-space"
    assert record["workspace"] == ""
    assert "No space left on device" in answer.out
    assert again.code == 0, again.text
