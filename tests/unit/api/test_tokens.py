"""Tokens: only a hash is kept, and none opens anything after its end."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.api.callers import Scope
from smidr_ci.api.secret import PATTERN, id_of_secret, new_id, new_secret
from smidr_ci.api.tokens import TokenStore
from smidr_ci.builds.database import Database
from smidr_ci.errors import ConflictError, NotFoundError, UsageError
from tests.fakes.clock import FakeClock


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.database = Database(path)
        self.store = TokenStore(self.database, self.clock)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "smidr.db")
    with closing(bench.database):
        yield bench


def test_a_secret_has_256_random_bits_and_a_form_that_scanners_know(bench: Bench) -> None:
    secrets = {bench.store.create(f"t{n}", Scope.READ)[1] for n in range(20)}
    assert len(secrets) == 20
    for secret in secrets:
        assert re.fullmatch(PATTERN, secret)
        body = secret.rsplit("_", 1)[1]
        assert 62 ** len(body) >= 2**256
    letters = set("".join(secret.rsplit("_", 1)[1] for secret in secrets))
    assert len(letters) > 55  # of 62; 860 draws miss one with a chance of 1 in 10^6


def test_the_database_never_sees_the_secret(bench: Bench) -> None:
    _, secret = bench.store.create("ci", Scope.BUILD)
    assert bench.store.check(secret)
    bench.database.close()
    with closing(sqlite3.connect(bench.path)) as raw:
        dump = "\n".join(raw.iterdump())
    assert "ci" in dump
    assert secret not in dump
    assert secret.rsplit("_", 1)[1] not in dump


def test_the_database_is_its_owners_alone(bench: Bench) -> None:
    bench.store.create("ci", Scope.READ)
    files = list(bench.path.parent.glob("smidr.db*"))
    assert len(files) > 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_good_token_tells_its_scope(bench: Bench) -> None:
    made, secret = bench.store.create("ci", Scope.BUILD)
    found = bench.store.check(secret)
    assert found is not None
    assert (found.token_id, found.name, found.scope) == (made.token_id, "ci", Scope.BUILD)


def test_a_token_of_the_right_id_and_another_secret_is_refused(bench: Bench) -> None:
    info, _ = bench.store.create("ci", Scope.ADMIN)
    found, why = bench.store.examine(new_secret(info.token_id))
    assert found is None
    assert "wrong secret" in why


def test_reasons_differ_for_the_log_and_hold_no_secret(bench: Bench) -> None:
    info, revoked = bench.store.create("old", Scope.READ)
    bench.store.revoke("old")
    soon = bench.clock.now() + timedelta(hours=1)
    _, expired = bench.store.create("short", Scope.READ, soon)
    bench.clock.advance(3600)
    tried = [revoked, expired, new_secret(info.token_id), new_secret("00000000"), "hello"]
    reasons = [bench.store.examine(secret)[1] for secret in tried]
    assert all(bench.store.check(secret) is None for secret in tried)
    assert len(set(reasons)) == len(tried)
    assert "revoked" in reasons[0]
    assert "expired" in reasons[1]
    for secret, reason in zip(tried, reasons, strict=True):
        assert secret not in reason
        assert secret.rsplit("_", 1)[-1] not in reason


def test_a_token_is_good_until_the_moment_it_expires(bench: Bench) -> None:
    _, secret = bench.store.create("ci", Scope.READ, bench.clock.now() + timedelta(seconds=10))
    bench.clock.advance(9.9)
    assert bench.store.check(secret)
    bench.clock.advance(0.1)
    assert bench.store.check(secret) is None


def test_a_token_that_has_expired_already_is_not_made(bench: Bench) -> None:
    with pytest.raises(UsageError, match="expired already"):
        bench.store.create("ci", Scope.READ, bench.clock.now())
    assert bench.store.list() == []


def test_another_process_sees_a_revocation_at_once(bench: Bench) -> None:
    _, secret = bench.store.create("ci", Scope.READ)
    assert bench.store.check(secret)
    with closing(Database(bench.path)) as other:
        TokenStore(other, bench.clock).revoke("ci")
    assert bench.store.check(secret) is None


def test_the_last_use_is_noted_once_a_minute(bench: Bench) -> None:
    _, secret = bench.store.create("ci", Scope.READ)

    def last_used() -> float | None:
        moment = bench.store.list()[0].last_used
        return (moment - bench.store.list()[0].created).total_seconds() if moment else None

    assert last_used() is None
    for seconds, noted in ((5, 5.0), (30, 5.0), (29, 5.0), (1, 65.0), (30, 65.0)):
        bench.clock.advance(seconds)
        assert bench.store.check(secret)
        assert last_used() == noted


def test_a_refused_token_counts_as_no_use(bench: Bench) -> None:
    info, secret = bench.store.create("ci", Scope.READ)
    bench.store.check(new_secret(info.token_id))
    bench.store.revoke("ci")
    bench.store.check(secret)
    assert bench.store.list()[0].last_used is None


def test_a_name_belongs_to_one_good_token(bench: Bench) -> None:
    first, _ = bench.store.create("ci", Scope.READ)
    with pytest.raises(ConflictError, match="there is a token ci already"):
        bench.store.create("ci", Scope.ADMIN)
    bench.store.revoke("ci")
    second, _ = bench.store.create("ci", Scope.BUILD)
    assert [info.token_id for info in bench.store.list() if not info.revoked] == [second.token_id]
    assert first.token_id != second.token_id


def test_only_one_of_many_at_once_gets_a_name(bench: Bench) -> None:
    start = threading.Barrier(6)

    def make() -> bool:
        start.wait(timeout=30)
        try:
            bench.store.create("ci", Scope.READ)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        made = [future.result() for future in [pool.submit(make) for _ in range(6)]]
    assert made.count(True) == 1


def test_what_is_not_there_can_not_be_revoked(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="no token 'nobody'"):
        bench.store.revoke("nobody")


def test_revoking_by_id_ends_that_token_and_no_other(bench: Bench) -> None:
    first, one = bench.store.create("a", Scope.READ)
    _, other = bench.store.create(first.token_id, Scope.READ)  # a name like the other's id
    assert bench.store.revoke(first.token_id).name == "a"
    assert bench.store.check(one) is None
    assert bench.store.check(other) is not None


def test_an_agent_knows_whether_anybody_could_come(bench: Bench) -> None:
    assert not bench.store.has_any()
    bench.store.create("ci", Scope.READ)
    assert bench.store.has_any()
    bench.store.revoke("ci")
    assert not bench.store.has_any()


@given(st.text(max_size=100))
def test_text_of_another_form_has_no_id(text: str) -> None:
    assert id_of_secret(text) is None or re.fullmatch(PATTERN, text)


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}x", "X{}", "{}\x00"])
def test_a_token_with_something_added_is_none(change: str) -> None:
    secret = new_secret(new_id())
    assert id_of_secret(secret)
    assert id_of_secret(change.format(secret)) is None
