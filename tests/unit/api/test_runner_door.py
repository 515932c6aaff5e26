"""The socket for jobs of runners: who comes in there can order builds, and little else."""

from __future__ import annotations

import http.client
import json
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.api.listen import bind_door
from smidr_ci.api.security import Security, Transport
from smidr_ci.api.sockets import connect_unix
from smidr_ci.api.tokens import TokenStore
from smidr_ci.builds.database import Database
from smidr_ci.config.api import Api
from smidr_ci.errors import UnauthenticatedError
from smidr_ci.forges.github.runners.door import Door
from smidr_ci.home import Home
from smidr_ci.trust import Trust
from tests.fakes.http_agent import HttpAgent

ME = os.geteuid()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    within = tmp_path / "home" / "runners"
    return Door(within / ".agent" / "agent.sock", ME, os.getegid(), within)


@pytest.fixture
def agent(tmp_path: Path, door: Door) -> Iterator[HttpAgent]:
    with HttpAgent(Home(tmp_path / "home"), door=door) as made:
        yield made


def ask(socket: Path, method: str, place: str, body: object = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connect_unix(socket, 30)
    with closing(connection):
        raw = json.dumps(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if raw else {}
        connection.request(method, f"/api/v1{place}", raw, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None


def order(directory: Path) -> dict[str, object]:
    return {
        "customer": "acme",
        "config_text": "name: demo\n",
        "config_name": str(directory / "smidr.yaml"),
        "directory": str(directory),
    }


def workspace(door: Door) -> Path:
    made = door.within / "lab" / "smidr-a" / "root" / "_work" / "bsp"
    made.mkdir(parents=True)
    return made


def test_a_job_can_order_a_build_which_is_not_trusted(agent: HttpAgent, door: Door) -> None:
    directory = workspace(door)
    status, _ = ask(door.path, "POST", "/builds", order(directory))
    assert status == 201
    [made] = agent.agent.orders
    assert (made.trust, made.directory) == (Trust.UNTRUSTED, directory)
    # The same over the agent's own socket is an order of its user.
    assert ask(agent.home.socket, "POST", "/builds", order(directory))[0] == 201
    assert agent.agent.orders[-1].trust is Trust.TRUSTED


@pytest.mark.parametrize("place", ["/etc", ".", "lab/smidr-a/root/../../../../..", "lab/link"])
def test_a_job_can_not_name_other_directories_of_the_host(
    agent: HttpAgent, door: Door, tmp_path: Path, place: str
) -> None:
    workspace(door)
    (door.within / "lab" / "link").symlink_to(tmp_path)
    directory = tmp_path if place == "." else door.within / place
    status, said = ask(door.path, "POST", "/builds", order(directory))
    assert status == 403, said
    assert agent.agent.orders == []


@pytest.mark.parametrize(
    ("method", "place"), [("POST", "/agent/stop"), ("POST", "/agent/drain"), ("POST", "/purge")]
)
def test_a_job_can_not_tell_the_agent_what_to_do(
    agent: HttpAgent, door: Door, method: str, place: str
) -> None:
    assert agent.home.socket.exists()
    status, _ = ask(door.path, method, place, {})
    assert status == 403


def test_only_the_user_of_jobs_comes_in(tmp_path: Path, door: Door) -> None:
    with closing(Database(tmp_path / "smidr.db")) as database:
        security = Security(TokenStore(database), Api(), 1234, door=door)
        caller = security.authenticate(None, transport=Transport.unix(ME, is_door=True))
        assert caller.within == door.within
        for uid in (1234, ME + 1):
            with pytest.raises(UnauthenticatedError):
                security.authenticate(None, transport=Transport.unix(uid, is_door=True))
        without = Security(TokenStore(database), Api(), 1234)
        with pytest.raises(UnauthenticatedError):
            without.authenticate(None, transport=Transport.unix(1234, is_door=True))


def test_the_socket_is_the_users_and_its_directory_can_be_entered(door: Door) -> None:
    door.path.parents[2].mkdir()
    old = os.umask(0o077)
    try:
        with bind_door(door):
            info = door.path.stat()
            assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (ME, 0o600)
            for folder in (door.path.parent, door.within):
                assert stat.S_IMODE(folder.stat().st_mode) & 0o033 == 0o011
    finally:
        os.umask(old)
