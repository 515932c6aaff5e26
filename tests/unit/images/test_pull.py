"""Pulling: what registries say, and what the user reads."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.engine import Engine
from smidr_ci.errors import CancelledError, ImageError
from smidr_ci.images.model import ImageSettings, Making
from smidr_ci.images.pull import (
    PullError,
    PullFault,
    PullProgress,
    classify,
    pull,
    registry_of,
    split_reference,
)
from tests.fakes.clock import FakeClock
from tests.fakes.docker_api import Answer, FakeDockerApi

# The SDK leaves the socket of a stream that was not read to its end to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("debian", ("debian", "latest")),
        ("debian:12", ("debian", "12")),
        ("host:5000/a/b", ("host:5000/a/b", "latest")),
        ("host:5000/a/b:1.0", ("host:5000/a/b", "1.0")),
        ("a/b@sha256:00ff", ("a/b", "sha256:00ff")),
        ("a/b:1@sha256:00ff", ("a/b", "sha256:00ff")),
    ],
)
def test_reference_is_split_and_a_digest_wins(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("debian:12", "docker.io"),
        ("acme/debian", "docker.io"),
        ("ghcr.io/a/b", "ghcr.io"),
        ("localhost/a", "localhost"),
        ("build:5000/a", "build:5000"),
    ],
)
def test_registry_is_the_references_host(reference: str, registry: str) -> None:
    assert registry_of(reference) == registry


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("dial tcp: lookup registry-1.docker.io: no such host", PullFault.UNREACHABLE),
        ("net/http: request canceled while waiting for connection", PullFault.UNREACHABLE),
        ("x509: certificate signed by unknown authority", PullFault.UNREACHABLE),
        ("received unexpected HTTP status: 503 Service Unavailable", PullFault.UNREACHABLE),
        ("manifest for debian:nope not found: manifest unknown", PullFault.NOT_FOUND),
        ("pull access denied for x, repository does not exist", PullFault.DENIED),
        ("unauthorized: authentication required", PullFault.DENIED),
        ("toomanyrequests: You have reached your pull rate limit", PullFault.RATE_LIMITED),
        ("no matching manifest for linux/riscv64 in the manifest list", PullFault.OTHER),
    ],
)
def test_answers_are_told_apart(answer: str, fault: PullFault) -> None:
    assert classify(answer) is fault


def test_denied_pull_says_how_to_log_in() -> None:
    error = PullError("ghcr.io/acme/builder:1", "denied")
    assert "ghcr.io/acme/builder:1" in error.message
    assert "docker login ghcr.io" in error.hint


def layer(name: str, status: str, current: int = 0, total: int = 0) -> dict[str, object]:
    detail = {"current": current, "total": total} if total else {}
    return {"id": name, "status": status, "progressDetail": detail}


def test_progress_counts_layers_and_bytes() -> None:
    progress = PullProgress()
    progress.take({"id": "bookworm", "status": "Pulling from library/debian"})
    first, second = "a" * 12, "b" * 12
    progress.take(layer(first, "Downloading", 10_000_000, 40_000_000))
    progress.take(layer(second, "Downloading", 5_000_000, 60_000_000))
    assert str(progress) == "0 of 2 layers, 15 of 100 MB"
    progress.take(layer(first, "Download complete"))
    progress.take(layer(first, "Extracting", 1, 40_000_000))
    progress.take(layer(first, "Pull complete"))
    assert str(progress) == "1 of 2 layers, 45 of 100 MB"


def making(engine: Engine, lines: list[str], logins: Path | None = None) -> Making:
    settings = ImageSettings(registry_auth_file=logins)
    return Making(engine, settings, FakeClock(), lines.append, CancelToken())


def stream(*messages: dict[str, object]) -> Answer:
    return Answer(stream=[json.dumps(message).encode() + b"\n" for message in messages])


def test_thousand_messages_become_one_line_in_three_seconds(
    api: FakeDockerApi, engine: Engine
) -> None:
    messages = [layer("a" * 12, "Downloading", n * 1000, 1_000_000) for n in range(1, 1000)]
    api.on("POST", "/images/create", stream(*messages))
    lines: list[str] = []
    pull(making(engine, lines), "debian:12")
    assert lines[0] == "pulling debian:12"
    assert lines[-1] == "pulled debian:12"
    assert len(lines) == 3
    query = api.asked("POST", "/images/create")[0].query
    assert (query["fromImage"], query["tag"]) == ("debian", "12")


def test_error_in_the_stream_is_a_pull_error(api: FakeDockerApi, engine: Engine) -> None:
    api.on("POST", "/images/create", stream({"error": "unexpected EOF"}))
    with pytest.raises(PullError, match="unexpected EOF") as caught:
        pull(making(engine, []), "debian:12")
    assert caught.value.fault is PullFault.UNREACHABLE


def test_refused_pull_is_a_pull_error(api: FakeDockerApi, engine: Engine) -> None:
    api.on("POST", "/images/create", Answer(404, {"message": "manifest unknown"}))
    with pytest.raises(PullError, match="manifest unknown") as caught:
        pull(making(engine, []), "debian:12")
    assert caught.value.fault is PullFault.NOT_FOUND


def test_control_characters_of_a_registry_do_not_reach_the_terminal(
    api: FakeDockerApi, engine: Engine
) -> None:
    api.on("POST", "/images/create", stream({"error": "\x1b]0;owned\x07denied"}))
    with pytest.raises(PullError) as caught:
        pull(making(engine, []), "debian:12")
    assert "\x1b" not in caught.value.message


def test_cancel_leaves_a_pull_that_hangs(api: FakeDockerApi, engine: Engine) -> None:
    release = threading.Event()
    work = making(engine, [])

    def hanging() -> Iterator[bytes]:
        yield json.dumps(layer("a" * 12, "Downloading", 1, 10)).encode() + b"\n"
        assert work.cancel is not None
        work.cancel.cancel("enough")
        release.wait(30)

    api.on("POST", "/images/create", lambda _: Answer(stream=hanging()))
    with pytest.raises(CancelledError, match="enough"):
        pull(work, "debian:12")
    release.set()


def test_logins_come_from_the_operators_file(
    api: FakeDockerApi, engine: Engine, tmp_path: Path
) -> None:
    token = base64.b64encode(b"joe:pa55").decode()
    path = tmp_path / "logins.json"
    path.write_text(json.dumps({"auths": {"reg.example.com": {"auth": token}}}))
    api.on("POST", "/images/create", stream())
    pull(making(engine, [], path), "reg.example.com/x:1")
    sent = api.asked("POST", "/images/create")[0].headers["X-Registry-Auth"]
    assert json.loads(base64.urlsafe_b64decode(sent))["password"] == "pa55"


def test_missing_login_file_is_named(api: FakeDockerApi, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(ImageError, match="does not exist") as caught:
        pull(making(engine, [], path), "reg.example.com/x:1")
    assert caught.value.where == str(path)
    assert api.asked("POST", "/images/create") == []
