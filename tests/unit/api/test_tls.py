"""TLS: what is wrong with a file is said at once, and mTLS lets in whom it should."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smidr_ci.api.tls import (
    ClientTls,
    ServerTls,
    client_token,
    load_client_tls,
    load_server_tls,
    names_of_auth_context,
    names_of_certificate,
)
from smidr_ci.config.agent import load_agent
from smidr_ci.config.api import Api
from smidr_ci.config.problems import ConfigProblemsError
from smidr_ci.errors import ConfigError, UsageError
from tests.fakes.certificates import Authority, write_key

NOW = datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def served(
    certificate: Path, key: Path, client_ca: Path | None = None, now: datetime = NOW
) -> ServerTls:
    settings = Api(tls_certificate_file=certificate, tls_key_file=key, client_ca_file=client_ca)
    loaded = load_server_tls(settings, now)
    assert loaded is not None
    return loaded


def talk(server: ServerTls, client: ClientTls, host: str = "localhost") -> tuple[str, ...]:
    """One handshake; the names that the server sees. Raises what the client or the server says."""
    ours, theirs = socket.socketpair()
    failure: list[Exception] = []
    names: list[tuple[str, ...]] = []

    def serve() -> None:
        try:
            with server.context.wrap_socket(ours, server_side=True) as sock:
                names.append(names_of_certificate(sock.getpeercert()))
                sock.sendall(b"x")
        except OSError as error:
            failure.append(error)
            ours.close()

    ours.settimeout(30)
    theirs.settimeout(30)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.context.wrap_socket(theirs, server_hostname=host) as sock:
            sock.recv(1)
    finally:
        theirs.close()
        thread.join(timeout=30)
    if failure:
        raise failure[0]
    return names[0]


def test_without_files_there_is_no_tls() -> None:
    assert load_server_tls(Api(), NOW) is None


def test_a_client_that_trusts_the_authority_gets_through(authority: Authority) -> None:
    certificate, key, _ = authority.issue("server")
    server = served(certificate, key)
    assert talk(server, load_client_tls(authority.path)) == ()
    assert server.chain == certificate.read_bytes()
    assert b"PRIVATE KEY" in server.key
    assert "PRIVATE" not in repr(server)


def test_a_client_that_does_not_trust_it_refuses(authority: Authority, tmp_path: Path) -> None:
    certificate, key, _ = authority.issue("server")
    for client in (load_client_tls(), load_client_tls(Authority(tmp_path / "other").path)):
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            talk(served(certificate, key), client)


def test_another_hosts_certificate_is_refused(authority: Authority) -> None:
    certificate, key, _ = authority.issue("server")
    with pytest.raises(ssl.SSLError, match="Hostname mismatch"):
        talk(served(certificate, key), load_client_tls(authority.path), "other.example.com")


def test_old_tls_is_refused(authority: Authority) -> None:
    certificate, key, _ = authority.issue("server")
    client = load_client_tls(authority.path)
    assert served(certificate, key).context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client.context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_with_a_client_ca_the_server_learns_the_clients_names(authority: Authority) -> None:
    certificate, key, _ = authority.issue("server")
    server = served(certificate, key, authority.path)
    mine, my_key, _ = authority.issue("ops", alternative=("ops.example.com",), is_client=True)
    names = talk(server, load_client_tls(authority.path, mine, my_key))
    assert names == ("ops", "ops.example.com")


@pytest.mark.parametrize("who", ["nobody", "a stranger", "expired"])
def test_with_a_client_ca_nobody_else_gets_in(
    authority: Authority, tmp_path: Path, who: str
) -> None:
    certificate, key, _ = authority.issue("server")
    server = served(certificate, key, authority.path)
    client = load_client_tls(authority.path)
    if who != "nobody":
        signer = Authority(tmp_path / "other") if who == "a stranger" else authority
        days = -0.5 if who == "expired" else 90
        mine, my_key, _ = signer.issue("ops", is_client=True, days=days)
        client = load_client_tls(authority.path, mine, my_key)
    with pytest.raises(OSError, match=r"(?i)alert|certificate|reset|EOF|pipe"):
        talk(server, client)


def test_an_expired_certificate_is_named_with_its_day(authority: Authority) -> None:
    certificate, key, _ = authority.issue("server", days=10)
    with pytest.raises(ConfigError, match="has expired on") as caught:
        served(certificate, key, now=NOW + timedelta(days=11))
    assert caught.value.where == str(certificate)


def test_a_certificate_of_the_future_points_at_the_clock(authority: Authority) -> None:
    certificate, key, _ = authority.issue("server", starts_in_days=2)
    with pytest.raises(ConfigError, match="not valid before") as caught:
        served(certificate, key)
    assert "clock" in caught.value.hint


@pytest.mark.parametrize(("days", "is_told"), [(13.9, True), (14.1, False)])
def test_the_status_warns_two_weeks_before_the_end(
    authority: Authority, days: float, is_told: bool
) -> None:
    certificate, key, _ = authority.issue("server", days=90)
    server = served(certificate, key)
    problem = server.problem(server.expires - timedelta(days=days))
    assert bool(problem) is is_told
    if is_told:
        assert str(certificate) in problem
        assert "renew" in problem
    assert "has expired" in server.problem(server.expires)


def test_a_key_of_another_certificate_is_named(authority: Authority) -> None:
    certificate, _, _ = authority.issue("server")
    _, key, _ = authority.issue("other")
    with pytest.raises(ConfigError, match="does not belong to the certificate") as caught:
        served(certificate, key)
    assert caught.value.where == str(key)


def test_a_key_with_a_passphrase_does_not_ask_for_it(authority: Authority) -> None:
    certificate, path, key = authority.issue("server")
    write_key(path, key, b"secret")
    with pytest.raises(ConfigError, match="has a passphrase"):
        served(certificate, path)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_read_is_refused(authority: Authority, mode: int) -> None:
    certificate, key, _ = authority.issue("server")
    key.chmod(mode)
    with pytest.raises(ConfigError, match="open to other users") as caught:
        served(certificate, key)
    assert caught.value.hint == f"chmod 600 {key}"


def test_the_settings_point_at_the_line_of_an_open_key(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key, _ = authority.issue("server")
    key.chmod(0o644)
    path = tmp_path / "agent.yaml"
    path.write_text(f"api:\n  tls_certificate_file: {certificate}\n  tls_key_file: {key}\n")
    with pytest.raises(ConfigProblemsError, match="open to other users") as caught:
        load_agent(path)
    assert caught.value.where == f"{path}:3:17"


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nx\n"]
)
@pytest.mark.parametrize("which", ["certificate", "key", "ca"])
def test_a_file_with_something_else_is_named(
    authority: Authority, content: bytes, which: str
) -> None:
    certificate, key, _ = authority.issue("server")
    path = {"certificate": certificate, "key": key, "ca": authority.path}[which]
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        served(certificate, key, authority.path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_named(authority: Authority, which: int) -> None:
    certificate, key, _ = authority.issue("server")
    missing = (certificate, key)[which]
    missing.unlink()
    with pytest.raises(ConfigError) as caught:
        served(certificate, key)
    assert caught.value.where == str(missing)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tls_key_file: /x", "tls_certificate_file"),
        ("tls_certificate_file: /x", "tls_key_file"),
        ("client_ca_file: /x", "tls_certificate_file"),
        ("client_certificates: {a: read}", "client_ca_file"),
        ("client_certificates: {a: root}", "client_certificates"),
        ("address: 50051", "address"),
        ("address: http://x:1", "address"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(f"api:\n  {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_agent(path)
    assert key in str(caught.value)


def test_a_clients_certificate_needs_its_key(authority: Authority) -> None:
    certificate, key, _ = authority.issue("ops", is_client=True)
    with pytest.raises(UsageError, match="go together"):
        load_client_tls(certificate=certificate)
    client = load_client_tls(authority.path, certificate, key)
    assert client.chain == certificate.read_bytes()
    assert client.ca == authority.path.read_bytes()
    assert repr(client) == "ClientTls(...)"


def test_grpcs_names_are_those_of_ssl() -> None:
    context = {
        "x509_common_name": [b"ops"],
        "x509_subject_alternative_name": [b"ops", b"ops.example.com"],
        "transport_security_type": [b"ssl"],
    }
    assert names_of_auth_context(context) == ("ops", "ops.example.com")
    assert names_of_auth_context({}) == ()
    assert names_of_certificate(None) == ()


def test_a_client_takes_its_token_from_a_file_before_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("smidr_file\n")
    path.chmod(0o600)
    environ = {"SMIDR_TOKEN": "smidr_environment "}
    assert client_token(environ, path) == "smidr_file"
    assert client_token(environ) == "smidr_environment"
    assert client_token({}) is None


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("smidr_secret\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="open to other users") as caught:
        client_token({}, path)
    assert "smidr_secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["a\nb", "ü", "x" * 300, "a\tb"])
def test_what_can_be_no_token_is_not_sent(text: str) -> None:
    with pytest.raises(ConfigError, match="holds no token") as caught:
        client_token({"SMIDR_TOKEN": text})
    assert text not in str(caught.value)
