"""A scripted engine, and what `ensure` needs to work on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from smidr_ci.engine import Engine
from tests.fakes.docker_api import FakeDockerApi, collect_lost_sockets


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeDockerApi]:
    served = FakeDockerApi(tmp_path / "engine.sock")
    served.start()
    yield served
    served.stop()
    collect_lost_sockets()


@pytest.fixture
def engine(api: FakeDockerApi) -> Iterator[Engine]:
    with closing(Engine(api.url)) as connected:
        yield connected
