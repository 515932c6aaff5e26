"""Builds by the driver in containers: a host's directories, layers, conf files, plan."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from smidr_ci.bitbake.conf import ConfInputs, write_conf
from smidr_ci.bitbake.driver_files import driver_command, install
from smidr_ci.bitbake.events import EventReader
from smidr_ci.bitbake.plan import DriverResult, Plan
from smidr_ci.bitbake.progress import Progress
from smidr_ci.config.models import ProjectConfig
from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.runtime import ContainerSpec, Exit, Handle, Mount, User
from smidr_ci.containers.user import own
from smidr_ci.layers.model import FoundLayer, LayerSet, LayerTree

__all__ = ["BuildSite", "Checkout", "Ended", "layer_tree"]

_ENOUGH_S = 600.0


@dataclass(frozen=True)
class Checkout:
    """A BitBake release on the host."""

    name: str
    path: Path

    @property
    def version(self) -> tuple[int, int]:
        text = (self.path / "lib" / "bb" / "__init__.py").read_text()
        found = re.search(r'^__version__ = "(\d+)\.(\d+)', text, re.MULTILINE)
        assert found is not None
        return int(found[1]), int(found[2])


@dataclass(frozen=True)
class Ended:
    """What one build left."""

    exit: Exit
    result: DriverResult | None
    progress: Progress
    console: str
    events: list[Mapping[str, Any]]

    def named(self, name: str) -> list[Mapping[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["event"] == name]


def layer_tree(name: str, path: Path, collection: str, folder: str = ".") -> LayerTree:
    """A tree with one layer."""
    return LayerTree(name, "", "", "0" * 40, path, (FoundLayer(collection, folder),))


@dataclass
class BuildSite:
    """Directories of one workspace, and builds in it."""

    runtime: DockerRuntime
    image: str
    user: User
    root: Path
    bitbake: Checkout
    trees: tuple[LayerTree, ...]
    init_script: str | None = None
    started: list[Handle] = field(default_factory=list)
    memory_bytes: int | None = None

    def folder(self, name: str) -> Path:
        """A directory that the build may write."""
        path = self.root / name
        if not path.exists():
            path.mkdir(parents=True)
            own(path, self.user)
        return path

    @property
    def topdir(self) -> Path:
        return self.folder("build")

    @property
    def control(self) -> Path:
        return self.folder("control")

    def layer_set(self) -> LayerSet:
        """The layers as the layer store would hand them over."""
        return LayerSet(
            trees=self.trees,
            bblayers=tuple(tree.mount_point / tree.layers[0].path for tree in self.trees),
            bitbake=PurePosixPath("/smidr/layers/bitbake"),
            bitbake_version=self.bitbake.version,
        )

    def start(self, *targets: str, config: Mapping[str, Any] | None = None, **plan: Any) -> Handle:
        """Write conf files and plan, and start the container."""
        model = ProjectConfig.model_validate({"name": "test", **(config or {})})
        write_conf(self.topdir, ConfInputs(model, self.layer_set(), threads=2, make_jobs=2))
        own(self.topdir / "conf", self.user)
        for name in ("plan.json", "result.json", "events.jsonl", "console.log"):
            (self.control / name).unlink(missing_ok=True)
        install(self.control)
        settings = Plan(
            **{
                "build_id": "test",
                "targets": targets,
                "bitbake": "/smidr/layers/bitbake",
                "init_script": self.init_script,
                **plan,
            }
        )
        (self.control / "plan.json").write_text(settings.to_json())
        handle = self.runtime.start(self._spec())
        self.started.append(handle)
        return handle

    def _spec(self) -> ContainerSpec:
        shared = {name: self.folder(name) for name in ("downloads", "sstate", "home")}
        writable = {"build": self.topdir, "control": self.control, **shared}
        return ContainerSpec(
            build_id=f"test-{uuid.uuid4().hex[:8]}",
            image=self.image,
            command=driver_command(),
            user=self.user,
            mounts=(
                Mount(self.bitbake.path, PurePosixPath("/smidr/layers/bitbake")),
                *(Mount(tree.tree, tree.mount_point) for tree in self.trees),
                *(
                    Mount(path, PurePosixPath(f"/smidr/{name}"), writable=True)
                    for name, path in writable.items()
                ),
            ),
            memory_bytes=self.memory_bytes,
        )

    def finish(self, handle: Handle, seconds: float = _ENOUGH_S) -> Ended:
        """Wait for the container's end."""
        ended = self.runtime.wait(handle, seconds)
        console = self._text("console.log")
        assert ended is not None, f"still running after {seconds} s: {console[-3000:]}"
        events = EventReader(self.control / "events.jsonl").read()
        result = self._text("result.json")
        return Ended(
            ended,
            DriverResult.from_json(json.loads(result)) if result else None,
            Progress().fold(events),
            console,
            events,
        )

    def run(self, *targets: str, config: Mapping[str, Any] | None = None, **plan: Any) -> Ended:
        """Build to the end."""
        return self.finish(self.start(*targets, config=config, **plan))

    def _text(self, name: str) -> str:
        path = self.control / name
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_until(self, handle: Handle, is_so: Callable[[], bool], what: str) -> None:
        """Wait for a condition; fail when the build ends before."""
        deadline = time.monotonic() + _ENOUGH_S
        while not is_so():
            ended = self.runtime.wait(handle, 0.1)
            assert ended is None, f"ended before {what}: {self._text('console.log')[-3000:]}"
            assert time.monotonic() < deadline, f"no {what}: {self._text('console.log')[-3000:]}"

    def wait_for_file(self, handle: Handle, name: str) -> None:
        """Wait until the build has made a file in TOPDIR."""
        self.wait_until(handle, (self.topdir / name).exists, name)

    def seed(self, source: Path, names: Iterable[Path]) -> None:
        """Copy files (relative to `source`) into TOPDIR, with their times."""
        for name in names:
            target = self.topdir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target)
            for inner in (name, *name.parents):
                os.chown(self.topdir / inner, self.user.uid, self.user.gid)

    def clean_up(self) -> None:
        """Remove the containers."""
        for handle in self.started:
            self.runtime.remove(handle)
