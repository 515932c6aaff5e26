"""HTTP over TLS, with tokens and with clients' certificates."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from smidr_ci.api.callers import Scope
from smidr_ci.api.client import StartRequest
from smidr_ci.api.http.connection import Patience
from smidr_ci.api.local_client import LocalClient
from smidr_ci.api.tls import load_client_tls
from smidr_ci.config.api import Api
from smidr_ci.errors import AgentUnreachableError, ForbiddenError
from smidr_ci.home import Home
from tests.fakes.certificates import Authority
from tests.fakes.http_agent import HttpAgent

ORDER = StartRequest(customer="acme", config_text="name: x\n", config_name="smidr.yaml")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def settings_for(authority: Authority, *, asks_clients: bool = False) -> Api:
    certificate, key, _ = authority.issue("server")
    return Api(
        tls_certificate_file=certificate,
        tls_key_file=key,
        client_ca_file=authority.path if asks_clients else None,
        client_certificates={"reader": "read"} if asks_clients else {},
    )


def test_a_token_travels_over_tls(authority: Authority, tmp_path: Path) -> None:
    with HttpAgent(Home(tmp_path / "home"), settings=settings_for(authority)) as served:
        tls = load_client_tls(authority.path).context
        client = LocalClient(served.url, served.token(Scope.BUILD), tls)
        build_id = client.start(ORDER).build_id
        served.log(build_id, b"x" * 1_000_000)

        def finish() -> None:
            served.agent.finish(build_id)

        ending = threading.Timer(0.1, finish)
        ending.start()
        followed = b"".join(chunk for _, chunk in client.logs(build_id, follow=True))
        ending.join()
        assert followed == b"x" * 1_000_000


def test_a_server_that_the_authority_does_not_know_is_not_talked_to(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "other")
    with HttpAgent(Home(tmp_path / "home"), settings=settings_for(other)) as served:
        tls = load_client_tls(authority.path).context
        with pytest.raises(AgentUnreachableError, match="certificate verify failed"):
            LocalClient(served.url, "t", tls).status()


def test_a_clients_certificate_tells_who_calls(authority: Authority, tmp_path: Path) -> None:
    settings = settings_for(authority, asks_clients=True)
    with HttpAgent(Home(tmp_path / "home"), settings=settings) as served:
        for name, may_build in (("builder", True), ("reader", False)):
            certificate, key, _ = authority.issue(name, is_client=True)
            tls = load_client_tls(authority.path, certificate, key).context
            client = LocalClient(served.url, tls=tls)
            assert client.status().version == "1.2.3"
            if may_build:
                record = client.start(ORDER)
                assert record.requested_by == "certificate builder"
            else:
                with pytest.raises(ForbiddenError):
                    client.start(ORDER)
        nobody = LocalClient(served.url, tls=load_client_tls(authority.path).context)
        with pytest.raises(AgentUnreachableError):
            nobody.status()


def test_handshakes_that_never_end_keep_nobody_out(authority: Authority, tmp_path: Path) -> None:
    patience = Patience(headers_s=1.0)
    settings = settings_for(authority)
    home = Home(tmp_path / "home")
    with HttpAgent(home, settings=settings, patience=patience) as served, ExitStack() as stack:
        half = [stack.enter_context(closing(served.connect())) for _ in range(200)]
        half[0].sendall(b"\x16\x03\x01")
        tls = load_client_tls(authority.path).context
        client = LocalClient(served.url, served.token(Scope.READ), tls)
        assert client.status().version == "1.2.3"
        for connection in (half[0], half[-1]):
            connection.settimeout(30)
            try:
                assert connection.recv(100) == b""
            except ConnectionResetError:
                continue
