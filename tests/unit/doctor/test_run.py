"""All checks together: in order, in time, whatever hangs or breaks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.containers.runtime import User
from smidr_ci.doctor.model import Check, CheckResult, Status, fine
from smidr_ci.doctor.run import Subject, run_checks
from smidr_ci.engine import Engine
from smidr_ci.home import Home

# The SDK leaves a socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """A host without engine and registry."""
    return Subject(
        Home(tmp_path),
        Engine(f"unix://{tmp_path}/none.sock", timeout_s=1),
        User(1000, 1000),
        default_base="127.0.0.1:1/debian:12",
        environ={"PATH": str(tmp_path)},
    )


def test_every_finding_has_a_remedy_and_nothing_else_has(subject: Subject) -> None:
    results = run_checks(subject)
    assert results[0].name == "container engine"
    assert results[0].status is Status.FAIL
    assert len({result.name for result in results}) >= 10
    for result in results:
        assert bool(result.remedy) == (result.status is not Status.OK), result


def test_results_keep_their_order_and_a_broken_check_hides_no_other(subject: Subject) -> None:
    def broken() -> list[CheckResult]:
        raise ZeroDivisionError("oops")

    more = [Check("broken", broken), Check("good", lambda: [fine("good", "yes")])]
    one, other = run_checks(subject, more)[-2:]
    assert (one.name, one.status) == ("broken", Status.FAIL)
    assert "oops" in one.detail
    assert other == fine("good", "yes")


def test_check_that_hangs_is_reported_in_time(subject: Subject) -> None:
    release = threading.Event()

    def hang() -> list[CheckResult]:
        release.wait(30)
        return []

    began = time.monotonic()
    results = run_checks(subject, [Check("stuck", hang, Status.FAIL)], time_limit_s=1)
    release.set()
    assert time.monotonic() - began < 15
    assert (results[-1].name, results[-1].status) == ("stuck", Status.FAIL)
    assert "no answer within 1 s" in results[-1].detail


@pytest.fixture
def mute_socket(socket_dir: Path) -> Iterator[Path]:
    """A socket that accepts and never answers, as a hung engine does."""
    path = socket_dir / "mute.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(8)
        yield path


def test_engine_that_hangs_fails_in_time(subject: Subject, mute_socket: Path) -> None:
    hung = Subject(
        subject.home,
        Engine(f"unix://{mute_socket}", timeout_s=20),
        subject.user,
        default_base=subject.default_base,
        environ=subject.environ,
    )
    began = time.monotonic()
    results = run_checks(hung, time_limit_s=1)
    assert time.monotonic() - began < 15
    assert results[0].status is Status.FAIL
    assert "no answer" in results[0].detail
