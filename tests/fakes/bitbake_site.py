"""A host's directories, and raw BitBake runs of the hello project on them, in containers."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.runtime import ContainerSpec, Handle, Mount, User
from smidr_ci.containers.user import own
from tests.fakes.hello import HelloProject

__all__ = ["Console", "Site", "check_out", "read_cpio"]

ENOUGH_S = 300.0


@dataclass(frozen=True)
class Console:
    """What one run of BitBake said, and how it ended."""

    code: int
    text: str

    @property
    def ran(self) -> list[str]:
        """Recipes and tasks that ended well, such as `hello:do_compile`, in order."""
        found = re.findall(r"recipe (\S+)-1\.0-r0: task (\w+): Succeeded", self.text)
        return [f"{recipe}:{task}" for recipe, task in found]

    @property
    def sstate(self) -> str:
        """The figures of the shared state summary."""
        found = re.search(r"Sstate summary: (.*)", self.text)
        return found[1] if found else ""


@dataclass
class Site:
    """A host's directories, and builds on it by the container that each is given."""

    runtime: DockerRuntime
    image: str
    root: Path
    user: User
    started: list[Handle] = field(default_factory=list)

    def folder(self, name: str) -> Path:
        """A directory that builds may write."""
        path = self.root / name
        path.mkdir(exist_ok=True)
        own(path, self.user)
        return path

    def start(
        self,
        project: HelloProject,
        bitbake: Path,
        workspace: str,
        *,
        conf: str = "",
        **options: str,
    ) -> Handle:
        """Start `bitbake hello-image` in a workspace; options: `target`, `sstate`."""
        topdir = self.folder(workspace)
        self._configure(topdir, conf)
        mounts = {
            "/smidr/layers/bitbake": bitbake,
            "/smidr/layers/meta-hello": project.layer,
            "/smidr/src": project.work,
        }
        shared = {
            "/smidr/build": topdir,
            "/smidr/downloads": self.folder("downloads"),
            "/smidr/sstate": self.folder(options.get("sstate", "sstate")),
            "/smidr/mirror": self.folder("mirror"),
        }
        target = options.get("target", "hello-image")
        script = f"exec /smidr/layers/bitbake/bin/bitbake {target} > console 2>&1"
        handle = self.runtime.start(
            ContainerSpec(
                build_id=f"hello-{workspace}-{os.urandom(4).hex()}",
                image=self.image,
                command=("/bin/sh", "-c", script),
                user=self.user,
                mounts=(
                    *(Mount(path, PurePosixPath(place)) for place, path in mounts.items()),
                    *(Mount(path, PurePosixPath(place), True) for place, path in shared.items()),
                ),
                environment={
                    "LANG": "en_US.UTF-8",
                    "PYTHONUNBUFFERED": "1",
                    "PATH": "/smidr/layers/bitbake/bin:/usr/bin:/bin",
                },
            )
        )
        self.started.append(handle)
        return handle

    def finish(self, handle: Handle, workspace: str) -> Console:
        """Wait for the end."""
        ended = self.runtime.wait(handle, ENOUGH_S)
        text = self.console(workspace)
        assert ended is not None, text
        return Console(ended.code, text)

    def run(
        self,
        project: HelloProject,
        bitbake: Path,
        workspace: str,
        *,
        conf: str = "",
        **options: str,
    ) -> Console:
        """Build to the end."""
        return self.finish(self.start(project, bitbake, workspace, conf=conf, **options), workspace)

    def console(self, workspace: str) -> str:
        """What has been said so far."""
        path = self.root / workspace / "console"
        return path.read_text() if path.exists() else ""

    def wait_for(self, handle: Handle, workspace: str, text: str) -> None:
        """Wait until the console has `text`; fail when the build ends before."""
        for _ in range(int(ENOUGH_S / 0.2)):
            if text in self.console(workspace):
                return
            ended = self.runtime.wait(handle, 0.2)
            assert ended is None, f"ended without {text!r}: {self.console(workspace)}"
        pytest.fail(f"no {text!r} in {ENOUGH_S} s: {self.console(workspace)}")

    def _configure(self, topdir: Path, conf: str) -> None:
        (topdir / "conf").mkdir(exist_ok=True)
        layers = 'BBPATH = "${TOPDIR}"\nBBLAYERS = "/smidr/layers/meta-hello"\n'
        caches = 'DL_DIR = "/smidr/downloads"\nSSTATE_DIR = "/smidr/sstate"\n'
        (topdir / "conf" / "bblayers.conf").write_text(layers)
        (topdir / "conf" / "local.conf").write_text(caches + conf)


def check_out(repository: str, branch: str, target: Path) -> Path:
    """Clone one branch; returns the target."""
    command = ["git", "clone", "--quiet", "--depth", "1", "--branch", branch]
    url = Path(repository).as_uri() if Path(repository).is_dir() else repository
    subprocess.run([*command, url, str(target)], check=True)
    return target


def read_cpio(packed: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content by name of a gzipped `newc` archive (Linux: buffer-format.rst)."""
    data = gzip.decompress(packed.read_bytes())
    files: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        start = at + 110 + name_size
        name = data[at + 110 : start - 1].decode()
        if name == "TRAILER!!!":
            return files
        start += -start % 4
        assert fields[2:4] == [0, 0], f"{name} does not belong to root"
        files[name] = (fields[1], data[start : start + size])
        at = start + size
        at += -at % 4
