"""systemd hears when the agent is ready, reads settings, stops, and is well."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from smidr_ci.agent.systemd import Notifier, Watchdog
from tests.fakes.clock import FakeClock

TIMEOUT_S = 30.0


class Supervisor:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(TIMEOUT_S)

    def heard(self) -> str:
        return self.socket.recv(4096).decode()

    def heard_nothing_more(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False

    def notifier(self, **environ: str) -> Notifier:
        return Notifier.from_environment({"NOTIFY_SOCKET": self.address, **environ})


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, socket_dir: Path) -> Iterator[Supervisor]:
    is_path = request.param == "path"
    address = str(socket_dir / "notify") if is_path else f"@smidr-test-{secrets.token_hex(8)}"
    made = Supervisor(address)
    yield made
    made.socket.close()


def test_each_message_is_one_datagram_in_systemds_words(supervisor: Supervisor) -> None:
    notifier, clock = supervisor.notifier(), FakeClock()
    clock.advance(12.5)
    notifier.ready("2 builds run")
    notifier.reloading(clock)
    notifier.status("1 build waits")
    notifier.alive()
    notifier.stopping()
    assert supervisor.heard() == "READY=1\nSTATUS=2 builds run"
    assert supervisor.heard() == "RELOADING=1\nMONOTONIC_USEC=12500000"
    assert supervisor.heard() == "STATUS=1 build waits"
    assert supervisor.heard() == "WATCHDOG=1"
    assert supervisor.heard() == "STOPPING=1"


def test_a_status_can_not_hold_another_assignment(supervisor: Supervisor) -> None:
    supervisor.notifier().status("build acme\nMAINPID=1\x1b[2J" + "x" * 9000)
    heard = supervisor.heard()
    assert heard.startswith("STATUS=build acme MAINPID=1x")
    assert "\n" not in heard
    assert len(heard) < 600


def test_without_a_supervisor_nothing_happens() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000000"})
    notifier.ready("x")
    notifier.alive()
    assert notifier.watchdog_s is None
    threads = threading.active_count()
    watchdog = Watchdog(notifier, lambda: True)
    watchdog.start()
    assert threading.active_count() == threads
    watchdog.stop()


@pytest.mark.parametrize("address", ["relative/path", "vsock:2:1234", ""])
def test_an_address_of_another_kind_counts_as_none(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": address}).ready()
    assert caplog.records == []


def test_a_supervisor_that_is_gone_or_deaf_stops_nobody(
    socket_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier(str(socket_dir / "nobody")).ready()
    assert "READY=1" in caplog.text
    Notifier("/" + "x" * 300).ready()
    deaf = Supervisor(str(socket_dir / "deaf"))
    with deaf.socket, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as noise:
        noise.setblocking(False)
        with suppress(BlockingIOError):  # its queue is full then
            while True:
                noise.sendto(b"x", deaf.address)
        caplog.clear()
        deaf.notifier().alive()
    assert "timed out" in caplog.text


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", "", 30.0),
        ("30000000", "ours", 30.0),
        ("30000000", "1", None),
        ("0", "", None),
        ("-5", "", None),
        ("\u0663", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
)
def test_the_watchdogs_time_is_read_as_systemd_means_it(
    usec: str, pid: str, expected: float | None
) -> None:
    pid = str(os.getpid()) if pid == "ours" else pid
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert Notifier.from_environment(environ).watchdog_s == expected


def test_signs_of_life_come_while_the_agent_is_well_and_no_longer(supervisor: Supervisor) -> None:
    looks = threading.Semaphore(0)
    health = iter([True, True, True])

    def is_alive() -> bool:
        looks.release()
        return next(health, False)

    watchdog = Watchdog(supervisor.notifier(WATCHDOG_USEC="2000"), is_alive)
    watchdog.start()
    for _ in range(10):
        assert looks.acquire(timeout=TIMEOUT_S)
    watchdog.stop()
    assert [supervisor.heard() for _ in range(3)] == ["WATCHDOG=1"] * 3
    assert supervisor.heard_nothing_more()


def test_a_health_check_that_fails_is_no_sign_of_life(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    looked = threading.Event()

    def is_alive() -> bool:
        looked.set()
        raise ValueError("a bug")

    watchdog = Watchdog(supervisor.notifier(WATCHDOG_USEC="60000000"), is_alive)
    watchdog.start()
    assert looked.wait(TIMEOUT_S)
    watchdog.stop()
    assert supervisor.heard_nothing_more()
    assert "a bug" in caplog.text
