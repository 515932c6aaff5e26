"""What a build gets of what hosts share: a socket, a port, lines in its conf; no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.sharing import OwnReaders, Readers, share_in_conf, without_proxy
from smidr_ci.clock import SystemClock
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.shared_caches import SharedCaches
from smidr_ci.containers.runtime import User
from smidr_ci.trust import Trust
from tests.fakes.bench import Bench, Seen

URL = "https://cache.example.com/dav"
USER = User(1000, 1000)


def built(tmp_path: Path, engine: dict[str, str] | None = None, **cache: Any) -> Seen:
    limits = {"min_free_disk": 1, "min_free_disk_percent": 0}
    settings = {"cache": cache, "limits": limits, "engine": engine or {}}
    agent = AgentConfig.model_validate(settings)
    config = ProjectConfig.model_validate({"name": "project", "build": {"image": "image"}})
    return Bench(tmp_path / "bench").build(config, agent)


def test_a_build_gets_a_socket_and_a_port_whatever_the_store(tmp_path: Path) -> None:
    secret = tmp_path / "login"
    secret.write_text("user:secret-7731")
    secret.chmod(0o600)
    seen = built(tmp_path, share={"url": URL, "credentials_file": str(secret)})
    assert seen.spec is not None
    (mount,) = (item for item in seen.spec.mounts if str(item.target) == "/smidr/share")
    assert not mount.writable
    plan = json.loads(seen.files["plan.json"])
    assert plan["relay"] == ["/smidr/share/socket", 8773]
    assert "http://127.0.0.1:8773/sstate/PATH" in seen.files["local.conf"]
    everything = "".join(seen.files.values()) + str(seen.spec)
    assert "secret-7731" not in everything
    assert URL not in everything
    assert not mount.source.exists()  # it ends with the build's process


def test_without_a_store_there_is_nothing_of_it(tmp_path: Path) -> None:
    seen = built(tmp_path)
    assert seen.spec is not None
    assert not [item for item in seen.spec.mounts if str(item.target) == "/smidr/share"]
    assert json.loads(seen.files["plan.json"])["relay"] is None
    assert "8773" not in seen.files["local.conf"]


def test_in_the_hosts_network_nobody_can_answer_for_the_store(tmp_path: Path) -> None:
    seen = built(tmp_path, engine={"network": "host"}, share={"url": URL})
    assert seen.spec is not None
    assert seen.spec.network == "host"
    assert not [item for item in seen.spec.mounts if str(item.target) == "/smidr/share"]
    assert json.loads(seen.files["plan.json"])["relay"] is None
    assert "8773" not in seen.files["local.conf"]


def test_strangers_read_only_when_they_may_and_pack_nothing() -> None:
    settings = SharedCaches(url=URL, repositories=True)
    trusted = share_in_conf(settings, Trust.TRUSTED, may_read=True)
    assert trusted is not None
    assert trusted.packs_repositories
    stranger = share_in_conf(settings, Trust.UNTRUSTED, may_read=True)
    assert stranger is not None
    assert not stranger.packs_repositories
    assert share_in_conf(settings, Trust.UNTRUSTED, may_read=False) is None


@pytest.mark.parametrize(
    ("given", "direct"),
    [
        ({"no_proxy": "example.com"}, None),
        ({"http_proxy": "http://p:1"}, "127.0.0.1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a, b"}, "a,b,127.0.0.1"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "*"),
        ({"all_proxy": "http://p:1", "no_proxy": "127.0.0.1,x"}, "127.0.0.1,x"),
    ],
)
def test_loopback_is_never_reached_by_a_proxy(given: dict[str, str], direct: str | None) -> None:
    found = without_proxy(given)
    if direct is None:
        assert found == given
    else:
        assert found == {**given, "no_proxy": direct, "NO_PROXY": direct}


def test_what_killed_commands_left_is_removed_and_what_lives_stays(tmp_path: Path) -> None:
    dead, alive = tmp_path / "of-process-999999999", tmp_path / "of-process-1"
    agents = tmp_path / "agent"
    for folder in (dead, alive, agents):
        folder.mkdir()
    settings = SharedCaches(url=f"file://{tmp_path}")
    readers = OwnReaders(settings, tmp_path, USER, SystemClock())
    folder = readers.folder(Trust.TRUSTED)
    assert (folder / "socket").is_socket()
    assert not dead.exists()
    readers.stop()
    assert not folder.exists()
    assert alive.exists()
    assert agents.exists()


def test_each_trust_has_a_reader_of_its_own(tmp_path: Path) -> None:
    readers = Readers(SharedCaches(url=f"file://{tmp_path}"), tmp_path, USER, SystemClock())
    folders = [readers.folder(trust) for trust in Trust]
    assert len(set(folders)) == 2
    assert readers.folder(Trust.TRUSTED) == folders[0]
    assert readers.problem == ""
    readers.stop()
