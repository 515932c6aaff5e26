"""A real server that fails, refuses, asks for passwords, or hangs."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from smidr_ci.config.models import LayerEntry
from smidr_ci.errors import CancelledError, FailureKind, LayerError
from smidr_ci.layers.credentials import Credentials, HostCredentials
from tests.fakes.git_repository import GitRepository
from tests.fakes.git_server import GitServer, serve
from tests.unit.layers.conftest import Site

pytestmark = pytest.mark.usefixtures("poky")

SECRET = "s3cret-token-of-the-operator"


def entry_for(server: GitServer, **values: object) -> LayerEntry:
    values = {"name": "poky", "git": server.url("poky/.git"), "branch": "main", **values}
    return LayerEntry.model_validate(values)


def test_one_commit_is_fetched_without_its_history(
    site: Site, poky: GitRepository, server: GitServer
) -> None:
    old = poky.git("rev-parse", "HEAD")
    new = poky.commit({"meta/x.inc": ""})
    site.sync(entry_for(server))
    mirror = str(site.mirror())
    have = subprocess.run(["git", "--git-dir", mirror, "cat-file", "-e", new], check=False)
    lack = subprocess.run(
        ["git", "--git-dir", mirror, "cat-file", "-e", old], check=False, capture_output=True
    )
    assert have.returncode == 0
    assert lack.returncode != 0


def test_refs_are_asked_once_for_two_entries_of_one_repository(
    site: Site, poky: GitRepository, server: GitServer
) -> None:
    poky.git("branch", "other")
    site.lock(entry_for(server), entry_for(server, name="second", branch="other"))
    assert server.asked("info/refs") == 1


def test_network_failure_is_tried_again_with_growing_waits(site: Site, server: GitServer) -> None:
    server.failures_left = 3
    assert site.sync(entry_for(server)).trees[0].layers
    assert sum("503" in line and "trying again" in line for line in site.said) == 3
    # One, two and four seconds, each with up to a second more.
    assert 7 <= site.clock.monotonic() <= 10


def test_mirror_is_tried_when_the_server_stays_down(site: Site, server: GitServer) -> None:
    entry = entry_for(server, git="http://127.0.0.1:9/poky", mirrors=(server.url("poky/.git"),))
    assert site.sync(entry).trees[0].origin == "http://127.0.0.1:9/poky"
    assert any("trying a mirror" in line for line in site.said)


def test_failure_names_layer_url_and_gits_own_words(site: Site, server: GitServer) -> None:
    server.failures_left = 1000
    with pytest.raises(LayerError) as caught:
        site.sync(entry_for(server))
    assert caught.value.where == "layer poky"
    assert server.url("poky/.git") in caught.value.message
    assert "503" in caught.value.message
    assert "mirrors" in caught.value.hint
    assert caught.value.kind is FailureKind.LAYERS


def test_missing_repository_is_not_tried_again(site: Site, server: GitServer) -> None:
    with pytest.raises(LayerError, match="not found"):
        site.sync(entry_for(server, git=server.url("none.git")))
    assert site.clock.slept == []


def test_pack_that_breaks_off_is_fetched_again(site: Site, server: GitServer) -> None:
    server.cut_packs = 1
    assert site.sync(entry_for(server)).trees[0].layers
    assert sum("trying again" in line for line in site.said) == 1


@pytest.mark.parametrize("filters", [False, True])
def test_branch_is_verified_by_its_history_alone(
    site: Site, poky: GitRepository, server: GitServer, *, filters: bool
) -> None:
    server.filters = filters
    old = poky.git("rev-parse", "HEAD")
    blob = poky.git("rev-parse", "HEAD:oe-init-build-env")
    poky.commit({"meta/x.inc": ""})
    site.sync(entry_for(server, commit=old))
    (history,) = (site.root / "home/mirrors").glob("*.history.git")
    held = subprocess.run(
        ["git", "--git-dir", history, "cat-file", "-e", blob],
        env={**os.environ, "GIT_NO_LAZY_FETCH": "1"},
        capture_output=True,
        check=False,
    )
    assert (held.returncode == 0) is not filters
    asked = len(server.requests)
    site.sync(entry_for(server, commit=old))
    assert len(server.requests) == asked


@pytest.mark.parametrize("kind", ["old", "dumb"])
@pytest.mark.parametrize("is_known", [False, True])
def test_server_that_serves_no_bare_commit_is_fetched_whole(
    site: Site, poky: GitRepository, server: GitServer, kind: str, *, is_known: bool
) -> None:
    old = poky.git("rev-parse", "HEAD")
    poky.commit({"meta/x.inc": ""})
    if is_known:
        site.sync(entry_for(server))
    poky.git("update-server-info")
    setattr(server, kind, True)
    layers = site.sync(entry_for(server, branch=None, commit=old))
    assert layers.trees[0].commit == old
    assert any("fetching all branches" in line for line in site.said)


def test_password_is_given_to_the_server_that_asks(
    site: Site, server: GitServer, tmp_path: Path
) -> None:
    server.password = ("oauth2", SECRET)
    token = tmp_path / "token"
    token.write_text(SECRET + "\n", encoding="utf-8")
    site.options["credentials"] = Credentials(
        hosts=(HostCredentials("127.0.0.1", token_file=token),)
    )
    assert site.sync(entry_for(server)).trees[0].layers
    for path in (tmp_path / "home").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in "\n".join(site.said)


def test_netrc_is_used_for_its_host(site: Site, server: GitServer, tmp_path: Path) -> None:
    server.password = ("me", SECRET)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET}\n", encoding="utf-8")
    site.options["credentials"] = Credentials(netrc=netrc)
    assert site.sync(entry_for(server)).trees[0].layers


def test_wrong_password_is_an_authentication_error_without_the_secret(
    site: Site, server: GitServer
) -> None:
    server.password = ("oauth2", "another")
    site.options["credentials"] = Credentials(hosts=(HostCredentials("127.0.0.1", token=SECRET),))
    with pytest.raises(LayerError) as caught:
        site.sync(entry_for(server))
    assert "authentication" in caught.value.message
    assert "credentials" in caught.value.hint
    assert SECRET not in str(caught.value) + "\n".join(site.said)
    assert site.clock.slept == []


def test_without_credentials_nothing_is_asked_from_the_terminal(
    site: Site, server: GitServer
) -> None:
    server.password = ("oauth2", SECRET)
    with pytest.raises(LayerError, match="authentication"):
        site.sync(entry_for(server))


def test_redirect_to_another_server_gets_no_password(
    site: Site, server: GitServer, tmp_path: Path
) -> None:
    site.options["credentials"] = Credentials(
        hosts=(HostCredentials(f"127.0.0.1:{server.server_address[1]}", token=SECRET),)
    )
    with serve(tmp_path / "served") as thief:
        thief.password = ("oauth2", SECRET)
        server.redirect_to = thief.base
        with pytest.raises(LayerError):
            site.sync(entry_for(server))
        assert thief.requests
        assert all(secret is None for _, _, secret in thief.requests)


def test_hanging_fetch_ends_at_the_time_limit(site: Site, server: GitServer) -> None:
    server.hold_packs.clear()
    site.options |= {"timeout_s": 1.0, "attempts": 1}
    with pytest.raises(LayerError, match="timed out"):
        site.sync(entry_for(server))


def test_cancel_ends_a_fetch_at_once_and_the_next_one_works(site: Site, server: GitServer) -> None:
    server.hold_packs.clear()

    def cancel_in_the_middle() -> None:
        server.pack_started.wait(30)
        site.cancel.cancel("enough")

    canceller = threading.Thread(target=cancel_in_the_middle)
    canceller.start()
    with pytest.raises(CancelledError):
        site.sync(entry_for(server))
    canceller.join()
    server.hold_packs.set()
    again = Site(site.root)
    assert again.sync(entry_for(server)).trees[0].layers


def test_ssh_gets_the_operators_key_and_nothing_of_ours(
    site: Site, poky: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for the far end's sshd: notes what it was called with, runs what was asked for.
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" "$SSH_AUTH_SOCK" >> {tmp_path}/called\n'
        'for command; do :; done\nexec sh -c "$command"\n',
        encoding="utf-8",
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent/of/the/user")
    key = tmp_path / "a key"
    site.options["credentials"] = Credentials(
        hosts=(HostCredentials("git.example.com", ssh_key=key),)
    )
    url = f"ssh://git@git.example.com{poky.path}"
    assert site.sync(LayerEntry(name="poky", git=url, branch="main")).trees[0].layers
    called = (tmp_path / "called").read_text(encoding="utf-8").splitlines()
    assert f"-i{key}" in called
    assert "git@git.example.com" in called
    assert "/agent/of/the/user" not in called
