"""Who is let in, as whom, and what a refusal tells."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.listen import take_agent_lock
from smidr_ci.api.local_token import (
    make_local_token,
    publish_local_token,
    read_local_token,
    withdraw_local_token,
)
from smidr_ci.api.secret import new_secret
from smidr_ci.api.security import Security, Transport
from smidr_ci.api.tokens import TokenStore
from smidr_ci.builds.database import Database
from smidr_ci.config.api import Api
from smidr_ci.errors import (
    BusyError,
    ConflictError,
    ForbiddenError,
    HostError,
    UnauthenticatedError,
)
from smidr_ci.home import Home
from tests.fakes.clock import FakeClock

UID = 1234
HERE = Transport.tcp("127.0.0.1")
THERE = Transport.tcp("203.0.113.5")
LOCAL = make_local_token()


class Bench:
    def __init__(self, database: Database) -> None:
        self.clock = FakeClock()
        self.tokens = TokenStore(database, self.clock)

    def security(self, settings: Api | None = None) -> Security:
        return Security(self.tokens, settings or Api(), UID, local_token=LOCAL, clock=self.clock)

    def ask(
        self,
        token: str | None,
        transport: Transport = THERE,
        certificate: Sequence[str] | None = None,
        settings: Api | None = None,
    ) -> Caller:
        return self.security(settings).authenticate(
            token, transport=transport, certificate=certificate
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(Database(tmp_path / "smidr.db")) as database:
        yield Bench(database)


def with_ca(**more: object) -> Api:
    return Api.model_validate(
        {
            "tls_certificate_file": "/x/server.pem",
            "tls_key_file": "/x/server.key",
            "client_ca_file": "/x/ca.pem",
            **more,
        }
    )


@pytest.mark.parametrize("uid", [UID, 0])
def test_the_agents_user_and_root_may_everything_on_the_unix_socket(bench: Bench, uid: int) -> None:
    caller = bench.ask(None, Transport.unix(uid))
    assert caller == Caller(f"uid {uid}", Scope.ADMIN, is_local=True)


def test_nobody_else_is_let_in_on_the_unix_socket_not_even_with_a_token(bench: Bench) -> None:
    _, secret = bench.tokens.create("ci", Scope.ADMIN)
    for token in (None, secret, LOCAL):
        with pytest.raises(UnauthenticatedError, match="you are uid 4321"):
            bench.ask(token, Transport.unix(4321))


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("transport", [HERE, THERE])
def test_a_token_gives_its_scope_and_no_more(
    bench: Bench, scope: Scope, transport: Transport
) -> None:
    _, secret = bench.tokens.create("ci", scope)
    caller = bench.ask(secret, transport)
    assert caller == Caller("token ci", scope)
    assert not caller.is_local
    wider = list(Scope)[list(Scope).index(scope) + 1 :]
    for needed in wider:
        with pytest.raises(ForbiddenError, match=f"needs the scope `{needed}`"):
            caller.require(needed)
    caller.require(scope)


@pytest.mark.parametrize("transport", [HERE, THERE, Transport.tcp(""), Transport.tcp("unix:")])
def test_tcp_without_a_token_is_nobody_even_on_this_host(
    bench: Bench, transport: Transport
) -> None:
    with pytest.raises(UnauthenticatedError):
        bench.ask(None, transport)


def test_every_bad_token_gets_one_answer(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    known, _ = bench.tokens.create("known", Scope.READ)
    _, revoked = bench.tokens.create("old", Scope.READ)
    bench.tokens.revoke("old")
    _, expired = bench.tokens.create("short", Scope.READ, bench.clock.now() + timedelta(hours=1))
    bench.clock.advance(3600)
    tried = ["", "hello", "smidr_", "x" * 100_000, new_secret(known.token_id), revoked, expired,
             new_secret("00000000"), make_local_token()]  # fmt: skip
    security = bench.security()
    answers = set()
    for token in tried:
        with pytest.raises(UnauthenticatedError) as caught:
            security.authenticate(token, transport=HERE)
        answers.add(str(caught.value))
    assert len(answers) == 1
    logged = {record.getMessage() for record in caplog.records}
    assert len(logged) >= 6  # the log knows better
    for token in (secret for secret in tried if secret.startswith("smidr_") and len(secret) > 6):
        assert token.rsplit("_", 1)[1] not in "".join((*logged, *answers))


def test_who_fails_too_often_is_neither_answered_nor_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    security = bench.security()
    for _ in range(10):
        with pytest.raises(UnauthenticatedError):
            security.authenticate(new_secret("00000000"), transport=THERE)
    for _ in range(500):
        with pytest.raises(BusyError, match="too many failed attempts"):
            security.authenticate(new_secret("00000000"), transport=THERE)
    assert len(caplog.records) == 10


def test_a_good_token_passes_where_others_fail_too_often(bench: Bench) -> None:
    # Behind one proxy or on one host, a stranger must not lock anybody out.
    _, secret = bench.tokens.create("ci", Scope.READ)
    security = bench.security()
    for _ in range(50):
        with pytest.raises((UnauthenticatedError, BusyError)):
            security.authenticate("wrong", transport=THERE)
    assert security.authenticate(secret, transport=THERE).name == "token ci"


def test_each_caller_has_requests_of_its_own(bench: Bench) -> None:
    _, one = bench.tokens.create("one", Scope.READ)
    _, two = bench.tokens.create("two", Scope.READ)
    security = bench.security(Api(requests_per_minute=3))
    for _ in range(3):
        security.authenticate(one, transport=THERE)
    with pytest.raises(BusyError, match="too many requests"):
        security.authenticate(one, transport=HERE)
    security.authenticate(two, transport=THERE)
    bench.clock.advance(20)
    security.authenticate(one, transport=THERE)


def test_the_unix_socket_has_no_limit(bench: Bench) -> None:
    security = bench.security(Api(requests_per_minute=1))
    for _ in range(50):
        security.authenticate(None, transport=Transport.unix(UID))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_the_local_token_is_for_this_host(bench: Bench, address: str) -> None:
    caller = bench.ask(LOCAL, Transport.tcp(address))
    assert caller == Caller(f"uid {UID}", Scope.ADMIN)


@pytest.mark.parametrize("address", ["203.0.113.5", "::ffff:203.0.113.5", "2001:db8::1", "", "x"])
def test_the_local_token_opens_nothing_from_elsewhere(bench: Bench, address: str) -> None:
    with pytest.raises(UnauthenticatedError):
        bench.ask(LOCAL, Transport.tcp(address))


def test_without_a_local_token_none_is_right(bench: Bench) -> None:
    security = Security(bench.tokens, Api(), UID, clock=bench.clock)
    with pytest.raises(UnauthenticatedError):
        security.authenticate(LOCAL, transport=HERE)


def test_a_certificate_may_build_unless_the_operator_says_otherwise(bench: Bench) -> None:
    settings = with_ca(client_certificates={"ops": "admin", "viewer.example.com": "read"})
    scopes = [
        bench.ask(None, THERE, names, settings)
        for names in (["runner-7"], ["ops"], ["laptop", "viewer.example.com"])
    ]
    assert scopes == [
        Caller("certificate runner-7", Scope.BUILD),
        Caller("certificate ops", Scope.ADMIN),
        Caller("certificate viewer.example.com", Scope.READ),
    ]


def test_names_in_certificates_are_compared_whole(bench: Bench) -> None:
    settings = with_ca(client_certificates={"ops": "admin"})
    for name in ("OPS", "ops ", "ops.example.com", "o", "ops\x00x"):
        assert bench.ask(None, THERE, [name], settings).scope is Scope.BUILD


def test_a_certificate_means_nothing_without_a_client_ca(bench: Bench) -> None:
    with pytest.raises(UnauthenticatedError):
        bench.ask(None, THERE, ["ops"])


def test_a_bad_token_is_not_saved_by_a_certificate(bench: Bench) -> None:
    with pytest.raises(UnauthenticatedError):
        bench.ask("wrong", THERE, ["ops"], with_ca(client_certificates={"ops": "admin"}))


def test_a_token_counts_before_a_certificate(bench: Bench) -> None:
    _, secret = bench.tokens.create("viewer", Scope.READ)
    settings = with_ca(client_certificates={"ops": "admin"})
    assert bench.ask(secret, THERE, ["ops"], settings).scope is Scope.READ


class LocalBench:
    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700)
        self.home = Home(root)
        self.token = make_local_token()

    def publish(self, *addresses: str) -> None:
        publish_local_token(self.home, self.token, addresses)


@pytest.fixture
def local(tmp_path: Path) -> LocalBench:
    return LocalBench(tmp_path / "home")


def test_a_client_of_the_same_user_finds_the_local_token(local: LocalBench) -> None:
    with take_agent_lock(local.home):
        local.publish("127.0.0.1:50051", "[::1]:50051")
        assert read_local_token(local.home, "127.0.0.1:50051") == local.token
        assert read_local_token(local.home, "[::1]:50051") == local.token
        assert read_local_token(local.home, "localhost:50051") == local.token
        assert read_local_token(local.home, "localhost:50052") is None
        assert stat.S_IMODE(local.home.local_token.stat().st_mode) == 0o600


@pytest.mark.parametrize("address", ["127.0.0.1:50052", "203.0.113.5:50051", "", "127.0.0.1"])
def test_the_local_token_goes_to_no_other_address(local: LocalBench, address: str) -> None:
    with take_agent_lock(local.home):
        local.publish("127.0.0.1:50051")
        assert read_local_token(local.home, address) is None


def test_nobody_who_listens_after_the_agents_death_gets_it(local: LocalBench) -> None:
    with take_agent_lock(local.home):
        local.publish("127.0.0.1:50051")
    assert local.home.local_token.is_file()  # as after kill -9
    assert read_local_token(local.home, "127.0.0.1:50051") is None


def test_a_local_token_that_others_can_read_is_not_used(local: LocalBench) -> None:
    with take_agent_lock(local.home):
        local.publish("127.0.0.1:50051")
        local.home.local_token.chmod(0o644)
        with pytest.raises(HostError, match="open to other users"):
            read_local_token(local.home, "127.0.0.1:50051")


@pytest.mark.parametrize("content", ["", "x", "smidr_00000000_" + "a" * 43 + "\n127.0.0.1:1\n"])
def test_anything_else_in_its_file_is_no_token(local: LocalBench, content: str) -> None:
    with take_agent_lock(local.home):
        local.home.local_token.write_text(content)
        local.home.local_token.chmod(0o600)
        assert read_local_token(local.home, "127.0.0.1:1") is None


def test_a_link_in_its_place_is_not_followed(local: LocalBench, tmp_path: Path) -> None:
    with take_agent_lock(local.home):
        (tmp_path / "other").write_text(f"{local.token}\n127.0.0.1:1\n")
        local.home.local_token.symlink_to(tmp_path / "other")
        with pytest.raises(HostError):
            read_local_token(local.home, "127.0.0.1:1")


def test_no_agent_no_token(local: LocalBench) -> None:
    assert read_local_token(local.home, "127.0.0.1:1") is None
    withdraw_local_token(local.home)


def test_a_second_agent_is_told_who_runs(local: LocalBench) -> None:
    lock = take_agent_lock(local.home)
    with pytest.raises(ConflictError, match=f"an agent runs already, pid {os.getpid()}"):
        take_agent_lock(local.home, FakeClock())
    lock.release()
    take_agent_lock(local.home).release()
