"""The agent's own process with a registration: webhooks in over HTTP, and what it costs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from smidr_ci.forges.registration import Registrations
from smidr_ci.home import Home
from tests.fakes.github.hooks import HOOK_SECRET, hook
from tests.fakes.github.room import Room
from tests.fakes.github.server import GitHubServer
from tests.fakes.smidr_process import Smidr, wait_until
from tests.unit.forges.github.test_forge import registered
from tests.unit.forges.github.test_webhooks import check_run, post


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "hook-secret"
    path.write_text(HOOK_SECRET)
    path.chmod(0o600)
    return path


@pytest.fixture
def agent(
    room: Room, github: GitHubServer, secret: Path, tmp_path: Path
) -> Iterator[tuple[str, int]]:
    """The address of a running agent with a registration, and its process."""
    github.state.now = datetime.now(UTC)  # its clock is the real one
    home = Home(tmp_path / "home")
    home.root.mkdir()
    Registrations(home).save(registered(room, webhook_secret_file=str(secret)))
    log = tmp_path / "agent.log"
    smidr = Smidr(home.root, tmp_path)
    with log.open("w") as output:
        process = smidr.start("daemon", "--http-address", "127.0.0.1:0", output=output)
        try:
            wait_until(lambda: _address(log) or process.poll() is not None, "the agent")
            yield _address(log), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    text = log.read_text()
    assert HOOK_SECRET not in text
    assert "Traceback" not in text
    assert not any(token in text for token in github.state.tokens)


def _address(log: Path) -> str:
    found = re.search(r"listening on (http://127\.0\.0\.1:\d+)", log.read_text())
    return found[1] if found else ""


def test_a_running_agent_takes_webhooks_and_asks_github_what_is_behind_them(
    agent: tuple[str, int], github: GitHubServer
) -> None:
    address, pid = agent
    github.wait_until(lambda: any(item.path == "/app/hook/deliveries" for item in github.requests))
    run = github.state.add_check("acme/bsp", {"name": "x", "head_sha": "0" * 40})
    payload = check_run()
    payload["check_run"]["id"] = run["id"]
    headers, body = hook("check_run", payload)
    assert post(f"{address}/webhooks/github", headers, body) == (202, "queued\n")
    assert post(f"{address}/webhooks/github", headers, body) == (200, "known\n")
    assert post(f"{address}/webhooks/github", headers, body[:-1])[0] == 401
    wanted = f"/repos/acme/bsp/check-runs/{run['id']}"
    github.wait_until(lambda: any(item.path == wanted for item in github.requests))
    assert psutil.Process(pid).memory_info().rss < 150 << 20
