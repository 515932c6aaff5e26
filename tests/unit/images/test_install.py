"""The script that installs packages, and the tag of what it makes."""

from __future__ import annotations

import subprocess

import pytest

from smidr_ci.engine import Engine
from smidr_ci.errors import ImageError
from smidr_ci.images.install import builder_tag, install, install_script
from smidr_ci.images.model import BaseImage, ImageSettings, Making, proxy_environment
from smidr_ci.images.packages import YOCTO_HOST_PACKAGES
from tests.fakes.clock import FakeClock
from tests.fakes.docker_api import Answer, FakeDockerApi

BASE = BaseImage("sha256:1", "debian:12", is_chosen=True)


def test_tag_depends_on_base_and_set_of_packages_only() -> None:
    tag = builder_tag("sha256:1", ["git", "gcc"])
    assert tag == builder_tag("sha256:1", ["gcc", "git", "gcc"])
    assert tag != builder_tag("sha256:2", ["git", "gcc"])
    assert tag != builder_tag("sha256:1", ["git", "gcc", "make"])
    assert len(tag) == 24


def test_script_is_a_script_and_quotes_the_proxies() -> None:
    nasty = "http://u:p'\"$(touch /tmp/owned)@proxy"
    settings = ImageSettings(environment={"http_proxy": nasty, "bad name": "x"})
    script = install_script(["git"], settings)
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0
    line = next(line for line in script.splitlines() if "http_proxy" in line)
    shown = subprocess.run(
        ["sh", "-c", f'{line}\nprintf %s "$http_proxy"'], capture_output=True, check=True
    )
    assert shown.stdout.decode() == nasty
    assert "bad name" not in script


def test_script_installs_without_recommends_and_with_a_locale() -> None:
    script = install_script(["git"], ImageSettings())
    assert "--no-install-recommends install ca-certificates git locales" in script
    assert "localedef -i en_US -f UTF-8 en_US.UTF-8" in script


def test_starter_list_is_sorted_and_installable_by_name() -> None:
    assert list(YOCTO_HOST_PACKAGES) == sorted(set(YOCTO_HOST_PACKAGES))
    assert {"chrpath", "diffstat", "gawk", "lz4", "zstd", "python3-websockets"} <= set(
        YOCTO_HOST_PACKAGES
    )


@pytest.mark.parametrize("name", ["git-", "-y", "a b", "git;reboot", "../x", "git\n", "Git", ""])
def test_what_apt_would_take_for_something_else_is_refused(
    api: FakeDockerApi, engine: Engine, name: str
) -> None:
    making = Making(engine, ImageSettings(), FakeClock(), print)
    with pytest.raises(ImageError, match="no name of a Debian package"):
        install(making, BASE, [name], "smidr-builder")
    assert api.asked("POST", "/containers/create") == []


def test_failed_install_commits_nothing_and_removes_its_container(
    api: FakeDockerApi, engine: Engine
) -> None:
    output = b"E: Unable to locate package gti\nE: Package 'foo' has no installation candidate\n"
    frame = b"\x02\0\0\0" + len(output).to_bytes(4, "big") + output
    api.on("POST", "/containers/create", Answer(201, {"Id": "c1"}))
    api.on("PUT", "/containers/c1/archive", Answer(200))
    api.on("POST", "/containers/c1/start", Answer(204))
    api.on("GET", "/containers/c1/json", Answer(json={"Config": {"Tty": False}}))
    api.on("GET", "/containers/c1/logs", Answer(stream=[frame]))
    api.on("POST", "/containers/c1/wait", Answer(json={"StatusCode": 100}))
    api.on("DELETE", "/containers/c1", Answer(204))
    making = Making(engine, ImageSettings(), FakeClock(), print)
    with pytest.raises(ImageError, match="does not know these packages on debian:12: foo, gti"):
        install(making, BASE, ["gti", "foo"], "smidr-builder")
    assert len(api.asked("DELETE", "/containers/c1")) == 1
    assert api.asked("POST", "/commit") == []


def test_proxies_are_taken_in_both_cases_and_nothing_else() -> None:
    environ = {"http_proxy": "a", "HTTPS_PROXY": "b", "no_proxy": "", "AWS_SECRET": "c"}
    assert proxy_environment(environ) == {"http_proxy": "a", "HTTPS_PROXY": "b"}
