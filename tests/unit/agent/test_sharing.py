"""The agent uploads by itself when builds have ended, and goes by new settings at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smidr_ci.agent.hash_relays import HashRelays
from smidr_ci.agent.sharing import Sharing
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.config.agent import AgentConfig
from smidr_ci.containers.runtime import User
from smidr_ci.sharing.relaying import bound_tcp, bound_unix, connected_tcp
from smidr_ci.trust import Trust
from tests.fakes.cache_home import CacheHome
from tests.fakes.smidr_process import wait_until
from tests.fakes.sstate_objects import make_object, settle

RECORD = BuildRecord(
    "c-12345678", "c", "project", (), BuildState.FAILED, datetime(2026, 1, 1, tzinfo=UTC)
)


class Site:
    """A host under settings that may change."""

    def __init__(self, root: Path) -> None:
        self.caches = CacheHome(root / "home")
        self.store = root / "store"
        self.host = self.caches.host
        self.sharing = Sharing(lambda: self.host, after_build_s=0.01, first_pause_s=0.01)

    def configure(self, **cache: object) -> None:
        agent = AgentConfig.model_validate({"cache": cache})
        self.host = replace(self.caches.host, agent=agent, is_agent=True)
        vars(self.host)["user"] = User(1000, 1000)

    def shared(self) -> set[str]:
        return {path.name for path in (self.store / "sstate").rglob("sstate:*")}

    def make(self, number: int) -> str:
        path = make_object(self.caches.sstate, number, siginfo=False)
        settle(self.caches.sstate)
        return path.name


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.sharing.stop()


def test_what_an_earlier_agent_left_goes_first_and_then_what_builds_made(site: Site) -> None:
    site.store.mkdir()
    first = site.make(1)
    site.configure(share={"url": site.store.as_uri()})
    site.sharing.look()
    wait_until(lambda: site.shared() == {first}, "the first object")
    second = site.make(2)
    site.sharing.build_ended(RECORD)
    wait_until(lambda: site.shared() == {first, second}, "the second object")
    wait_until(lambda: site.sharing.status() == (), "nothing that waits")
    assert site.sharing.problems == ()


def test_a_store_that_fails_is_tried_again_and_shows(site: Site) -> None:
    name = site.make(1)
    site.configure(share={"url": site.store.as_uri()})
    site.sharing.look()
    wait_until(lambda: site.sharing.problems, "the problem")
    assert "Uploads to the shared cache wait" in site.sharing.problems[0]
    wait_until(lambda: site.sharing.status() and site.sharing.status()[0].waiting == 1, "a count")
    assert "no such directory" in site.sharing.status()[0].last_error
    site.store.mkdir()
    wait_until(lambda: site.shared() == {name}, "the object")
    wait_until(lambda: not site.sharing.problems, "no problem")


def test_settings_that_change_count_at_once(site: Site, tmp_path: Path) -> None:
    name = site.make(1)
    site.configure(share={"url": site.store.as_uri()})
    site.sharing.look()
    wait_until(lambda: site.sharing.problems, "the problem")
    site.store = tmp_path / "other"
    site.store.mkdir()
    site.configure(share={"url": site.store.as_uri()})
    site.sharing.look()
    wait_until(lambda: site.shared() == {name}, "the object")
    site.configure()
    site.sharing.look()
    site.make(2)
    site.sharing.build_ended(RECORD)
    assert not (site.host.home.share / "agent" / "trusted" / "socket").exists()
    assert site.shared() == {name}


def test_a_host_that_only_reads_uploads_nothing(site: Site) -> None:
    site.store.mkdir()
    site.make(1)
    site.configure(share={"url": site.store.as_uri(), "upload": False})
    site.sharing.look()
    site.sharing.build_ended(RECORD)
    sockets = [site.host.home.share / "agent" / trust / "socket" for trust in Trust]
    assert all(path.exists() for path in sockets)
    site.sharing.stop()
    assert site.shared() == set()
    assert not any(path.exists() for path in sockets)


def open_door(site: Site, door: dict[str, object]) -> HashRelays:
    site.configure(hash_server_doors=[door])
    relays = HashRelays(lambda: site.host)
    relays.look()
    return relays


def serve_hashes(host: Host, release: str, trust: Trust) -> socket.socket:
    folder = host.home.hash_servers / release / trust
    folder.mkdir(parents=True)
    (folder.parent / "server.json").touch()
    return bound_unix(folder, "socket", None)


def free_port() -> int:
    with bound_tcp("127.0.0.1", 0) as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("writable", [False, True])
def test_a_door_leads_to_the_server_that_may_do_as_much(site: Site, writable: bool) -> None:
    listeners = {trust: serve_hashes(site.host, "2.8", trust) for trust in Trust}
    port = free_port()
    relays = open_door(site, {"address": f"127.0.0.1:{port}", "writable": writable})
    behind = listeners[Trust.TRUSTED if writable else Trust.UNTRUSTED]
    with connected_tcp("127.0.0.1", port) as client:
        client.sendall(b"OEHASHEQUIV 1.1\n\n")
        server, _ = behind.accept()
        with server:
            assert server.recv(100) == b"OEHASHEQUIV 1.1\n\n"
    assert relays.problems == ()
    relays.stop()
    for listener in listeners.values():
        listener.close()


def test_a_writable_door_on_a_network_is_named_a_problem(site: Site) -> None:
    relays = open_door(site, {"address": f"0.0.0.0:{free_port()}", "writable": True})
    assert "neither login nor encryption" in relays.problems[0]
    relays.stop()


def test_builds_reach_another_hosts_server_by_the_agents_socket(site: Site) -> None:
    listeners = {trust: serve_hashes(site.host, "2.8", trust) for trust in Trust}
    port = free_port()
    door = open_door(site, {"address": f"127.0.0.1:{port}", "writable": True})
    theirs = site.host
    site.configure(hash_server_address=f"127.0.0.1:{port}")
    site.host = replace(site.host, home=replace(theirs.home, root=theirs.home.root / "other"))
    vars(site.host)["user"] = User(1000, 1000)
    elsewhere = site.host.hash_server_elsewhere
    assert elsewhere is not None
    assert elsewhere.find(Trust.TRUSTED) is None
    relays = HashRelays(lambda: site.host)
    relays.look()
    assert elsewhere.find(Trust.TRUSTED) == elsewhere.root / "trusted"
    assert elsewhere.find(Trust.UNTRUSTED) is None  # there is no address that takes no reports
    relays.stop()
    door.stop()
    for listener in listeners.values():
        listener.close()
