"""Builder images on a real engine. Packages come from Debian's mirror."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.config.models import Container
from smidr_ci.engine import Engine
from smidr_ci.errors import CancelledError, ImageError
from smidr_ci.images.install import INSTALL_CONTAINER_PREFIX
from smidr_ci.images.model import BuilderImage, ImageSettings, proxy_environment
from smidr_ci.images.pull import PullError, PullFault
from smidr_ci.images.store import BUILDER_REPOSITORY, ImageStore

if TYPE_CHECKING:
    from docker import APIClient

pytestmark = [
    pytest.mark.docker,
    # The SDK leaves the socket of a stream that was not read to its end to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

SETTINGS = ImageSettings(environment=proxy_environment(os.environ))


@pytest.fixture
def own_base(docker_client: APIClient, base_image: str, build_id: str) -> Iterator[str]:
    """The base under a content id of this test's own, so that nothing on it exists yet."""
    yield from derived(docker_client, base_image, build_id, ["sh", "-c", f"echo {build_id} > /id"])


def derived(client: APIClient, base: str, tag: str, command: list[str]) -> Iterator[str]:
    container = client.create_container(base, command)["Id"]
    client.start(container)
    client.wait(container)
    client.commit(container, "smidr-test-derived", tag)
    client.remove_container(container)
    yield f"smidr-test-derived:{tag}"
    client.remove_image(f"smidr-test-derived:{tag}")


@pytest.fixture
def made(engine: Engine) -> Iterator[list[BuilderImage]]:
    """Images to remove after the test."""
    images: list[BuilderImage] = []
    yield images
    for reference in {image.reference for image in images}:
        with engine.calling("clean up"):
            engine.api.remove_image(reference)


def store_at(engine: Engine, tmp_path: Path, settings: ImageSettings = SETTINGS) -> ImageStore:
    return ImageStore(engine, settings, locks=tmp_path / "locks")


def install_containers(client: APIClient) -> list[Any]:
    found: list[Any] = client.containers(all=True, filters={"name": INSTALL_CONTAINER_PREFIX})
    return found


def run(client: APIClient, image: str, script: str) -> str:
    container = client.create_container(image, ["sh", "-c", script])["Id"]
    try:
        client.start(container)
        client.wait(container)
        output: bytes = client.logs(container)
        return output.decode()
    finally:
        client.remove_container(container, force=True)


def test_packages_are_installed_once_by_two_at_the_same_time_and_then_found(
    engine: Engine,
    docker_client: APIClient,
    own_base: str,
    tmp_path: Path,
    made: list[BuilderImage],
) -> None:
    secret = "http://user:s3cret@127.0.0.1:9"
    proxied = {**SETTINGS.environment, "ftp_proxy": secret}
    settings = ImageSettings(environment=proxied)
    lines: list[str] = []
    together = threading.Barrier(2)

    def ensure(packages: list[str]) -> BuilderImage:
        container = Container.model_validate({"base_image": own_base, "packages": packages})
        together.wait(30)
        return store_at(engine, tmp_path, settings).ensure(container, report=lines.append)

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(ensure, (["hello", "bc"], ["bc", "hello", "hello"]))
    made.append(first)
    assert first == second
    assert first.reference.startswith(f"{BUILDER_REPOSITORY}:")
    assert sum(line.startswith("installing 2 packages") for line in lines) == 1
    assert sum(line.startswith("waiting for another build") for line in lines) == 1

    del lines[:]
    together = threading.Barrier(1)
    assert ensure(["hello", "bc"]) == first
    assert lines == []

    script = "hello; locale -a; echo $LANG; ls /smidr-install.sh /var/lib/apt/lists; env"
    output = run(docker_client, first.id, script)
    assert "Hello, world!" in output
    assert {"C.utf8", "en_US.utf8", "C.UTF-8"} <= set(output.split())
    assert "cannot access '/smidr-install.sh'" in output
    found = docker_client.inspect_image(first.id)  # type: ignore[no-untyped-call]  # SDK has none
    history = docker_client.history(first.id)  # type: ignore[no-untyped-call]  # SDK has none
    assert "s3cret" not in f"{found} {history} {output}"
    assert found["Config"]["Labels"]["io.smidr.packages"] == "bc hello"
    assert not found["Config"]["Entrypoint"]
    listed = {image.id: image for image in store_at(engine, tmp_path).stored()}
    assert listed[first.id].kind == "builder"
    assert listed[first.id].tags == (first.reference,)


def test_unknown_package_is_named_and_nothing_is_left(
    engine: Engine, docker_client: APIClient, own_base: str, tmp_path: Path
) -> None:
    before = {image.id for image in store_at(engine, tmp_path).stored()}
    container = Container(base_image=own_base, packages=("hello", "smidr-no-such-package"))
    with pytest.raises(ImageError, match=r"does not know .*: smidr-no-such-package\n"):
        store_at(engine, tmp_path).ensure(container)
    assert {image.id for image in store_at(engine, tmp_path).stored()} <= before
    assert not any(own_base in str(entry) for entry in install_containers(docker_client))


def test_base_without_apt_is_explained(
    engine: Engine, docker_client: APIClient, base_image: str, build_id: str, tmp_path: Path
) -> None:
    bases = derived(docker_client, base_image, build_id, ["rm", "/usr/bin/apt-get"])
    base = next(bases)
    try:
        with pytest.raises(ImageError, match="has no apt-get"):
            store_at(engine, tmp_path).ensure(Container(base_image=base, packages=("hello",)))
    finally:
        next(bases, None)


def test_cancel_ends_an_installation_and_leaves_nothing(
    engine: Engine, docker_client: APIClient, own_base: str, tmp_path: Path
) -> None:
    cancel = CancelToken()

    def report(line: str) -> None:
        if line.startswith("Get:"):
            cancel.cancel("enough")

    container = Container(base_image=own_base, packages=("hello",))
    with pytest.raises(CancelledError, match="enough"):
        store_at(engine, tmp_path).ensure(container, report=report, cancel=cancel)
    own_id = docker_client.inspect_image(own_base)["Id"]  # type: ignore[no-untyped-call]  # SDK has none
    assert all(entry["ImageID"] != own_id for entry in install_containers(docker_client))


def test_registry_that_does_not_answer_is_named_with_the_remedy(
    engine: Engine, tmp_path: Path
) -> None:
    reference = "127.0.0.1:1/smidr/builder:1"
    with pytest.raises(PullError) as caught:
        store_at(engine, tmp_path).ensure(Container(base_image=reference))
    assert caught.value.fault is PullFault.UNREACHABLE
    assert f"{reference}: registry 127.0.0.1:1: " in caught.value.message
    assert "connection refused" in caught.value.message
    assert "container.bootstrap" in caught.value.hint


def test_bootstrapped_base_is_a_debian_that_runs(
    engine: Engine, docker_client: APIClient, tmp_path: Path
) -> None:
    container = Container(bootstrap="always", packages=())
    found = store_at(engine, tmp_path).ensure(container, report=print)
    assert found.reference.startswith("smidr-base:bookworm-")
    output = run(docker_client, found.id, "cat /etc/debian_version; command -v apt-get")
    assert output.startswith("12.")
    assert "/usr/bin/apt-get" in output
