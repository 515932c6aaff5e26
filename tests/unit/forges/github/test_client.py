"""Authentication, limits and conditional requests: conformance cases 16 to 26."""

from __future__ import annotations

import logging
import os
import socket
import threading
from pathlib import Path

import pytest

from smidr_ci.errors import ConfigError, UsageError
from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.github.auth import APP, AppCredentials, Scope
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.errors import RateLimitedError
from smidr_ci.forges.github.exchange import Call
from smidr_ci.forges.github.sender import Authorization, Sender
from smidr_ci.forges.github.site import Site, is_repository_name
from smidr_ci.forges.github.transport import Limits, Transport, masked, shown_url
from tests.fakes.github import openapi
from tests.fakes.github.room import Room
from tests.fakes.github.server import Fault, GitHubServer
from tests.fakes.github.state import SHA

CHECKS = Scope.of("acme/bsp", checks="write")
ACTIONS = Scope.of("acme/bsp", actions="read")
TOKENS = r"POST /app/installations/77/access_tokens"
RUN = "/repos/acme/bsp/actions/runs/555"


def look(client: GitHubClient) -> None:
    client.get(RUN, ACTIONS, action="look at the run")


def create(client: GitHubClient) -> None:
    body = {"name": "smidr", "head_sha": SHA}
    call = Call("POST", "/repos/acme/bsp/check-runs", json=body, is_repeatable=False)
    client.send(call, CHECKS, action="create a check")


def test_the_description_of_the_api_is_at_hand() -> None:
    if not openapi.is_there():
        pytest.skip(openapi.MISSING)
    assert openapi.faults_of_request("POST", "/repos/a/b/check-runs", {}, {"name": "x"})
    assert not openapi.faults_of_request(
        "POST", "/repos/a/b/check-runs", {}, {"name": "x", "head_sha": SHA}
    )
    assert openapi.faults_of_answer("GET", "/repos/a/b/check-runs/1", 200, {"id": 1})


def test_a_token_is_renewed_before_its_end(room: Room, github: GitHubServer) -> None:
    github.state.add_run()
    client = room.app()
    look(client)
    room.advance(49 * 60)
    look(client)
    assert len(github.asked(TOKENS)) == 1
    room.advance(6 * 60)  # five minutes are left
    look(client)
    assert len(github.asked(TOKENS)) == 2
    used = [asked.headers["authorization"] for asked in github.asked(f"GET {RUN}")]
    assert used[0] == used[1] != used[2]


def test_a_refused_token_is_replaced_once_and_the_call_repeated_once(
    room: Room, github: GitHubServer
) -> None:
    github.state.add_run()
    client = room.app()
    look(client)
    with github.lock:
        next(iter(github.state.tokens.values())).is_revoked = True
    look(client)
    assert len(github.asked(TOKENS)) == 2
    github.faults.append(Fault(f"GET {RUN}", status=401, count=9))
    with pytest.raises(ForgeError, match="401") as caught:
        look(client)
    assert caught.value.status == 401
    assert len(github.asked(f"GET {RUN}")) == 3 + 2


def test_each_token_is_for_one_repository_and_one_purpose(room: Room, github: GitHubServer) -> None:
    client = room.app()
    for scope in (CHECKS, Scope.of("acme/other", checks="write"), ACTIONS, CHECKS):
        client.credentials.authorize(scope)
    assert github.state.token_requests == [
        {"permissions": {"checks": "write"}, "repositories": ["bsp"]},
        {"permissions": {"checks": "write"}, "repositories": ["other"]},
        {"permissions": {"actions": "read"}, "repositories": ["bsp"]},
    ]


def test_a_token_for_an_organisation_names_no_repository(room: Room, github: GitHubServer) -> None:
    scope = Scope(organization="acme", permissions=(("organization_self_hosted_runners", "write"),))
    room.app().credentials.authorize(scope)
    assert github.state.token_requests == [
        {"permissions": {"organization_self_hosted_runners": "write"}}
    ]


