"""Webhooks on their way in: conformance cases 1 to 14."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.agent.outbox import Outbox
from smidr_ci.api.http.guard import Limits
from smidr_ci.builds.database import Database
from smidr_ci.errors import HostError
from smidr_ci.forges.github.events import Hint, hint_of
from smidr_ci.forges.github.missed import HookPoller, MissedHooks
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.webhooks import MAX_BODY_BYTES, Hook, Receipt, Webhooks
from smidr_ci.home import Home
from tests.fakes.clock import FakeClock
from tests.fakes.github.hooks import HOOK_SECRET, hook, signature
from tests.fakes.github.room import Room
from tests.fakes.github.server import Fault, GitHubServer
from tests.fakes.github.state import SHA
from tests.fakes.http_agent import HttpAgent, until
from tests.fakes.receiver import FakeReceiver

VECTOR = b"Hello, World!"
VECTOR_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def check_run(action: str = "rerequested", **changes: Any) -> dict[str, Any]:
    return {
        "action": action,
        "check_run": {"id": 4, "head_sha": SHA, "external_id": "acme-12345678"},
        "repository": {"id": 9, "full_name": "acme/bsp"},
        "sender": {"login": "alice"},
        "installation": {"id": 77},
        **changes,
    }


class Site1:
    """A receiver of webhooks with a real outbox behind it."""

    def __init__(self, folder: Path) -> None:
        self.secret = folder / "secret"
        self.secret.write_text(HOOK_SECRET + "\n")
        self.secret.chmod(0o600)
        self.database = Database(folder / "smidr.db")
        self.outbox = Outbox(self.database, FakeClock())
        self.receiver = FakeReceiver()
        self.outbox.register("github:", self.receiver)
        hooked = Hook("github:lab:", Site.of("https://github.com/acme"), self.secret)
        self.webhooks = Webhooks(lambda: [hooked], self.outbox)

    def send(self, headers: Mapping[str, str], body: bytes) -> Receipt:
        plain = {name.lower(): value for name, value in headers.items()}
        return self.webhooks.receive(plain, body)

    def waiting(self) -> int:
        return sum(item.waiting for item in self.outbox.status())


@pytest.fixture
def site(tmp_path: Path) -> Any:
    made = Site1(tmp_path)
    yield made
    made.outbox.stop()
    made.database.close()


def test_githubs_own_vector_is_accepted(site: Site1) -> None:
    assert signature(VECTOR) == VECTOR_SIGNATURE
    headers = {
        "X-Hub-Signature-256": VECTOR_SIGNATURE,
        "X-GitHub-Event": "check_run",
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "Content-Type": "application/json",
    }
    assert site.send(headers, VECTOR).status == 400  # known, and no JSON
    assert site.send(headers, VECTOR + b" ").status == 401


def test_a_signed_event_is_queued_once(site: Site1) -> None:
    headers, body = hook("check_run", check_run())
    assert site.send(headers, body) == Receipt(202, "queued")
    assert site.send(headers, body) == Receipt(200, "known")
    assert site.waiting() == 1
    site.outbox.start()
    site.receiver.wait_for_arrivals(1)
    assert site.outbox.flush(20)
    assert site.send(headers, body) == Receipt(200, "known")
    delivery = site.receiver.tries[0]
    assert delivery.receiver == "github:lab:hook:acme/bsp:check_run"
    hint = Hint.from_plain(delivery.payload)
    assert (hint.action, hint.number, hint.sender) == ("rerequested", 4, "alice")


def test_a_redelivery_is_known_to_the_next_process_too(site: Site1) -> None:
    headers, body = hook("check_run", check_run())
    site.send(headers, body)
    later = Outbox(site.database, FakeClock())
    hooked = Hook("github:lab:", Site.of("https://github.com/acme"), site.secret)
    webhooks = Webhooks(lambda: [hooked], later)
    plain = {name.lower(): value for name, value in headers.items()}
    assert webhooks.receive(plain, body) == Receipt(200, "known")


def test_an_answer_does_not_wait_for_what_is_done_with_it(site: Site1) -> None:
    is_over = threading.Event()
    site.receiver.prepare("github:lab:hook:acme/bsp:check_run", lambda _: is_over.wait(60))
    site.outbox.start()
    assert site.send(*hook("check_run", check_run())).status == 202
    site.receiver.wait_for_tries(1)
    assert site.send(*hook("check_run", check_run())).status == 202
    assert site.receiver.arrived == []
    is_over.set()
    site.receiver.wait_for_arrivals(2)


def test_one_changed_byte_is_refused_before_anything_is_read(site: Site1) -> None:
    headers, body = hook("check_run", check_run())
    for position in (0, len(body) // 2, len(body) - 1):
        changed = bytearray(body)
        changed[position] ^= 1
        assert site.send(headers, bytes(changed)).status == 401
    assert site.waiting() == 0


@pytest.mark.parametrize(
    "given",
    [
        "",
        "sha1=0123456789012345678901234567890123456789",
        "sha256=",
        "sha256=" + "0" * 63,
        "sha256=" + "0" * 64,
        "sha256=" + "G" * 64,
        "0" * 64,
        VECTOR_SIGNATURE.upper(),
        VECTOR_SIGNATURE + " ",
    ],
)
def test_other_signatures_are_refused(site: Site1, given: str) -> None:
    headers, body = hook("check_run", check_run())
    assert site.send({**headers, "X-Hub-Signature-256": given}, body).status == 401


def test_another_secret_is_refused_and_a_second_line_is_a_secret_too(site: Site1) -> None:
    headers, body = hook("check_run", check_run(), secret="new")
    assert site.send(headers, body).status == 401
    site.secret.write_text(f"{HOOK_SECRET}\nnew\n")
    assert site.send(headers, body).status == 202
    site.secret.write_text("\n")
    assert site.send(*hook("check_run", check_run(), secret="")).status == 401


def test_a_secret_file_that_others_can_read_lets_nobody_in(site: Site1) -> None:
    site.secret.chmod(0o644)
    assert site.send(*hook("check_run", check_run())).status == 401


def test_a_ping_is_answered_and_nothing_else(site: Site1) -> None:
    assert site.send(*hook("ping", {"zen": "x", "hook_id": 1})) == Receipt(200, "pong")
    assert site.waiting() == 0


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("push", {"ref": "refs/heads/x", "deleted": True, "after": "0" * 40}),
        ("push", check_run()),
        ("check_run", check_run("created")),
        ("check_run", check_run("completed")),
        ("check_run", check_run(repository={"full_name": "stranger/bsp"})),
        ("check_run", check_run(repository={"full_name": "acme/../x"})),
        ("check_run", check_run(repository=None)),
        ("check_run", {"action": ["rerequested"]}),
        ("installation", {"action": "created"}),
        ("star", {}),
    ],
)
def test_what_means_nothing_here_is_ignored(site: Site1, event: str, payload: Any) -> None:
    assert site.send(*hook(event, payload)) == Receipt(202, "ignored")
    assert site.waiting() == 0


def test_a_form_is_read_too(site: Site1) -> None:
    assert site.send(*hook("check_run", check_run(), is_form=True)).status == 202
    assert site.waiting() == 1


@pytest.mark.parametrize(
    ("media", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"[" * 100_000, 400),
        ("application/json", b"\xff\xfe", 400),
        ("application/json", b"[]", 202),
        ("application/x-www-form-urlencoded", b"payload=%7B", 400),
        ("application/x-www-form-urlencoded", b"x=1", 400),
        ("application/x-www-form-urlencoded", b"&" * 100, 400),
        ("text/plain", b"{}", 415),
        ("", b"{}", 415),
    ],
)
def test_a_strange_body_is_no_crash(site: Site1, media: str, body: bytes, status: int) -> None:
    headers, _ = hook("check_run", {})
    headers |= {"Content-Type": media, "X-Hub-Signature-256": signature(body)}
    assert site.send(headers, body).status == status


@pytest.mark.parametrize("name", ["X-GitHub-Event", "X-GitHub-Delivery"])
@pytest.mark.parametrize("value", ["", "a b", "x" * 300, "é"])
def test_headers_must_have_their_form(site: Site1, name: str, value: str) -> None:
    headers, body = hook("check_run", check_run())
    assert site.send({**headers, name: value}, body).status == 400


def test_what_is_too_big_is_refused(site: Site1) -> None:
    body = b" " * (MAX_BODY_BYTES + 1)
    headers, _ = hook("check_run", {})
    assert site.send({**headers, "X-Hub-Signature-256": signature(body)}, body).status == 413


def test_what_can_not_be_kept_is_for_github_to_send_again(tmp_path: Path) -> None:
    class Full:
        def put(self, *_args: Any, **_more: Any) -> bool:
            raise HostError("the disk is full")

    secret = tmp_path / "secret"
    secret.write_text(HOOK_SECRET)
    secret.chmod(0o600)
    hooked = Hook("github:lab:", Site.of("https://github.com/acme"), secret)
    headers, body = hook("check_run", check_run())
    plain = {name.lower(): value for name, value in headers.items()}
    assert Webhooks(lambda: [hooked], Full()).receive(plain, body).status == 503


def test_hints_hold_nothing_strange() -> None:
    payload = check_run("requested_action", requested_action={"identifier": "i" * 99})
    payload["check_run"] = {"id": True, "head_sha": "../x"}
    payload["sender"] = {"login": "a/../b"}
    hint = hint_of("check_run", "g", payload)
    assert hint is not None
    assert (hint.number, hint.head_sha, hint.sender) == (0, "", "")
    assert len(hint.identifier) == 20
    assert Hint.from_plain(json.loads(json.dumps(hint.as_plain()))) == hint


def post(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
    request = urllib.request.Request(url, body, dict(headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_anybody_may_send_and_only_the_signed_is_taken(site: Site1, tmp_path: Path) -> None:
    with HttpAgent(Home(tmp_path / "home"), webhooks=site.webhooks) as agent:
        url = f"{agent.url}/webhooks/github"
        headers, body = hook("check_run", check_run())
        assert post(url, headers, body) == (202, "queued\n")
        assert post(url, headers, body) == (200, "known\n")
        assert post(url, headers, body + b" ")[0] == 401
        big = b"[" + b"0," * 500_000 + b"0]"
        headers, _ = hook("push", {})
        headers["X-Hub-Signature-256"] = signature(big)
        assert post(url, headers, big) == (202, "ignored\n")
        assert post(f"{agent.url}/webhooks/github/x", headers, b"")[0] == 401
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(url)
    assert site.waiting() == 1


def test_without_a_registration_there_is_no_page(tmp_path: Path) -> None:
    with HttpAgent(Home(tmp_path / "home")) as agent:
        headers, body = hook("check_run", check_run())
        assert post(f"{agent.url}/webhooks/github", headers, body)[0] == 404


def test_slow_strangers_leave_room_for_others(site: Site1, tmp_path: Path) -> None:
    limits = Limits(max_webhooks=1, max_webhook_bytes=1000)
    with HttpAgent(Home(tmp_path / "home"), webhooks=site.webhooks, limits=limits) as agent:
        url = f"{agent.url}/webhooks/github"
        headers, body = hook("check_run", check_run())
        assert post(url, headers, b" " * 1001)[0] == 413
        with agent.connect() as slow:
            slow.sendall(b"POST /webhooks/github HTTP/1.1\r\nHost: localhost\r\n")
            slow.sendall(b"Content-Length: 900\r\n\r\nx")
            until(lambda: post(url, headers, body)[0] in {429, 503})
            with urllib.request.urlopen(f"{agent.url}/healthz", timeout=30) as answer:
                assert answer.status == 200
        until(lambda: post(url, headers, body)[0] in {200, 202})


def missed(room: Room, taken: list[Hint]) -> MissedHooks:
    state = room.folder / "state" / "hooks.json"
    return MissedHooks(room.app(), room.clock, taken.append, state)


def test_failed_deliveries_are_asked_for_once_each(room: Room, github: GitHubServer) -> None:
    failed = [github.state.add_delivery("check_run", check_run()) for _ in range(3)]
    github.state.add_delivery("check_run", check_run(), status_code=202, status="OK")
    old = "2020-01-01T00:00:00Z"
    github.state.deliveries.append({**failed[0], "id": 1, "guid": "old", "delivered_at": old})
    assert missed(room, []).redeliver() == 3
    assert sorted(github.state.attempts) == sorted(item["id"] for item in failed)
    assert missed(room, []).redeliver() == 0
    assert len(github.state.attempts) == 3


def test_a_delivery_that_came_at_the_second_try_is_not_asked_for(
    room: Room, github: GitHubServer
) -> None:
    first = github.state.add_delivery("check_run", check_run())
    again = {"guid": first["guid"], "status_code": 202, "status": "OK", "redelivery": True}
    github.state.add_delivery("check_run", check_run(), **again)
    assert missed(room, []).redeliver() == 0


def test_without_a_port_deliveries_are_read_from_githubs_list(
    room: Room, github: GitHubServer
) -> None:
    github.state.add_delivery("ping", {"zen": "x"})
    first = github.state.add_delivery("check_run", check_run())
    github.state.add_delivery("push", {"ref": "x"})
    taken: list[Hint] = []
    assert missed(room, taken).fetch() == 2
    assert [hint.guid for hint in taken] == [first["guid"]]
    again = missed(room, taken)
    assert again.fetch() == 0
    second = github.state.add_delivery("check_run", check_run())
    assert again.fetch() == 1
    assert [hint.guid for hint in taken] == [first["guid"], second["guid"]]


def test_a_delivery_that_github_has_no_more_does_not_hold_the_others_up(
    room: Room, github: GitHubServer
) -> None:
    github.state.add_delivery("check_run", check_run())
    github.state.add_delivery("check_run", check_run())
    github.faults.append(Fault(r"GET /app/hook/deliveries/\d+", status=404))
    taken: list[Hint] = []
    assert missed(room, taken).fetch() == 2
    assert len(taken) == 1
    github.faults.append(Fault(r"POST /app/hook/deliveries/\d+/attempts", status=422))
    again = MissedHooks(room.app(), room.clock, taken.append, room.folder / "other.json")
    assert again.redeliver() == 1


def test_looks_that_change_nothing_are_conditional(room: Room, github: GitHubServer) -> None:
    github.state.add_delivery("check_run", check_run())
    looker = missed(room, [])
    looker.fetch()
    looker.fetch()
    looks = github.asked("GET /app/hook/deliveries")
    assert "if-none-match" in looks[1].headers
    assert len(github.asked(r"GET /app/hook/deliveries/\d+")) == 1


def test_a_poller_outlives_a_github_that_is_down(room: Room, github: GitHubServer) -> None:
    github.state.add_delivery("check_run", check_run())
    github.faults.append(Fault("GET /app/hook/deliveries", status=403))
    taken: list[Hint] = []
    looked = threading.Semaphore(0)
    looker = missed(room, taken)

    def look() -> int:
        try:
            return looker.fetch()
        finally:
            looked.release()

    poller = HookPoller("hooks", look, every_s=0.01)
    poller.start()
    for _ in range(3):
        assert looked.acquire(timeout=20)
    poller.stop()
    assert len(taken) == 1
    assert poller.problem == ""
