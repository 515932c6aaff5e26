"""Requests and answers over the unix socket, as any HTTP client sees them."""

from __future__ import annotations

import base64
import http.client
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.sockets import connect_unix
from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildState
from smidr_ci.errors import ConfigError, InternalError
from smidr_ci.home import Home
from tests.fakes.http_agent import AnybodyIs, HttpAgent

ORDER = {"customer": "acme", "config_text": "name: demo\n"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[HttpAgent]:
    with HttpAgent(Home(tmp_path / "home")) as agent:
        yield agent


class Answered:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    served: HttpAgent,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Answered:
    with closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = connect_unix(served.home.socket, 30)
        sent = dict(headers or {})
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        connection.request(method, path, raw, sent)
        answer = connection.getresponse()
        return Answered(answer.status, answer.headers, answer.read())  # type: ignore[arg-type] # a Message is one in all but name


def start(served: HttpAgent) -> str:
    answer = ask(served, "POST", "/api/v1/builds", ORDER)
    assert answer.status == 201, answer.body
    return str(answer.json["build_id"])


def test_a_build_is_started_looked_at_and_cancelled(served: HttpAgent) -> None:
    order = {
        **ORDER,
        "targets": ["a", "b"],
        "clean": True,
        "variables": {"X": "1"},
        "directory": str(served.home.root),
    }
    answer = ask(served, "POST", "/api/v1/builds", order)
    assert answer.status == 201
    build_id = answer.json["build_id"]
    assert answer.headers["Location"] == f"/api/v1/builds/{build_id}"
    given = served.agent.orders[0]
    assert (given.targets, given.clean, given.variables) == (("a", "b"), True, {"X": "1"})
    assert given.requested_by == f"uid {os.geteuid()}"
    found = ask(served, "GET", f"/api/v1/builds/{build_id[:9]}").json
    assert found["state"] == "queued"
    assert found["order"] == {}
    served.agent.show(build_id, progress=Progress(recipes=7), notes=("syncing",))
    view = ask(served, "GET", f"/api/v1/builds/{build_id}/status").json
    assert view["progress"]["recipes"] == 7
    assert view["notes"] == [{"number": 1, "text": "syncing"}]
    cancelled = ask(served, "POST", f"/api/v1/builds/{build_id}/cancel", {"level": "kill"})
    assert (cancelled.status, cancelled.json["state"]) == (202, "cancelled")


def test_an_older_tools_client_starts_builds(served: HttpAgent) -> None:
    for target in ("a b", ["a", "b"]):
        order = {"customer": "acme", "target": target, "config": "name: demo\n"}
        answer = ask(served, "POST", "/start_build", order)
        assert answer.status == 201
        assert answer.json["build_id"].startswith("acme-")
    assert [order.targets for order in served.agent.orders] == [("a", "b")] * 2
    assert all(order.is_confined for order in served.agent.orders)


def test_a_bundle_comes_in_base64(served: HttpAgent) -> None:
    bad = ask(served, "POST", "/api/v1/builds", {**ORDER, "bundle": "?"})
    assert (bad.status, bad.json["error"]["message"]) == (400, "the bundle is not in base64")
    junk = base64.b64encode(b"no tar at all").decode()
    assert ask(served, "POST", "/api/v1/builds", {**ORDER, "bundle": junk}).status == 400
    assert served.agent.orders == []


def test_history_comes_in_pages(served: HttpAgent) -> None:
    ids = [start(served) for _ in range(5)]
    page = ask(served, "GET", "/api/v1/builds?limit=3").json
    assert [item["build_id"] for item in page["builds"]] == ids[:1:-1]
    rest = ask(served, "GET", f"/api/v1/builds?limit=3&before={page['next']}").json
    assert [item["build_id"] for item in rest["builds"]] == ids[1::-1]
    assert rest["next"] is None
    served.agent.finish(ids[0])
    done = ask(served, "GET", "/api/v1/builds?state=completed&customer=acme").json
    assert [item["build_id"] for item in done["builds"]] == [ids[0]]


def test_deleted_builds_are_purged(served: HttpAgent) -> None:
    build_id = start(served)
    assert ask(served, "DELETE", f"/api/v1/builds/{build_id}").status == 409
    served.agent.finish(build_id)
    assert ask(served, "DELETE", f"/api/v1/builds/{build_id}").status == 204
    assert ask(served, "GET", f"/api/v1/builds/{build_id}").status == 404
    naive = {"deleted_before": "2020-01-01T00:00:00"}
    assert ask(served, "POST", "/api/v1/purge", naive).status == 400
    assert ask(served, "POST", "/api/v1/purge").json == {"purged": [build_id]}


def test_the_log_is_read_from_an_offset_and_by_tail(served: HttpAgent) -> None:
    build_id = start(served)
    served.log(build_id, b"one\ntwo\nthree\n")
    log = f"/api/v1/builds/{build_id}/log"
    whole = ask(served, "GET", log)
    assert (whole.body, whole.headers["X-Smidr-Offset"]) == (b"one\ntwo\nthree\n", "0")
    assert whole.headers["Content-Type"].startswith("text/plain")
    assert ask(served, "GET", f"{log}?offset=8").body == b"three\n"
    tail = ask(served, "GET", f"{log}?tail=2")
    assert (tail.body, tail.headers["X-Smidr-Offset"]) == (b"two\nthree\n", "4")
    beyond = ask(served, "GET", f"{log}?offset=99")
    assert (beyond.body, beyond.headers["X-Smidr-Offset"]) == (b"one\ntwo\nthree\n", "0")


def test_a_followed_log_ends_with_the_build(served: HttpAgent) -> None:
    build_id = start(served)
    served.log(build_id, b"begin\n")
    with closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = connect_unix(served.home.socket, 30)
        connection.request("GET", f"/api/v1/builds/{build_id}/log?follow=true")
        answer = connection.getresponse()
        assert answer.read1(100) == b"begin\n"
        served.log(build_id, b"end\n")
        served.agent.finish(build_id)
        assert answer.read() == b"end\n"


def test_a_log_that_begins_anew_breaks_the_stream_off(served: HttpAgent) -> None:
    build_id = start(served)
    served.log(build_id, b"first attempt\n")
    with closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = connect_unix(served.home.socket, 30)
        connection.request("GET", f"/api/v1/builds/{build_id}/log?follow=true")
        answer = connection.getresponse()
        assert answer.read1(100) == b"first attempt\n"
        served.agent.log_of(build_id).write_bytes(b"second\n")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()


def test_watching_shows_changes_until_the_end(served: HttpAgent) -> None:
    build_id = start(served)
    served.agent.show(build_id, notes=("one", "two"))
    with closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = connect_unix(served.home.socket, 30)
        connection.request("GET", f"/api/v1/builds/{build_id}/watch?notes_after=1")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith("application/x-ndjson")
        first = json.loads(answer.readline())
        assert [note["text"] for note in first["notes"]] == ["two"]
        served.agent.show(build_id, progress=Progress(recipes=3), notes=("three",))
        second = json.loads(answer.readline())
        assert [note["text"] for note in second["notes"]] == ["three"]
        assert second["progress"]["recipes"] == 3
        served.agent.finish(build_id)
        *_, last = (json.loads(line) for line in answer.read().splitlines())
        assert last["record"]["state"] == "completed"
        assert last["notes"] == []


def test_an_artifact_is_sent_whole_and_in_parts(served: HttpAgent) -> None:
    build_id = start(served)
    content = os.urandom(700_000)
    record = served.agent.change(build_id, state=BuildState.BUILDING)
    served.leave_artifacts(record, {"images/core image.wic": content})
    listed = ask(served, "GET", f"/api/v1/builds/{build_id[:-1]}/artifacts").json
    assert listed["build_id"] == build_id
    (item,) = listed["artifacts"]
    path = f"/api/v1/builds/{build_id}/artifacts/images/core%20image.wic"
    whole = ask(served, "GET", path)
    assert (whole.status, whole.body) == (200, content)
    assert whole.headers["ETag"] == f'"{item["sha256"]}"'
    assert whole.headers["Content-Disposition"] == "attachment; filename*=UTF-8''core%20image.wic"
    tag = whole.headers["ETag"]
    for asked, start_at, end in (("500000-", 500_000, None), ("-5", -5, None), ("0-9", 0, 10)):
        part = ask(served, "GET", path, headers={"Range": f"bytes={asked}", "If-Range": tag})
        assert (part.status, part.body) == (206, content[start_at:end])
    assert ask(served, "GET", path, headers={"Range": "bytes=700000-"}).status == 416
    other = ask(served, "GET", path, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (other.status, len(other.body)) == (200, 700_000)
    junk = ask(served, "GET", path, headers={"Range": "lines=1-2"})
    assert (junk.status, len(junk.body)) == (200, 700_000)
    assert ask(served, "GET", path, headers={"If-None-Match": tag}).status == 304


@pytest.mark.parametrize(
    "path",
    [
        "../../../smidr.db",
        "%2e%2e/%2e%2e/smidr.db",
        "..%2f..%2fsmidr.db",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "manifest.json",
        ".smidr-owned",
        "image/../image",
        "./image",
        "image%00",
        "",
    ],
)
def test_no_artifact_name_leads_to_another_file(served: HttpAgent, path: str) -> None:
    build_id = start(served)
    record = served.agent.change(build_id, state=BuildState.BUILDING)
    served.leave_artifacts(record, {"image": b"abc"})
    answer = ask(served, "GET", f"/api/v1/builds/{build_id}/artifacts/{path}")
    assert answer.status == 404
    assert answer.json["error"]["kind"] == "usage"


def test_an_empty_artifact_is_sent(served: HttpAgent) -> None:
    build_id = start(served)
    record = served.agent.change(build_id, state=BuildState.BUILDING)
    served.leave_artifacts(record, {"empty": b""})
    path = f"/api/v1/builds/{build_id}/artifacts/empty"
    assert ask(served, "GET", path).body == b""
    assert ask(served, "GET", path, headers={"Range": "bytes=0-"}).status == 416


def test_errors_have_one_shape_and_the_right_status(served: HttpAgent) -> None:
    build_id = start(served)
    cases = [
        ("GET", "/api/v1/builds/acme-00000000", None, 404),
        ("GET", "/nowhere", None, 404),
        ("PUT", "/api/v1/builds", None, 405),
        ("GET", "/api/v1/builds?limit=0", None, 422),
        ("GET", "/api/v1/builds?before=nope", None, 404),
        ("GET", f"/api/v1/builds/{build_id}/log?offset=-1", None, 422),
        ("POST", "/api/v1/builds", {**ORDER, "customer": "A B"}, 400),
        ("POST", "/api/v1/builds", {**ORDER, "privileged": True}, 422),
        ("POST", "/api/v1/builds", {"customer": "acme"}, 422),
        ("POST", "/api/v1/builds", b"{", 422),
        ("POST", "/api/v1/builds", b'{"a":' * 100_000, 400),
        ("POST", "/api/v1/builds", b"\xff\xfe", 422),
        ("POST", "/api/v1/builds", b'{"config_text": ' + b"9" * 5000 + b"}", 400),
        ("POST", "/api/v1/builds", {**ORDER, "config_text": "\ud800"}, 400),
        ("POST", "/api/v1/builds", {**ORDER, "config_text": "x" * (1 << 20) + "x"}, 413),
        ("POST", f"/api/v1/builds/{build_id}/cancel", {"level": "none"}, 422),
        ("POST", "/api/v1/purge", {"deleted_before": "yesterday"}, 422),
    ]
    for method, path, body, status in cases:
        answer = ask(served, method, path, body)
        assert answer.status == status, (path, answer.body)
        assert set(answer.json["error"]) == {"kind", "message", "where", "hint"}
        assert answer.json["error"]["message"]


def test_a_fault_in_a_config_is_told_with_its_place(served: HttpAgent) -> None:
    served.agent.failure = ConfigError("unknown key", where="smidr.yaml:3:1", hint="Did you mean?")
    answer = ask(served, "POST", "/api/v1/builds", ORDER)
    assert answer.status == 422
    assert answer.json["error"] == {
        "kind": "config",
        "message": "unknown key",
        "where": "smidr.yaml:3:1",
        "hint": "Did you mean?",
    }


def test_a_draining_agent_says_when_to_ask_again(served: HttpAgent) -> None:
    assert ask(served, "POST", "/api/v1/agent/drain").status == 202
    answer = ask(served, "POST", "/api/v1/builds", ORDER)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_a_fault_of_ours_shows_nothing_of_itself(
    served: HttpAgent, caplog: pytest.LogCaptureFixture
) -> None:
    served.agent.failure = RuntimeError("internals")
    answer = ask(served, "GET", "/api/v1/agent")
    assert (answer.status, answer.json["error"]["kind"]) == (500, "internal")
    assert b"internals" not in answer.body
    served.agent.failure = InternalError("told")
    assert ask(served, "GET", "/api/v1/agent").status == 500
    served.agent.failure = None
    assert ask(served, "GET", "/api/v1/agent").status == 200
    assert "internals" in caplog.text


def test_a_validation_error_does_not_repeat_what_was_sent(served: HttpAgent) -> None:
    order = {**ORDER, "clean": "secret-in-the-wrong-place"}
    answer = ask(served, "POST", "/api/v1/builds", order)
    assert answer.status == 422
    assert b"secret-in" not in answer.body


def test_health_and_readiness(served: HttpAgent) -> None:
    assert ask(served, "GET", "/healthz").json == {"status": "alive"}
    assert ask(served, "GET", "/readyz").json == {"ready": True, "problems": []}
    served.agent.is_draining = True
    answer = ask(served, "GET", "/readyz")
    assert (answer.status, answer.json["problems"]) == (503, ["the agent drains"])


def test_an_engine_that_is_away_makes_the_agent_unready(tmp_path: Path) -> None:
    with HttpAgent(Home(tmp_path / "home")) as served:
        served.engine_answers = False
        answer = ask(served, "GET", "/readyz")
        assert (answer.status, answer.json["problems"]) == (
            503,
            ["the container engine does not answer"],
        )


def test_the_agents_state_and_end(served: HttpAgent) -> None:
    build_id = start(served)
    status = ask(served, "GET", "/api/v1/agent").json
    assert status["queued"] == {build_id: "it is the fake's"}
    assert ask(served, "GET", "/metrics").body == b"smidr_queue_length 0.0\n"
    assert ask(served, "POST", "/api/v1/agent/stop", {"cancel_builds": True}).status == 202
    assert served.agent.stopped_with is True


def test_every_answer_has_the_security_headers(served: HttpAgent) -> None:
    for path in ("/healthz", "/nowhere", "/api/v1/builds"):
        headers = ask(served, "GET", path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "Server" not in headers


def test_a_scope_is_enforced(tmp_path: Path) -> None:
    access = AnybodyIs(Caller("token reader", Scope.READ))
    with HttpAgent(Home(tmp_path / "home"), access=access) as served:
        for method, path, body in (
            ("POST", "/api/v1/builds", ORDER),
            ("POST", "/api/v1/agent/stop", None),
            ("POST", "/api/v1/purge", None),
        ):
            assert ask(served, method, path, body).status == 403
        assert ask(served, "GET", "/api/v1/builds").status == 200
        assert served.agent.stopped_with is None


def test_the_agent_ends_while_a_stream_is_read(tmp_path: Path) -> None:
    with HttpAgent(Home(tmp_path / "home")) as served:
        build_id = start(served)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connect_unix(served.home.socket, 30)
        connection.request("GET", f"/api/v1/builds/{build_id}/log?follow=true")
        answer = connection.getresponse()
        broken = threading.Event()

        def read() -> None:
            try:
                answer.read()
            except (http.client.IncompleteRead, ConnectionError):
                broken.set()

        reader = threading.Thread(target=read)
        reader.start()
    reader.join(timeout=30)
    connection.close()
    assert broken.is_set()


def test_a_build_s_summary_is_markdown(served: HttpAgent) -> None:
    build_id = start(served)
    served.agent.change(build_id, state=BuildState.FAILED, failure_message="no <b>space</b>")
    answer = ask(served, "GET", f"/api/v1/builds/{build_id[:-1]}/summary")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/markdown")
    assert b"no &#60;b&#62;space" in answer.body
    assert ask(served, "GET", "/api/v1/builds/nobody/summary").status == 404


def test_only_local_callers_learn_where_artifacts_lie(tmp_path: Path) -> None:
    for is_local in (True, False):
        home = Home(tmp_path / f"home-{is_local}")
        caller = Caller("somebody", Scope.BUILD, is_local=is_local)
        with HttpAgent(home, access=AnybodyIs(caller)) as served:
            build_id = start(served)
            answer = ask(served, "GET", f"/api/v1/builds/{build_id}/artifacts").json
            expected = str(home.artifacts / "acme" / build_id) if is_local else ""
            assert answer["directory"] == expected