def test_many_threads_ask_for_one_token(room: Room, github: GitHubServer) -> None:
    client = room.app()
    threads = [
        threading.Thread(target=client.credentials.authorize, args=(CHECKS,)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(github.asked(TOKENS)) == 1


def test_an_app_that_was_installed_again_is_found_again(room: Room, github: GitHubServer) -> None:
    client = room.app()
    client.credentials.authorize(CHECKS)
    with github.lock:
        github.state.installations["acme"] = 88
    room.advance(3600)
    client.credentials.authorize(CHECKS)
    assert len(github.asked("POST /app/installations/88/access_tokens")) == 1


def test_an_app_that_is_not_installed_is_named(room: Room) -> None:
    with pytest.raises(ForgeError, match="installation for stranger/x") as caught:
        room.app().credentials.authorize(Scope.of("stranger/x", checks="write"))
    assert "installed" in caught.value.hint


def test_the_primary_limit_holds_calls_back_until_its_reset(
    room: Room, github: GitHubServer
) -> None:
    github.state.add_run()
    client = room.app()
    look(client)
    reset = int(room.clock.now().timestamp()) + 90
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}
    headers["X-RateLimit-Resource"] = "core"
    github.faults.append(Fault(f"GET {RUN}", status=403, headers=headers))
    with pytest.raises(RateLimitedError) as caught:
        look(client)
    assert 88 <= caught.value.after_s <= 90
    room.advance(80)
    with pytest.raises(RateLimitedError):
        look(client)
    assert len(github.asked(f"GET {RUN}")) == 2
    room.advance(11)
    look(client)


def test_the_secondary_limit_waits_a_minute_and_doubles(room: Room, github: GitHubServer) -> None:
    github.state.add_run()
    client = room.app()
    body = {"message": "You have exceeded a secondary rate limit."}
    github.faults.append(Fault(f"GET {RUN}", status=403, body=body, count=3))
    waits = []
    for _ in range(3):
        with pytest.raises(RateLimitedError) as caught:
            look(client)
        waits.append(caught.value.after_s)
        room.advance(caught.value.after_s)
    assert waits == [60, 120, 240]
    look(client)
    github.faults.append(Fault(f"GET {RUN}", status=429, body=body))
    with pytest.raises(RateLimitedError) as caught:
        look(client)
    assert caught.value.after_s == 60


def test_retry_after_is_obeyed_for_all_calls_of_an_installation(
    room: Room, github: GitHubServer
) -> None:
    github.state.add_run()
    client = room.app()
    github.faults.append(Fault(f"GET {RUN}", status=429, headers={"Retry-After": "17"}))
    with pytest.raises(RateLimitedError) as caught:
        look(client)
    assert caught.value.after_s == 17
    with pytest.raises(RateLimitedError):
        create(client)
    assert not github.asked("POST .*/check-runs")


def test_a_missing_permission_is_no_rate_limit(room: Room, github: GitHubServer) -> None:
    client = room.plain()
    with pytest.raises(ForgeError, match="GitHub App") as caught:
        create(client)
    assert not isinstance(caught.value, RateLimitedError)
    assert caught.value.status == 403
    github.state.add_run()
    look(client)


def test_writes_keep_a_second_between_them(room: Room, github: GitHubServer) -> None:
    client = room.app()
    create(client)
    create(client)
    assert room.pauses == [1.0]
    assert len(github.state.checks) == 2


def test_an_unchanged_answer_is_taken_from_before(room: Room, github: GitHubServer) -> None:
    github.state.add_run()
    client = room.app()
    first = client.get(RUN, ACTIONS, action="look")
    second = client.get(RUN, ACTIONS, action="look")
    assert not first.is_unchanged
    assert second.is_unchanged
    assert second.object() == first.object()
    assert "if-none-match" in github.asked(f"GET {RUN}")[1].headers
    with github.lock:
        github.state.runs[555]["status"] = "completed"
    third = client.get(RUN, ACTIONS, action="look")
    assert not third.is_unchanged
    assert third.object()["status"] == "completed"


def test_a_renamed_repository_is_followed_with_the_same_method(
    room: Room, github: GitHubServer
) -> None:
    run = github.state.add_check("acme/new", {"name": "smidr", "head_sha": SHA})
    github.state.renamed["acme/bsp"] = "acme/new"
    client = room.app()
    call = Call("PATCH", f"/repos/acme/bsp/check-runs/{run['id']}", json={"status": "in_progress"})
    for _ in range(2):
        client.send(call, CHECKS, action="change the check")
    assert run["status"] == "in_progress"
    last = github.state.token_requests[-1]
    assert last == {"permissions": {"checks": "write"}, "repositories": ["new"]}
    assert len(github.state.token_requests) == 2


def test_every_call_says_who_we_are_and_which_version(room: Room, github: GitHubServer) -> None:
    github.state.add_run()
    look(room.app())
    assert len(github.requests) == 3
    for asked in github.requests:
        assert asked.headers["user-agent"].startswith("smidr-ci/")
        assert asked.headers["x-github-api-version"] == "2022-11-28"
        assert asked.headers["accept"] == "application/vnd.github+json"


@pytest.mark.parametrize("fault", ["5xx", "cut", "truncated"])
def test_what_may_be_repeated_is_repeated(room: Room, github: GitHubServer, fault: str) -> None:
    github.state.add_run()
    client = room.app()
    is_cut, is_truncated = fault == "cut", fault == "truncated"
    github.faults.append(
        Fault(f"GET {RUN}", status=502, count=2, is_cut=is_cut, is_truncated=is_truncated)
    )
    look(client)
    assert len(github.asked(f"GET {RUN}")) == 3
    assert 0.7 < room.pauses[0] < room.pauses[1] < 3


def test_a_post_is_not_repeated(room: Room, github: GitHubServer) -> None:
    github.faults.append(Fault("POST .*/check-runs", status=502, is_after=True))
    with pytest.raises(ForgeError) as caught:
        create(room.app())
    assert caught.value.status == 502
    assert len(github.state.checks) == 1
    assert room.pauses == []


def test_a_github_that_is_gone_is_an_error_after_some_tries(
    room: Room, github: GitHubServer
) -> None:
    github.is_down = True
    with pytest.raises(ForgeUnreachableError, match="no answer from GitHub"):
        look(room.app())
    assert len(room.pauses) == 3


def test_an_ended_sender_calls_nobody(room: Room, github: GitHubServer) -> None:
    client = room.app()
    client.sender.end()
    with pytest.raises(ForgeUnreachableError):
        look(client)
    assert github.requests == []


def test_calls_are_counted_by_names_that_nobody_else_chooses(
    room: Room, github: GitHubServer
) -> None:
    counted: list[tuple[str, str]] = []
    transport = Transport(clock=room.clock, limits=Limits(connect_s=5, pause_s=5))
    sender = Sender(
        room.site.api,
        transport,
        clock=room.clock,
        pause=room.pause,
        on_call=lambda operation, outcome: counted.append((operation, outcome)),
    )
    token = Authorization(f"Bearer {github.state.new_token([], {'contents': 'read'})}", "x")
    for path in ("/repos/acme/bsp/branches/app", "/repos/acme/bsp", "/rate_limit"):
        sender.send(Call("GET", path), token)
    github.is_down = True
    with pytest.raises(ForgeUnreachableError):
        sender.send(Call("POST", "/repos/app/app/check-runs", is_repeatable=False), token)
    assert counted == [
        ("get-branches", "404"),
        ("get-repository", "403"),
        ("get-rate_limit", "404"),
        ("post-check-runs", "unreachable"),
    ]


def test_pages_are_read_to_the_last(room: Room, github: GitHubServer) -> None:
    client = room.app()
    link = f'<{github.web}/api/v3{RUN}/jobs?page=2>; rel="next"'
    page = {"total_count": 2, "jobs": [{"id": 1}]}
    github.faults.append(Fault(f"GET {RUN}/jobs", status=200, headers={"Link": link}, body=page))
    page = {"total_count": 2, "jobs": [{"id": 2}]}
    github.faults.append(Fault(f"GET {RUN}/jobs", status=200, body=page))
    found = client.pages(f"{RUN}/jobs", ACTIONS, action="list", items="jobs")
    assert [job["id"] for job in found] == [1, 2]


def test_a_page_elsewhere_is_not_asked_for(room: Room, github: GitHubServer) -> None:
    client = room.app()
    link = '<http://evil.example/api/v3/steal>; rel="next"'
    page = {"total_count": 2, "jobs": [{"id": 1}]}
    github.faults.append(Fault(f"GET {RUN}/jobs", status=200, headers={"Link": link}, body=page))
    assert len(list(client.pages(f"{RUN}/jobs", ACTIONS, action="list", items="jobs"))) == 1


def test_a_write_is_not_redirected_to_another_host(room: Room, github: GitHubServer) -> None:
    headers = {"Location": "http://localhost:1/elsewhere"}
    github.faults.append(Fault("POST .*/check-runs", status=307, headers=headers))
    with pytest.raises(ForgeUnreachableError, match="must not go"):
        create(room.app())


def test_a_read_loses_its_token_on_the_way_to_another_host(
    room: Room, github: GitHubServer
) -> None:
    port = github.server_address[1]
    headers = {"Location": f"http://localhost:{port}/api/v3/meta"}
    github.faults.append(Fault(f"GET {RUN}", status=302, headers=headers))
    with pytest.raises(ForgeError):
        look(room.app())
    assert "authorization" not in github.requests[-1].headers


@pytest.mark.parametrize("mode", [0o644, 0o620])
def test_a_key_file_that_others_may_use_is_refused(room: Room, mode: int) -> None:
    key = room.key_file()
    key.chmod(mode)
    sender = room.sender()
    with pytest.raises(ConfigError, match="open to other users"):
        AppCredentials("1", key, sender).authorize(APP)


def test_a_bad_key_is_refused_without_showing_it(room: Room, tmp_path: Path) -> None:
    key = tmp_path / "bad.pem"
    key.write_text("-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n")
    key.chmod(0o600)
    with pytest.raises(ConfigError, match="RSA key") as caught:
        AppCredentials("1", key, room.sender()).authorize(APP)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_changed_token_file_is_used_after_a_refusal(room: Room, github: GitHubServer) -> None:
    github.state.add_run()
    client = room.plain()
    look(client)
    with github.lock:
        github.state.tokens.clear()
    with pytest.raises(ForgeError, match="401"):
        look(client)
    assert len(github.asked(f"GET {RUN}")) == 2  # the same token again would be of no use
    (room.folder / "token").write_text(github.state.plain_token())
    look(client)


def test_no_secret_is_in_errors_or_logs(
    room: Room, github: GitHubServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    github.state.add_run()
    client = room.app()
    texts = []
    for fault in (Fault(f"GET {RUN}", 502, count=9), Fault(f"GET {RUN}", is_cut=True, count=9)):
        github.faults[:] = [fault]
        with pytest.raises(ForgeError) as caught:
            look(client)
        texts += [str(caught.value), repr(caught.value)]
    texts += [repr(client.credentials.authorize(ACTIONS)), caplog.text]
    secrets = [*github.state.tokens, room.key_file().read_text().splitlines()[1]]
    for text in texts:
        assert not any(secret in text for secret in secrets)


def test_signatures_and_tokens_are_masked() -> None:
    text = "url: /blob/x?sv=1&sig=abc%2Bdef%3D&se=2 Bearer eyJhbGciOi ghs_secret123 token=xyz"
    shown = masked(text)
    assert "abc" not in shown
    assert "eyJ" not in shown
    assert "secret123" not in shown
    assert "xyz" not in shown
    assert shown_url("https://h/p?sig=abc#f") == "https://h/p"


def test_a_connection_is_made_through_the_proxy_of_the_environment() -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        seen: list[bytes] = []

        def accept() -> None:
            connection, _ = proxy.accept()
            with connection:
                seen.append(connection.recv(1000))

        thread = threading.Thread(target=accept)
        thread.start()
        os.environ["HTTPS_PROXY"] = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        try:
            sender = Sender("https://ghe.invalid/api/v3", Transport(), pause=lambda _: True)
            with pytest.raises(ForgeUnreachableError):
                sender.send(Call("GET", "/meta"), Authorization("Bearer x", "token"))
        finally:
            del os.environ["HTTPS_PROXY"]
        thread.join(20)
    assert seen[0].startswith(b"CONNECT ghe.invalid:443")


def test_addresses_of_github_and_enterprise_servers() -> None:
    site = Site.of("https://github.com/acme/bsp.git")
    assert (site.api, site.repository) == ("https://api.github.com", "acme/bsp")
    assert site.token_issuer == "https://token.actions.githubusercontent.com"
    server = Site.of("https://git.acme.example/acme")
    assert (server.api, server.repository) == ("https://git.acme.example/api/v3", "")
    assert server.token_issuer == "https://git.acme.example/_services/token"
    assert server.is_server
    cloud = Site.of("https://acme.ghe.com/acme/bsp")
    assert cloud.api == "https://api.acme.ghe.com"
    assert not cloud.is_server
    assert server.covers("ACME/any")
    assert not server.covers("acme2/any")
    assert not server.covers("acme/a/b")
    assert not site.covers("acme/other")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "github.com/acme",
        "http://github.com/acme",
        "https://github.com",
        "https://github.com/",
        "https://github.com/a/b/c",
        "https://user:pass@github.com/acme",
        "https://github.com/acme/..",
        "https://github.com/acme?x=1",
        "https://github.com:99999/acme",
        "ftp://github.com/acme",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Site.of(url)
    assert "pass" not in caught.value.message


def test_only_githubs_own_results_service_is_trusted() -> None:
    site = Site.of("https://github.com/acme/bsp")
    assert site.serves_results("https://results-receiver.actions.githubusercontent.com/")
    for url in (
        "http://results-receiver.actions.githubusercontent.com/",
        "https://evil.example/",
        "https://actions.githubusercontent.com.evil.example/",
        "https://x.actions.githubusercontent.com:8443/",
        "http://127.0.0.1:1/",
        "http://[",
    ):
        assert not site.serves_results(url)
    assert not Site.of("https://git.acme.example/acme").serves_results("https://git.acme.example/")


def test_names_of_repositories_stay_within_a_path() -> None:
    assert is_repository_name("acme/bsp.x-1_2")
    for name in ("acme", "acme/", "/x", "acme/..", "acme/x/y", "acme/x?y", "acme/x y", "ac me/x"):
        assert not is_repository_name(name)
