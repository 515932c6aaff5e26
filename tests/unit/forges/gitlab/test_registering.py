"""Registration, verification, unregistering, rotation: conformance cases 1 to 11."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from smidr_ci.errors import ConfigError, UsageError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.registering import client_for, register, unregister, verify
from smidr_ci.forges.gitlab.rotation import is_rotation_due, rotate
from smidr_ci.forges.registration import Registration, Registrations, short_token, system_id
from smidr_ci.home import Home
from tests.fakes.clock import FakeClock
from tests.fakes.gitlab.server import Fault, GitLabServer, serve

TOKEN = "glrt-abcdefghij0123456789"


@pytest.fixture
def server() -> Iterator[GitLabServer]:
    with serve() as running:
        running.state.add_runner(TOKEN)
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def asks(url: str, token: str = TOKEN) -> Registration:
    return Registration("lab", "gitlab", url, token)


def test_1_a_legacy_token_registers_a_runner_with_its_tags(
    server: GitLabServer, home: Home
) -> None:
    made = register(asks(server.url, "GR1348941registration"), home, {"tag_list": "a,b"})
    (request,) = server.asked("register")
    assert request.json["token"] == "GR1348941registration"
    assert request.json["tag_list"] == "a,b"
    assert request.json["info"]["features"]["refspecs"] is True
    assert made.token.startswith("glrtr-")
    assert Registrations(home).load("lab") == made


def test_2_switched_off_registration_tokens_are_a_clear_error_and_no_loop(
    server: GitLabServer, home: Home
) -> None:
    server.state.registration_token = None
    with pytest.raises(ForgeError) as caught:
        register(asks(server.url, "GR1348941registration"), home)
    assert caught.value.status == 410
    assert "glrt-" in caught.value.hint
    assert caught.value.kind.exit_code == 5
    assert len(server.requests) == 1
    assert Registrations(home).load_all() == ([], [])


def test_3_what_the_server_says_of_bad_options_is_shown(server: GitLabServer, home: Home) -> None:
    with pytest.raises(ForgeError, match=r"tags_list: Too many tags specified"):
        register(asks(server.url, "GR1348941registration"), home, {"tag_list": "x," * 60})


def test_4_a_runner_token_is_only_verified(server: GitLabServer, home: Home) -> None:
    made = register(asks(server.url), home)
    (request,) = server.requests
    assert request.path == "runners/verify"
    assert request.json["token"] == TOKEN
    assert request.json["system_id"] == system_id(home)
    assert request.json["info"]["name"] == "smidr-ci"
    assert made.runner_id == 1
    assert Registrations(home).load("lab").token == TOKEN


def test_options_of_a_runner_made_in_gitlab_are_refused(server: GitLabServer, home: Home) -> None:
    with pytest.raises(UsageError, match="tag_list can't be set"):
        register(asks(server.url), home, {"tag_list": "a"})
    assert server.requests == []


def test_5_an_invalid_token_is_reported_with_an_exit_code(server: GitLabServer, home: Home) -> None:
    with pytest.raises(ForgeError, match="403") as caught:
        verify(asks(server.url, "glrt-wrong"), home)
    assert caught.value.kind.exit_code == 5
    assert "glrt-wrong" not in str(caught.value)


def test_6_an_orphaned_runner_is_told_apart(server: GitLabServer, home: Home) -> None:
    server.faults.append(Fault("verify", 422))
    with pytest.raises(ForgeError) as caught:
        verify(asks(server.url), home)
    assert "is gone" in caught.value.hint


def test_7_the_first_call_of_all_tells_what_the_runner_can(
    server: GitLabServer, home: Home
) -> None:
    client_for(asks(server.url), home).request_job()
    features = server.requests[0].json["info"]["features"]
    assert features["cancel_gracefully"] is True
    assert features["two_phase_job_commit"] is True


def test_7_a_job_with_caches_finds_what_it_needs(server: GitLabServer, home: Home) -> None:
    client_for(asks(server.url), home).request_job()
    features = server.requests[0].json["info"]["features"]
    assert features["cache"] is features["fallback_cache_keys"] is True


def test_8_unregistering_removes_this_machine_only(server: GitLabServer, home: Home) -> None:
    made = register(asks(server.url), home)
    unregister(made, home)
    request = server.requests[-1]
    assert (request.method, request.path) == ("DELETE", "runners/managers")
    assert request.json == {"token": TOKEN, "system_id": system_id(home)}
    assert TOKEN in server.state.runners
    with pytest.raises(UsageError, match="no registration"):
        Registrations(home).load("lab")


def test_9_a_legacy_runner_is_deleted_whole(server: GitLabServer, home: Home) -> None:
    made = register(asks(server.url, "GR1348941registration"), home)
    unregister(made, home)
    assert (server.requests[-1].method, server.requests[-1].path) == ("DELETE", "runners")
    assert made.token not in server.state.runners


def test_a_registration_stays_when_the_server_refuses_to_forget_it(
    server: GitLabServer, home: Home
) -> None:
    made = register(asks(server.url), home)
    server.faults.append(Fault("unregister", 403))
    with pytest.raises(ForgeError):
        unregister(made, home)
    assert Registrations(home).load("lab") == made


def test_10_the_machine_has_the_same_id_each_time(home: Home, tmp_path: Path) -> None:
    machine = tmp_path / "machine-id"
    machine.write_text("0123456789abcdef\n")
    first = system_id(home, machine)
    machine.write_text("other\n")
    assert system_id(home, machine) == first
    assert re.fullmatch(r"s_[0-9a-f]{12}", first)


def test_10_without_a_machine_id_it_is_random_and_a_damaged_one_is_made_again(home: Home) -> None:
    missing = home.root / "missing"
    first = system_id(home, missing)
    assert re.fullmatch(r"r_[0-9a-zA-Z]{12}", first)
    (home.root / "system-id").write_text("s_nonsense!!!!\n")
    assert re.fullmatch(r"r_[0-9a-zA-Z]{12}", system_id(home, missing))


def test_11_an_address_below_a_path_works_and_its_ci_end_is_dropped(home: Home) -> None:
    with serve("/sub") as server:
        server.state.add_runner(TOKEN)
        client = client_for(asks(f"{server.url}/ci/"), home)
        client.request_job()
        assert [request.path for request in server.requests] == ["jobs/request"]


@pytest.mark.parametrize(
    "url", ["ftp://h", "gitlab.example.com", "https://user:secret@h/", "https://", "https://h:x/"]
)
def test_what_is_no_address_is_refused(url: str, home: Home) -> None:
    with pytest.raises(ForgeError) as caught:
        client_for(asks(url), home)
    assert "secret" not in str(caught.value)


def test_12_a_token_is_changed_after_three_quarters_of_its_life(
    server: GitLabServer, home: Home
) -> None:
    clock = FakeClock()
    server.state.runners[TOKEN].token_expires_at = (clock.now() + timedelta(days=8)).isoformat()
    made = register(asks(server.url), home, clock=clock)
    assert not is_rotation_due(made, clock.now() + timedelta(days=5, hours=23))
    assert is_rotation_due(made, clock.now() + timedelta(days=6, hours=1))
    client = client_for(made, home)
    changed = rotate(made, Registrations(home), client, clock)
    assert changed.token == client.token == f"{TOKEN}-next"
    assert Registrations(home).load("lab") == changed
    assert client.verify()["token"] == changed.token


def test_a_token_without_expiry_is_never_changed() -> None:
    assert not is_rotation_due(asks("https://h"), FakeClock().now())


def test_25_a_charset_behind_the_media_type_is_fine(server: GitLabServer, home: Home) -> None:
    server.content_type = "application/json; charset=utf-8"
    assert verify(asks(server.url), home).runner_id == 1


def test_a_login_page_instead_of_json_is_an_error_and_not_a_job(
    server: GitLabServer, home: Home
) -> None:
    server.faults.append(Fault("register", 201, {"Content-Type": "text/html"}, "<html>"))
    with pytest.raises(ForgeError, match="not JSON"):
        register(asks(server.url, "GR1348941registration"), home)


def test_a_registration_keeps_every_field(home: Home) -> None:
    clock = FakeClock()
    whole = Registration(
        "lab-1.x",
        "gitlab",
        "https://h/sub",
        TOKEN,
        runner_id=3,
        token_obtained=clock.now(),
        token_expires=clock.now() + timedelta(days=1),
        is_paused=True,
        limit=2,
        customer="acme",
        tls_ca_file=Path("/ca.pem"),
        tls_cert_file=Path("/cert.pem"),
        tls_key_file=Path("/key.pem"),
        api_token_file=Path("/token"),
        settings={"x": [1, 2]},
    )
    Registrations(home).save(whole)
    assert Registrations(home).load("lab-1.x") == whole
    assert TOKEN not in repr(whole)
    path = home.root / "registrations" / "lab-1.x.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_that_others_can_read_and_damaged_ones_are_refused_one_by_one(home: Home) -> None:
    registrations = Registrations(home)
    for name in ("good", "open", "damaged", "list"):
        registrations.save(replace(asks("https://h"), name=name))
    folder = home.root / "registrations"
    (folder / "open.json").chmod(0o644)
    (folder / "damaged.json").write_text("{")
    (folder / "list.json").write_text("[]")
    good, problems = registrations.load_all()
    assert [item.name for item in good] == ["good"]
    assert len(problems) == 3
    with pytest.raises(ConfigError, match="open to other users"):
        registrations.load("open")


@pytest.mark.parametrize("name", ["../x", "", "A", "-a", "a" * 49, ".hidden"])
def test_a_name_can_not_lead_out_of_the_directory(home: Home, name: str) -> None:
    with pytest.raises(UsageError):
        Registrations(home).load(name)


def test_only_the_short_form_of_a_token_is_for_showing() -> None:
    assert short_token("glrt-t1_abcdefghijkl") == "abcdefghi"
    assert short_token("glrtr-abcdefghijkl") == "abcdefghi"
