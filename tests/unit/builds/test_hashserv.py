"""The host's hash servers: who starts them, when, and what strangers get. The engine is a fake."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.builds.hashserv import ADDRESS, HashServers, can_serve
from smidr_ci.clock import SystemClock
from smidr_ci.containers.runtime import ContainerSpec, User
from smidr_ci.layers.model import FoundLayer, LayerSet, LayerTree
from smidr_ci.trust import Trust
from tests.fakes.runtime import FakeContainer, FakeRuntime

IMAGE = "sha256:1"


def listen(container: FakeContainer) -> int:
    """What a server does, as far as its clients can see."""
    folder = os.open(container.host_path("/smidr/hashserv"), os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/socket")
        server.listen()
        container.stopped.wait(30)
    os.close(folder)
    return 0


@dataclass
class Site:
    """A home with an engine, and layers with OE-Core and a BitBake that has a server."""

    root: Path
    runtime: FakeRuntime = field(default_factory=lambda: FakeRuntime(listen))
    said: list[str] = field(default_factory=list)

    def servers(self, upstream: str = "") -> HashServers:
        home, user = self.root / "hashserv", User(os.getuid() or 1000, os.getgid() or 1000)
        locks = self.root / "locks"
        return HashServers(home, locks, self.runtime, user, SystemClock(), "builds", upstream)

    def layers(self, version: tuple[int, int] = (2, 8)) -> LayerSet:
        tree = self.root / "bitbake"
        for name in ("bin/bitbake-hashserv", "lib/hashserv/server.py"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).touch()
        core = FoundLayer(path="meta", collection="core")
        trees = (
            LayerTree("bitbake", "", "", "1", tree, bitbake="."),
            LayerTree("oe-core", "", "", "2", self.root, (core,)),
        )
        return LayerSet(trees, (), PurePosixPath("/smidr/layers/bitbake"), version)

    def ensure(self, upstream: str = "") -> Path | None:
        return self.servers(upstream).ensure(self.layers(), IMAGE, self.said.append)

    @property
    def started(self) -> dict[str, ContainerSpec]:
        return {spec.build_id: spec for spec in self.runtime.started}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.runtime.engine.is_reachable = True
    for handle in site.runtime.list_builds():
        site.runtime.remove(handle)


def test_two_servers_of_one_database_are_started_once(site: Site) -> None:
    folder = site.ensure()
    assert folder == site.root / "hashserv" / "2.8" / "trusted"
    assert site.ensure() == folder
    assert sorted(site.started) == ["2.8-trusted", "2.8-untrusted"]
    assert len(site.runtime.started) == 2
    databases = {
        mount.source
        for spec in site.runtime.started
        for mount in spec.mounts
        if str(mount.target) == "/smidr/database"
    }
    assert databases == {site.root / "hashserv" / "2.8" / "database"}
    assert all(ADDRESS in spec.command and spec.restarts for spec in site.runtime.started)
    assert site.said == []


def test_a_stranger_finds_the_one_that_takes_no_reports_and_starts_none(site: Site) -> None:
    assert site.servers().find(site.layers(), Trust.UNTRUSTED) is None
    assert site.runtime.started == []
    site.ensure()
    found = site.servers().find(site.layers(), Trust.UNTRUSTED)
    assert found == site.root / "hashserv" / "2.8" / "untrusted"
    stranger, trusted = site.started["2.8-untrusted"], site.started["2.8-trusted"]
    assert "--read-only" in stranger.command
    assert "--read-only" not in trusted.command
    sockets = [
        {mount.source for mount in spec.mounts if str(mount.target) == "/smidr/hashserv"}
        for spec in (stranger, trusted)
    ]
    assert sockets[0].isdisjoint(sockets[1])


def test_one_that_died_is_started_again(site: Site) -> None:
    site.ensure()
    (first,) = [item for item in site.runtime.list_builds() if item.build_id == "2.8-trusted"]
    site.runtime.kill(first)
    site.runtime.wait(first, 10)
    assert site.ensure() is not None
    names = [spec.build_id for spec in site.runtime.started]
    assert (names.count("2.8-trusted"), names.count("2.8-untrusted")) == (2, 1)
    assert site.runtime.removed == ["2.8-trusted"]


def test_only_an_upstream_needs_a_network_and_another_one_needs_new_servers(site: Site) -> None:
    site.ensure()
    assert {spec.network for spec in site.runtime.started} == {"none"}
    site.runtime.started.clear()
    site.ensure("hashserv.example.com:8686")
    trusted, stranger = site.started["2.8-trusted"], site.started["2.8-untrusted"]
    assert trusted.command[-2:] == ("--upstream", "hashserv.example.com:8686")
    assert (trusted.network, stranger.network) == ("builds", "none")
    assert "--upstream" not in stranger.command


def test_each_release_has_its_own(site: Site) -> None:
    site.ensure()
    site.servers().ensure(site.layers((2, 18)), IMAGE, site.said.append)
    assert len(site.started) == 4
    site.servers().stop("2.8")
    assert site.servers().find(site.layers(), Trust.TRUSTED) is None
    assert site.servers().find(site.layers((2, 18)), Trust.TRUSTED) is not None


def test_servers_that_nobody_asks_end_and_keep_their_database(site: Site) -> None:
    site.ensure()
    home = site.root / "hashserv" / "2.8"
    os.utime(home / "server.json", (0, 0))
    site.servers().ensure(site.layers((2, 18)), IMAGE, site.said.append)
    assert sorted(site.runtime.removed) == ["2.8-trusted", "2.8-untrusted"]
    assert (home / "database").is_dir()
    site.servers().retire(timedelta())
    assert site.runtime.list_builds() == []


def test_a_build_does_without_when_none_can_be_started(site: Site) -> None:
    site.runtime.engine.refusal = "no such image"
    assert site.ensure() is None
    (line,) = site.said
    assert "no hash server for this build" in line
    assert "no such image" in line


@pytest.mark.parametrize(("version", "can"), [((2, 0), False), ((2, 6), False), ((2, 18), True)])
def test_releases_whose_server_can_not_serve_strangers_use_none(
    site: Site, version: tuple[int, int], can: bool
) -> None:
    assert can_serve(site.layers(version)) is can


def test_without_oe_core_or_a_server_program_there_is_none(site: Site) -> None:
    layers = site.layers()
    assert can_serve(layers)
    assert not can_serve(replace(layers, trees=layers.trees[:1]))
    (site.root / "bitbake/bin/bitbake-hashserv").unlink()
    assert not can_serve(layers)
