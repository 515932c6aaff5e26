"""Orders from clients: what a config may not do to the host that builds it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from smidr_ci.api.bundles import receive_bundle
from smidr_ci.builds.accept import request_for
from smidr_ci.builds.host import Host
from smidr_ci.builds.order import Order
from smidr_ci.builds.request import BuildRequest
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.errors import ConfigError, SmidrError, UsageError
from smidr_ci.home import Home
from smidr_ci.layers.entries import local_path
from smidr_ci.layers.failures import OneLayerError
from smidr_ci.layers.gitcmd import Git
from smidr_ci.layers.listing import list_files

SECRET = "the-agents-own-secret"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    environ = {
        "HOME": str(tmp_path / "operator"),
        "SMIDR_TOKEN": SECRET,
        "SMIDR_HOME": str(tmp_path / "home"),
        "YOCTO_MACHINE": SECRET,
        "CI_TAG": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    home = Home(tmp_path / "home")
    home.root.mkdir(mode=0o700)
    # The operator lets local users do more than strangers may.
    agent = AgentConfig(substitution=("CI_TAG",), allow_config_directories=True)
    return Host(home, agent, environ)


def ordered(
    host: Host,
    text: str,
    *,
    bundle: bytes = b"",
    variables: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
) -> BuildRequest:
    directory = receive_bundle(host.home, bundle)
    return request_for(
        host,
        Order(
            customer="acme",
            config_text=f"name: a\n{text}\n",
            config_name="smidr.yaml",
            directory=directory,
            variables=variables or {},
            environment=environment or {},
        ),
    )


def bundle_of(*members: tuple[str, bytes | str]) -> bytes:
    """A tar.gz of files (bytes) and links (text)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "layers: [{name: x, path: /etc}]",
        "layers: [{name: x, path: ../..}]",
        "layers: [{name: x, path: '~'}]",
        "layers: [{name: x, path: '~/.ssh'}]",
        "layers: [{name: x, path: /proc/self/cwd}]",
        "layers: [{name: x, path: meta/../../../etc}]",
        "layers: [{name: x, path: '${ROOT}'}]",
        "layers: [{name: x, path: '${ROOT:-/etc}'}]",
        "layers: [{name: x, git: 'file:///srv/private.git'}]",
        "layers: [{name: x, git: 'file://localhost/srv/private.git'}]",
        "layers: [{name: x, git: 'https://example.com/x', mirrors: ['file:///srv/x.git']}]",
        "directories: {source: /}",
        "directories: {source: ..}",
        "directories: {source: '~'}",
    ],
)
def test_a_clients_config_can_not_reach_the_hosts_files(host: Host, text: str) -> None:
    with pytest.raises(ConfigError, match="leads out"):
        ordered(host, text, variables={"ROOT": "/etc", "HOME": "/"})


def test_a_file_url_can_not_climb_out_by_encoded_dots(host: Host) -> None:
    directory = receive_bundle(host.home, b"")
    url = f"file://{directory}/%2e%2e/%2E%2e/secret.git"
    text = f"name: a\nlayers: [{{name: x, git: '{url}'}}]\n"
    with pytest.raises(ConfigError, match="leads out"):
        request_for(host, Order("acme", text, "smidr.yaml", directory))


@pytest.mark.parametrize("name", ["downloads", "sstate", "layers", "build", "tmp", "deploy"])
def test_a_client_chooses_no_directory_of_the_host_not_even_inside_its_bundle(
    host: Host, name: str
) -> None:
    with pytest.raises(
        ConfigError, match=f"directories.{name}` is this host's to choose"
    ) as caught:
        ordered(host, f"directories: {{{name}: inside}}")
    assert caught.value.where.startswith("smidr.yaml:2:")


@pytest.mark.parametrize("name", ["sstate", "tmp", "deploy"])
def test_the_older_names_are_no_way_round(host: Host, name: str) -> None:
    with pytest.raises(ConfigError, match="is this host's to choose"):
        ordered(host, f"build: {{{name}: inside}}")


def test_a_layer_and_the_source_inside_the_bundle_are_fine(host: Host) -> None:
    bundle = bundle_of(("meta-a/conf/layer.conf", b""))
    request = ordered(
        host, "layers: [{name: x, path: meta-a}]\ndirectories: {source: .}", bundle=bundle
    )
    assert request.is_confined
    assert request.project.directory.is_relative_to(host.home.incoming)


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/pwned",
        "ext::sh",
        "fd::17",
        "ssh://-oProxyCommand=touch%20x/repo",
        "ssh://git@-oProxyCommand=x/repo",
        "-u./payload",
        "--upload-pack=touch x",
        "user@-oProxyCommand=x:repo",
        "/etc",
        "../other",
        "file:relative",
        "file:///srv/../etc",
        "https://user:password@example.com/x",
        "https://example.com/x\\ny",
        "http://example.com/%0d%0aHost:%20evil",
    ],
)
def test_git_is_given_no_url_that_runs_something_or_hides_something(host: Host, url: str) -> None:
    with pytest.raises(ConfigError):
        ordered(host, f'layers: [{{name: x, git: "{url}"}}]')


@pytest.mark.parametrize(
    "ref", ["--upload-pack=x", "-b", "a..b", "a b", "@{-1}", "x.lock", "a\\nb"]
)
@pytest.mark.parametrize("key", ["branch", "tag"])
def test_a_ref_is_never_an_option(host: Host, key: str, ref: str) -> None:
    with pytest.raises(ConfigError):
        ordered(host, f'layers: [{{name: x, git: "https://example.com/x", {key}: "{ref}"}}]')


