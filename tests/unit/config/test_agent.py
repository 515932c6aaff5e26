"""`agent.yaml`: the operator's settings and the files with secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidr_ci.config.agent import AgentConfig, load_agent
from smidr_ci.config.host_files import read_secret
from smidr_ci.config.loader import load_project_text
from smidr_ci.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.yaml"


def test_without_a_file_the_defaults_hold(path: Path) -> None:
    assert load_agent(path) == AgentConfig()


def test_a_file_of_comments_is_refused_as_empty_but_braces_are_not(path: Path) -> None:
    path.write_text("{}\n")
    assert load_agent(path) == AgentConfig()


def test_paths_are_absolute_after_loading(path: Path) -> None:
    path.write_text("directories: {downloads: dl, sstate: ~/sstate, layers: /srv/layers}\n")
    directories = load_agent(path, home=Path("/home/ada")).directories
    assert directories.downloads == path.parent / "dl"
    assert directories.sstate == Path("/home/ada/sstate")
    assert directories.layers == Path("/srv/layers")


def test_every_section_is_read(path: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hush\n")
    token.chmod(0o600)
    path.write_text(
        """
substitution: [CI_COMMIT_TAG]
environment: [CI, CCACHE_DIR]
allow_config_directories: false
git:
  credentials: [{host: "git.example.com:8443", token_file: token}]
  timeout_s: 30
  attempts: 5
engine: {url: "unix:///run/podman.sock", network: builds, builder_user: "1000:1000"}
images: {default_base: "debian:12", bootstrap_mirror: "http://deb.example.com/debian"}
limits: {cpus_per_build: 3, memory_per_build: 16G, min_free_disk: 50G}
"""
    )
    agent = load_agent(path)
    assert agent.substitution == ("CI_COMMIT_TAG",)
    assert agent.git.credentials[0].token_file == token
    assert agent.git.timeout_s == 30
    assert agent.engine.builder_user == "1000:1000"
    assert agent.limits.memory_per_build == 16 * 1024**3
    assert agent.limits.min_free_disk == 50 * 1024**3


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("limitz: {}", "unknown key `limitz`", "1:1"),
        ("environment: [CI, LD_PRELOAD]", "LD_PRELOAD", "1:19"),
        ("substitution: ['A B']", "not a variable's name", "1:16"),
        ("engine: {builder_user: '0:0'}", "not root", "1:24"),
        ("engine: {builder_user: root}", "not root", "1:24"),
        ("engine: {url: /run/docker.sock}", "not a URL", "1:15"),
        ("images: {bootstrap_mirror: 'ssh://x'}", "URL of a Debian mirror", "1:28"),
        ("limits: {cpus_per_build: 0}", "greater than or equal to 0.1", "1:26"),
        ("limits: {cpus_per_build: lots}", "must be a number, not text", "1:26"),
        ("git: {credentials: [{host: a}]}", "has no credential", "1:21"),
        ("git: {credentials: [{host: 'a b', token_file: x}]}", "not a host", "1:28"),
        ("git: {credentials: [{host: a, token_file: x, netrc_file: y}]}", "has both", "1:58"),
        ("git: {credentials: [{host: a, token_file: nowhere}]}", "can't be used", "1:43"),
        ("git: {timeout_s: -1}", "greater than 0", "1:18"),
    ],
)
def test_each_fault_has_its_place(path: Path, text: str, message: str, where: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_agent(path)
    assert caught.value.where == f"{path}:{where}"


def test_two_entries_for_one_host_are_refused(path: Path) -> None:
    entry = "{host: a, known_hosts_file: x}"
    path.write_text(f"git: {{credentials: [{entry}, {entry}]}}\n")
    with pytest.raises(ConfigError, match="host a has two entries"):
        load_agent(path)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o666])
@pytest.mark.parametrize("key", ["token_file", "netrc_file", "ssh_key_file"])
def test_a_secret_that_others_can_read_or_change_is_refused(
    path: Path, tmp_path: Path, key: str, mode: int
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    secret.chmod(mode)
    path.write_text(f"git: {{credentials: [{{host: a, {key}: secret}}]}}\n")
    with pytest.raises(ConfigError, match="open to other users") as caught:
        load_agent(path)
    assert caught.value.hint == f"chmod 600 {secret}"
    with pytest.raises(ConfigError, match="open to other users"):
        read_secret(secret)


def test_a_secret_is_read_without_its_last_newline(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    secret.chmod(0o600)
    assert read_secret(secret) == "hush"


def test_a_file_that_anybody_can_write_is_not_trusted(path: Path) -> None:
    path.write_text("{}\n")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="written by any user"):
        load_agent(path)


def test_variables_are_not_substituted_in_the_operators_file(path: Path) -> None:
    path.write_text("images: {extra_apt_sources: ['deb ${YOCTO_X} x']}\n")
    assert load_agent(path).images.extra_apt_sources == ("deb ${YOCTO_X} x",)


def test_the_operators_list_decides_on_more_variables() -> None:
    text = "name: a\ndescription: ${CI_COMMIT_TAG}\n"
    for operator, expected in (
        (None, "${CI_COMMIT_TAG}"),
        (AgentConfig(substitution=("CI_COMMIT_TAG",)), "v1"),
    ):
        loaded = load_project_text(
            text,
            "smidr.yaml",
            directory=Path("/x"),
            environ={"CI_COMMIT_TAG": "v1"},
            operator=operator,
        )
        assert loaded.config.description == expected
