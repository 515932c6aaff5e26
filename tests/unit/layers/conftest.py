"""A layer store in a temporary directory, and real repositories to fill it from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.config.models import LayerEntry
from smidr_ci.layers.lockfile import Lockfile, make_lock
from smidr_ci.layers.model import LayerSet
from smidr_ci.layers.store import LayerStore
from tests.fakes.clock import FakeClock
from tests.fakes.git_repository import GitRepository, core_layer
from tests.fakes.git_server import GitServer, serve


@dataclass
class Site:
    """A host with a store, a clock that does not wait, and all that was reported."""

    root: Path
    clock: FakeClock = field(default_factory=FakeClock)
    said: list[str] = field(default_factory=list)
    cancel: CancelToken = field(default_factory=CancelToken)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> LayerStore:
        home = self.root / "home"
        store = LayerStore(home / "mirrors", home / "trees", home / "locks", clock=self.clock)
        return replace(store, **self.options)

    def sync(self, *entries: LayerEntry, **options: Any) -> LayerSet:
        options = {"base_dir": self.root, **options}
        return self.store.sync(entries, report=self.said.append, cancel=self.cancel, **options)

    def lock(self, *entries: LayerEntry, old: Lockfile | None = None) -> Lockfile:
        resolved = self.store.resolve(
            entries, lock=old, report=self.said.append, cancel=self.cancel
        )
        return make_lock(one.lock_entry for one in resolved)

    def mirror(self) -> Path:
        mirrors = (self.root / "home/mirrors").glob("*.git")
        (found,) = (path for path in mirrors if not path.name.endswith(".history.git"))
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def make_repository(tmp_path: Path) -> Callable[[str], GitRepository]:
    return lambda name: GitRepository(tmp_path / "served" / name)


@pytest.fixture
def poky(make_repository: Callable[[str], GitRepository]) -> GitRepository:
    """A repository like poky, with one commit on `main`."""
    repository = make_repository("poky")
    repository.commit(core_layer())
    return repository


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    root = tmp_path / "served"
    root.mkdir(exist_ok=True)
    with serve(root) as running:
        yield running