@pytest.mark.parametrize(
    "key",
    [
        *("privileged", "volumes", "mounts", "devices", "network", "network_mode", "cap_add"),
        *("security_opt", "user", "pid_mode", "ipc", "extra_hosts", "env_file", "runtime"),
    ],
)
def test_the_container_section_has_no_key_that_mounts_or_privileges(host: Host, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        ordered(host, f"container: {{{key}: x}}")


@pytest.mark.parametrize(
    "section", ["engine", "git", "images", "limits", "api", "substitution", "forges"]
)
def test_the_operators_settings_are_no_keys_of_a_project(host: Host, section: str) -> None:
    with pytest.raises(ConfigError, match=section):
        ordered(host, f"{section}: {{}}")


@pytest.mark.parametrize("image", ["-v/:/host", "--privileged", "debian:12 --privileged", "../x"])
def test_an_image_is_never_an_option(host: Host, image: str) -> None:
    with pytest.raises(ConfigError):
        ordered(host, f"container: {{base_image: '{image}'}}")


@pytest.mark.parametrize("package", ["-o", "--allow-unauthenticated", "gcc; id", "/tmp/x.deb"])
def test_a_package_is_never_an_option_or_a_file(host: Host, package: str) -> None:
    with pytest.raises(ConfigError):
        ordered(host, f"container: {{packages: ['{package}']}}")


@pytest.mark.parametrize(
    "name",
    ["SMIDR_TOKEN", "SMIDR_HOME", "YOCTO_MACHINE", "CI_TAG", "HOME", "AWS_SECRET_ACCESS_KEY"],
)
def test_the_agents_own_environment_stays_out_of_a_clients_config(host: Host, name: str) -> None:
    try:
        request = ordered(host, f"description: 'x ${{{name}}} ${{{name}:-y}}'")
        told = request.project.config.description
    except ConfigError as error:
        told = str(error)
    assert name in told  # it passed through, or is named in the refusal
    assert SECRET not in told
    assert str(host.home.root.parent) not in told


def test_a_client_brings_its_own_variables(host: Host) -> None:
    request = ordered(host, "description: ${YOCTO_MACHINE}", variables={"YOCTO_MACHINE": "qemuarm"})
    assert request.project.config.description == "qemuarm"


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "LD_PRELOAD", "PYTHONPATH", "BBPATH", "TMPDIR", "HOME", "BASH_ENV", "IFS"),
        *("GIT_SSH_COMMAND", "SSH_AUTH_SOCK", "SMIDR_HOME", "BB_ENV_PASSTHROUGH", "PSEUDO_PREFIX"),
        *("A B", "A=B", "", "A\nB", "1A", "É"),
    ],
)
def test_a_client_can_not_set_variables_that_steer_the_build(host: Host, name: str) -> None:
    with pytest.raises(UsageError, match="can't be used"):
        ordered(host, "", environment={name: "x"})


@pytest.mark.parametrize("value", ["a\nb", "a\x00b", "x" * 5000])
def test_a_clients_variable_is_one_line(host: Host, value: str) -> None:
    with pytest.raises(UsageError):
        ordered(host, "", environment={"RELEASE": value})


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "name: b",
        "base: {machine: a, machine: b}",
        "<<: [{a: 1}, {b: 2}]",
        "description: !!python/object/apply:os.system [id]",
        "---\nname: c",
        "[" * 5000,
        "{" * 5000,
        "description: " + "${YOCTO_A:-" * 100 + "}" * 100,
        "description: '" + "${YOCTO_A}" * 1000 + "'",
        "\x00",
        "description: \ud800",
        "x: " + "y" * (1 << 20),
    ],
)
def test_a_text_that_is_made_to_hurt_is_refused_quickly(host: Host, text: str) -> None:
    with pytest.raises(ConfigError):
        ordered(host, text, variables={"YOCTO_A": "x" * 60_000})


def test_a_stored_order_is_as_confined_as_the_first_one(host: Host) -> None:
    order = Order("acme", "name: a\n", "smidr.yaml", receive_bundle(host.home, b""))
    assert order.is_confined  # what does not say otherwise is a stranger's
    assert order.to_json()["is_confined"] is True


@pytest.mark.parametrize("path", ["~root", "~nobody-of-this-name/meta"])
def test_another_users_home_is_not_meant(host: Host, path: str) -> None:
    request = ordered(host, f"layers: [{{name: x, path: '{path}'}}]")
    entry = request.project.config.layers[0]
    with pytest.raises(OneLayerError, match="does not exist"):
        local_path(entry, request.project.directory, request.project.directory)


def test_a_bundle_that_looks_like_a_repository_runs_nothing(host: Host, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    config = f"[core]\n\tfsmonitor = touch {marker}; false\n\tworktree = .\n"
    members = [("HEAD", b"ref: refs/heads/main\n"), ("config", config.encode())]
    members += [("objects/x", b""), ("refs/x", b"")]
    root = receive_bundle(host.home, bundle_of(*members))
    # $SMIDR_HOME may lie in a repository, such as one of dot files.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    listed = [file.path for file in list_files(root, Git(), CancelToken())]
    assert "HEAD" in listed
    assert not marker.exists()


def test_the_lockfile_in_a_bundle_is_a_file(host: Host) -> None:
    from smidr_ci.layers.lockfile import read_lock

    root = receive_bundle(host.home, bundle_of(("x/real", b"{}"), ("smidr.lock", "x/real")))
    with pytest.raises(SmidrError):
        read_lock(root / "smidr.lock")
