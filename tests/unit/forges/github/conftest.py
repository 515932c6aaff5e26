"""A fake GitHub for each test, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.github.room import Room
from tests.fakes.github.server import GitHubServer, serve


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    with serve() as server:
        yield server


@pytest.fixture
def room(github: GitHubServer, tmp_path: Path) -> Room:
    return Room(github, tmp_path)
