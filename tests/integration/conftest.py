"""What tests with a real container engine share: the engine, a base image, a builder."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from smidr_ci.clock import SystemClock
from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.runtime import User
from smidr_ci.containers.user import builder_user, own
from smidr_ci.engine import Engine, EngineRefusalError, EngineUnreachableError
from smidr_ci.images.bootstrap import bootstrap
from smidr_ci.images.model import ImageSettings, Making, proxy_environment
from smidr_ci.locks import try_lock

if TYPE_CHECKING:
    from docker import APIClient

TEST_BASE = "smidr-test-base:bookworm"


@pytest.fixture(scope="session")
def engine() -> Engine:
    """A connected engine; without one, tests skip, or fail with SMIDR_REQUIRE_DOCKER=1."""
    found = Engine()
    try:
        found.facts  # noqa: B018 - the first use connects
    except EngineUnreachableError as error:
        text = f"no container engine: {error.message}"
        if os.environ.get("SMIDR_REQUIRE_DOCKER") == "1":
            pytest.fail(f"{text} (SMIDR_REQUIRE_DOCKER=1)")
        pytest.skip(text)
    return found


@pytest.fixture(scope="session")
def docker_client(engine: Engine) -> APIClient:
    """The SDK's low-level client."""
    return engine.api


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> str:
    """`smidr-test-base:bookworm`, a minimal Debian; bootstrapped by our own code when missing."""
    if not has_image(engine, TEST_BASE):
        lock_path = Path(tempfile.gettempdir()) / f"smidr-test-base-{os.getuid()}.lock"
        clock = SystemClock()
        while (lock := try_lock(lock_path)) is None:
            clock.sleep(0.5)
        with lock:
            if not has_image(engine, TEST_BASE):
                settings = ImageSettings(environment=proxy_environment(os.environ))
                image_id = bootstrap(Making(engine, settings, clock, report=print))
                repository, _, tag = TEST_BASE.partition(":")
                engine.api.tag(image_id, repository, tag)
    return TEST_BASE


def has_image(engine: Engine, reference: str) -> bool:
    """Whether the engine has the image."""
    try:
        with engine.calling("look for an image"):
            engine.api.inspect_image(reference)  # type: ignore[no-untyped-call]  # SDK has none
    except EngineRefusalError:
        return False
    return True


@pytest.fixture
def runtime(engine: Engine, build_id: str) -> Iterator[DockerRuntime]:
    """A runtime; what `build_id` started is removed afterwards."""
    found = DockerRuntime(engine=engine)
    yield found
    for handle in found.list_builds():
        if handle.build_id == build_id:
            found.remove(handle)


@pytest.fixture
def build_id() -> str:
    """A build id that no other test has."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def builder() -> User:
    """The unprivileged user that containers run as here."""
    return builder_user(os.environ)


@pytest.fixture
def builder_dir(tmp_path: Path, builder: User) -> Callable[[str], Path]:
    """Makes a directory that the builder may write."""

    def make(name: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        own(path, builder)
        return path

    return make
