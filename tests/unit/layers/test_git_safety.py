"""URLs, credentials and the environment that git gets."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind, HostError, LayerError
from smidr_ci.layers.credentials import Credentials, HostCredentials
from smidr_ci.layers.failures import (
    GitError,
    GitFailure,
    OneLayerError,
    classify,
    raise_problems,
)
from smidr_ci.layers.gitcmd import Git
from smidr_ci.layers.urls import parse_url

SECRET = "s3cret-token-of-the-operator"
DAMAGED_THERE = """remote: aborting due to possible repository corruption on the remote side.
fatal: early EOF
fatal: fetch-pack: invalid index-pack output
"""
SSH_REFUSAL = """git@x: Permission denied (publickey).
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.
"""


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c id", "-u x", "https://user:pw@x.org/a", "ssh://-oProxyCommand=x/a", "x", ""],
)
def test_dangerous_urls_are_refused(url: str) -> None:
    with pytest.raises(LayerError):
        parse_url(url)


def test_spellings_of_one_url_share_a_mirror_and_others_do_not() -> None:
    names = {
        parse_url(url).directory_name
        for url in (
            "https://git.example.com/a/poky",
            "https://GIT.example.com:443/a/poky.git/",
            "https://me@git.example.com/a//poky",
        )
    }
    assert len(names) == 1
    assert names.pop().startswith("poky-")
    others = {
        parse_url(url).key
        for url in ("https://x.org/a/b", "https://x.org/a-b", "http://x.org/a/b", "git@x.org:a/b")
    }
    assert len(others) == 4


def test_callers_environment_does_not_reach_git(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("[user]\n\tname = leaked\n[core]\n\tpager = leaked\n", encoding="utf-8")
    for name, value in {
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_DIR": str(tmp_path),
        "GIT_SSH_COMMAND": "leaked",
        "SSH_AUTH_SOCK": "leaked",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    git = Git()
    settings = git.run(["config", "--list"], cancel=CancelToken()).decode()
    assert "leaked" not in settings
    assert "core.hookspath=/dev/null" in settings
    monkeypatch.setenv("GIT_ALIAS", "x")
    shown = git.run(["-c", "alias.show-env=!env", "show-env"], cancel=CancelToken()).decode()
    assert "leaked" not in shown


def test_answer_without_end_is_cut_off() -> None:
    with pytest.raises(GitError, match="longer than 1 MiB"):
        Git().run(["-c", "alias.y=!yes", "y"], cancel=CancelToken(), output_limit=1 << 20)


def test_token_is_sent_over_a_private_channel_only() -> None:
    credentials = Credentials(hosts=(HostCredentials("x.org", token=SECRET),))
    assert credentials.access(parse_url("https://x.org/a")).secrets == (SECRET,)
    for url in ("http://x.org/a", "git://x.org/a", "https://y.org/a"):
        assert credentials.access(parse_url(url)).secrets == ()


def test_secrets_are_not_shown_by_repr() -> None:
    credentials = Credentials(hosts=(HostCredentials("x.org", token=SECRET),))
    assert SECRET not in repr(credentials)
    assert SECRET not in repr(credentials.access(parse_url("https://x.org/a")))


def ssh_command(credentials: Credentials, url: str) -> list[str]:
    return shlex.split(credentials.access(parse_url(url)).environment["GIT_SSH_COMMAND"])


def test_operators_ssh_key_is_the_only_one_used() -> None:
    entry = HostCredentials(
        "x.org", ssh_key=Path("/keys/a key"), known_hosts=Path("/keys/known hosts")
    )
    command = ssh_command(Credentials(hosts=(entry,), uses_own_ssh=True), "git@x.org:a/b")
    assert "-i/keys/a key" in command
    assert "-oIdentitiesOnly=yes" in command
    assert '-oUserKnownHostsFile="/keys/known hosts"' in command
    assert "-oBatchMode=yes" in command
    assert "-oStrictHostKeyChecking=yes" in command


def test_strangers_job_uses_no_ssh_key_of_ours() -> None:
    command = ssh_command(Credentials(), "ssh://git@x.org/a/b")
    assert "-oPubkeyAuthentication=no" in command
    assert "-oIdentityAgent=none" in command
    assert "-F/dev/null" in command


@pytest.mark.parametrize(
    ("content", "words"), [(None, "can't read"), ("a\nb\n", "one line"), (b"\xff", "not UTF-8")]
)
def test_bad_token_file_is_named_without_its_content(
    tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    credentials = Credentials(hosts=(HostCredentials("x.org", token_file=path),))
    with pytest.raises(LayerError, match=words) as caught:
        credentials.access(parse_url("https://x.org/a"))
    assert str(path) in caught.value.where


def test_bad_netrc_is_named_by_line_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "netrc"
    path.write_text(f"machine x.org\n{SECRET} x\n", encoding="utf-8")
    with pytest.raises(LayerError) as caught:
        Credentials(netrc=path).access(parse_url("https://x.org/a"))
    assert SECRET not in str(caught.value)
    assert caught.value.where.startswith(f"{path}:")


@pytest.mark.parametrize(
    ("stderr", "failure"),
    [
        ("fatal: unable to access 'u': Could not resolve host: x", GitFailure.NETWORK),
        ("error: RPC failed; curl 56\nfatal: early EOF", GitFailure.NETWORK),
        ("fatal: unable to access 'u': The requested URL returned error: 429", GitFailure.NETWORK),
        ("fatal: Authentication failed for 'u'", GitFailure.AUTHENTICATION),
        (SSH_REFUSAL, GitFailure.AUTHENTICATION),
        (
            "Host key verification failed.\nfatal: Could not read from remote repository.",
            GitFailure.HOST_KEY,
        ),
        ("fatal: SSL certificate problem: self-signed", GitFailure.CERTIFICATE),
        ("remote: Repository not found.\nfatal: repository 'u' not found", GitFailure.NOT_FOUND),
        ("fatal: transport 'ext' not allowed", GitFailure.PROTOCOL),
        ("fatal: write error: No space left on device\nfatal: index-pack failed", GitFailure.DISK),
        ("error: inflate: data stream error", GitFailure.CORRUPT),
        (DAMAGED_THERE, GitFailure.DAMAGED_THERE),
        ("fatal: something new", GitFailure.OTHER),
    ],
)
def test_gits_words_tell_the_kind_of_failure(stderr: str, failure: GitFailure) -> None:
    assert classify(stderr)[0] is failure


def test_far_end_cannot_steer_the_terminal_or_forge_ci_commands() -> None:
    _, line = classify("remote: \x1b[2J\x07evil\u202e " + "x" * 5000)
    assert line.isprintable()
    assert len(line) <= 300


def test_full_disk_is_a_fault_of_the_host() -> None:
    with pytest.raises(LayerError) as caught:
        raise_problems([OneLayerError("poky", "disk full", "Make room.", GitFailure.DISK)])
    assert caught.value.kind is FailureKind.DISK


@pytest.mark.parametrize(("says", "words"), [("2.30.2", "too old"), (None, "not installed")])
def test_host_without_a_usable_git_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str | None, words: str
) -> None:
    if says:
        (tmp_path / "git").write_text(f"#!/bin/sh\necho git version {says}\n", encoding="utf-8")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=words):
        Git().run(["version"], cancel=CancelToken())
