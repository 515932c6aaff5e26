"""HTTP below every call: retries, redirects, certificates, an end from another thread."""

from __future__ import annotations

import email.utils
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.gitlab.answers import PollOutcome, Verdict
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.transport import Limits, Transport, api_url
from smidr_ci.forges.tls import TlsFiles
from tests.fakes.clock import FakeClock
from tests.fakes.gitlab.server import Fault, GitLabServer, serve
from tests.fakes.gitlab.site import TOKEN, payload


class Waits:
    """A pause that takes no time and remembers."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        self.clock.advance(seconds)
        return False


@pytest.fixture
def server() -> Iterator[GitLabServer]:
    with serve() as running:
        running.state.add_runner(TOKEN)
        yield running


@pytest.fixture
def waits() -> Waits:
    return Waits(FakeClock())


@pytest.fixture
def client(server: GitLabServer, waits: Waits) -> RunnerClient:
    transport = Transport(server.url, clock=waits.clock, pause=waits)
    return RunnerClient(transport, token=TOKEN, system_id="s_0123456789ab")


def running_job(server: GitLabServer) -> tuple[int, str]:
    job = server.add_job(payload())
    server.change(job, state="running")
    return job.id, job.payload["token"]


def test_19_the_wait_that_the_server_asks_for_is_kept(
    server: GitLabServer, client: RunnerClient, waits: Waits
) -> None:
    server.faults.append(Fault("request", 429, {"Retry-After": "2"}))
    assert client.request_job().was_retried
    assert waits.seconds == [2.0]


def test_20_the_reset_time_of_a_rate_limit_wins_over_retry_after(
    server: GitLabServer, client: RunnerClient, waits: Waits
) -> None:
    moment = email.utils.formatdate(waits.clock.now().timestamp() + 3, usegmt=True)
    headers = {"RateLimit-ResetTime": moment, "Retry-After": "1"}
    server.faults.append(Fault("request", 429, headers))
    client.request_job()
    assert waits.seconds == [pytest.approx(3.0, abs=0.01)]


@pytest.mark.parametrize(
    ("headers", "longest"),
    [
        ({"Retry-After": "soon", "RateLimit-ResetTime": "never"}, 0.2),
        ({"Retry-After": "-5", "RateLimit-ResetTime": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.2),
        ({"Retry-After": "99999999"}, 3600),
    ],
)
def test_waits_that_make_no_sense_do_not_count(
    server: GitLabServer,
    client: RunnerClient,
    waits: Waits,
    headers: dict[str, str],
    longest: float,
) -> None:
    server.faults.append(Fault("request", 503, headers))
    assert client.request_job().outcome is PollOutcome.NOTHING
    assert len(waits.seconds) == 1
    assert waits.seconds[0] <= longest


def test_21_there_are_five_attempts_with_growing_pauses(
    server: GitLabServer, client: RunnerClient, waits: Waits
) -> None:
    server.faults.append(Fault("request", 502, count=9))
    poll = client.request_job()
    assert poll.outcome is PollOutcome.FAILED
    assert poll.is_healthy
    assert len(server.requests) == 5
    assert len({request.headers["x-request-id"] for request in server.requests}) == 1
    assert waits.seconds == [pytest.approx(wait, rel=0.5) for wait in (0.075, 0.15, 0.3, 0.6)]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 501, 511])
def test_other_answers_are_not_tried_again(
    server: GitLabServer, client: RunnerClient, status: int
) -> None:
    server.faults.append(Fault("request", status))
    client.request_job()
    assert len(server.requests) == 1


def test_22_a_patch_that_is_sent_again_is_whole(server: GitLabServer, client: RunnerClient) -> None:
    number, token = running_job(server)
    server.faults.append(Fault("patch", 500, count=2))
    data = bytes(range(256)) * 2000
    assert client.patch_trace(number, token, data, 0).verdict is Verdict.OK
    bodies = [request.body for request in server.asked("patch")]
    assert bodies == [data] * 3


@pytest.mark.parametrize("status", [307, 308])
def test_23_a_redirect_keeps_method_and_body(
    server: GitLabServer, client: RunnerClient, status: int
) -> None:
    number, token = running_job(server)
    target = f"{server.url}/api/v4/jobs/{number}"
    server.faults.append(Fault("update", status, {"Location": target}))
    assert client.update_job(number, token, "running").verdict is Verdict.OK
    first, second = server.requests
    assert (first.method, first.body) == (second.method, second.body)
    assert second.headers["job-token"] == token


@pytest.mark.parametrize("target", ["/api/v4/jobs/42", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_without_end_and_to_elsewhere_are_given_up(
    server: GitLabServer, client: RunnerClient, target: str
) -> None:
    number, token = running_job(server)
    server.faults.append(Fault("update", 307, {"Location": target}, count=100))
    assert client.update_job(number, token, "running").verdict is Verdict.FAILED
    assert len(server.requests) <= 10


@pytest.mark.parametrize(
    "body",
    [
        {"message": "text"},
        {"message": {"field": ["text"]}},
        "<Error><Code>x</Code><Message>text</Message></Error>",
        b"\xff\xfe text",
        "[" * 100_000,
        {"message": None},
        "",
    ],
)
def test_an_error_with_any_body_is_only_an_error(
    server: GitLabServer, client: RunnerClient, body: object
) -> None:
    server.faults.append(Fault("verify", 400, body=body))
    with pytest.raises(ForgeError, match="400"):
        client.verify()


def test_an_answer_that_is_cut_off_is_a_failure_of_the_network(
    server: GitLabServer, client: RunnerClient
) -> None:
    server.faults.append(Fault("verify", is_cut=True))
    with pytest.raises(ForgeUnreachableError):
        client.verify()


def test_the_reason_why_no_answer_came_is_short(waits: Waits) -> None:
    client = RunnerClient(Transport("http://127.0.0.1:9", pause=waits), token=TOKEN)
    message = client.request_job().message
    assert "no answer from the server: [Errno 111] Connection refused" in message


def test_every_exchange_is_counted(server: GitLabServer, waits: Waits) -> None:
    calls: list[tuple[str, str]] = []
    transport = Transport(server.url, pause=waits, on_call=lambda *call: calls.append(call))
    client = RunnerClient(transport, token=TOKEN, system_id="s_0123456789ab")
    server.faults.append(Fault("request", 500))
    client.request_job()
    server.is_down = True
    client.request_job()
    assert calls == [
        ("request-job", "500"),
        ("request-job", "204"),
        ("request-job", "unreachable"),
    ]


def test_a_long_poll_can_be_ended_from_another_thread(server: GitLabServer) -> None:
    transport = Transport(server.url)
    client = RunnerClient(transport, token=TOKEN, system_id="s_0123456789ab")
    client.request_job()
    server.long_poll_s = 60
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.request_job()))
    thread.start()
    server.wait_until(lambda: server.held_polls == 1)
    transport.end()
    thread.join(10)
    assert not thread.is_alive()
    assert answers[0].outcome is PollOutcome.FAILED
    assert client.request_job().outcome is PollOutcome.FAILED


def test_a_server_that_does_not_answer_in_time_is_given_up(server: GitLabServer) -> None:
    hold = threading.Event()
    server.faults.append(Fault("request", until=hold))
    transport = Transport(server.url, limits=Limits(headers_s=0.2))
    client = RunnerClient(transport, token=TOKEN, system_id="s_0123456789ab")
    assert client.request_job().outcome is PollOutcome.FAILED
    hold.set()


def test_24_what_netrc_has_for_the_host_is_not_sent(
    server: GitLabServer, client: RunnerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    client.request_job()
    assert "authorization" not in server.requests[0].headers


def test_a_proxy_of_the_environment_is_used(
    server: GitLabServer, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    client = RunnerClient(
        Transport("http://gitlab.invalid", pause=waits), token=TOKEN, system_id="s_0123456789ab"
    )
    client.request_job()
    assert server.requests[0].headers["host"] == "gitlab.invalid"


def test_addresses_become_the_address_of_the_api() -> None:
    assert api_url("https://h/") == "https://h/api/v4/"
    assert api_url(" https://h/ci/ ") == "https://h/api/v4/"
    assert api_url("https://h/gitlab//") == "https://h/gitlab/api/v4/"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext"
    subprocess.run(
        [*command.split(), "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "ca.pem", folder / "key.pem"


@pytest.fixture
def tls_server(server: GitLabServer, certificate: tuple[Path, Path]) -> GitLabServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def secure(server: GitLabServer) -> str:
    return server.url.replace("http://", "https://")


def test_a_certificate_of_the_operators_is_trusted_once_it_is_there(
    tls_server: GitLabServer, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "127.0.0.1.crt").write_bytes(certificate[0].read_bytes())
    tls = TlsFiles.discover(folder, secure(tls_server))
    assert tls.ca == folder / "127.0.0.1.crt"
    client = RunnerClient(
        Transport(secure(tls_server), tls=tls), token=TOKEN, system_id="s_0123456789ab"
    )
    assert client.request_job().outcome is PollOutcome.NOTHING


def test_an_unknown_certificate_is_refused_and_no_reason_to_go_on_polling(
    tls_server: GitLabServer,
) -> None:
    client = RunnerClient(Transport(secure(tls_server)), token=TOKEN)
    poll = client.request_job()
    assert poll.outcome is PollOutcome.MISCONFIGURED
    assert "--tls-ca-file" in poll.message
    assert tls_server.requests == []


def test_a_certificate_that_changes_is_read_again(
    tls_server: GitLabServer, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("nothing yet")
    client = RunnerClient(
        Transport(secure(tls_server), tls=TlsFiles(ca=ca)), token=TOKEN, system_id="s_0123456789ab"
    )
    assert client.request_job().outcome is PollOutcome.MISCONFIGURED
    ca.write_bytes(certificate[0].read_bytes())
    assert client.request_job().outcome is PollOutcome.NOTHING
