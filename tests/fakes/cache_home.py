"""A host with caches that hold a little of everything, of known ages."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.caches.job_archives import JobArchives
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.files import make_marked_dir
from smidr_ci.home import Home
from smidr_ci.images.model import StoredImage
from smidr_ci.layers.tree import TreeStore
from tests.fakes.clock import FakeClock

__all__ = ["CacheHome", "FakeImages", "object_name"]


def object_name(number: int, recipe: str = "busybox", suffix: str = ".tar.zst") -> str:
    """The path of an sstate object, as OE-Core names it; the number is its hash."""
    unihash = f"{number:064x}"[::-1]
    name = f"sstate:{recipe}:core2-64-poky-linux:1.36.1:r0:core2-64:12:{unihash}_package{suffix}"
    return f"{unihash[:2]}/{unihash[2:4]}/{name}"


@dataclass
class FakeImages:
    """Builder images without an engine; `removed` lists the ids that went."""

    images: list[StoredImage] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def stored(self) -> list[StoredImage]:
        return list(self.images)

    def remove(self, image: StoredImage) -> bool:
        self.images.remove(image)
        self.removed.append(image.id)
        return True


class CacheHome:
    """Fills a home; ages are in days before the clock's time."""

    def __init__(self, root: Path, agent: AgentConfig | None = None) -> None:
        self.clock = FakeClock()
        self.images = FakeImages()
        # The disk of whoever runs the tests may be short: only tests of that want to know.
        self.agent = agent or AgentConfig.model_validate({"cache": {"gc_below_free": 0}})
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.host = self.host_with(self.agent)

    def host_with(self, agent: AgentConfig) -> Host:
        """The same home under other settings."""
        host = Host(Home(self.root), agent, {"HOME": str(self.root)}, self.clock)
        vars(host).update(images=self.images)
        return host

    @property
    def sstate(self) -> Path:
        return self.root / "sstate-cache"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    def file(self, path: Path, days: float, size: int = 2000) -> Path:
        """A file of an age."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        self.age(path, days)
        return path

    def age(self, path: Path, days: float) -> None:
        """Let a path have been used last so many days ago."""
        moment = (self.clock.now() - timedelta(days=days)).timestamp()
        os.utime(path, (moment, moment))

    def sstate_object(self, number: int, days: float, size: int = 2000) -> Path:
        """An object with its signature; neither can be unpacked."""
        path = self.sstate / object_name(number)
        self.file(path.with_name(f"{path.name}.siginfo"), days, 100)
        return self.file(path, days, size)

    def download(self, name: str, days: float, size: int = 2000) -> Path:
        """A download with its stamp."""
        self.file(self.downloads / f"{name}.done", days, 10)
        return self.file(self.downloads / name, days + 100, size)

    def git_download(self, name: str, days: float) -> Path:
        """A folder as the git fetcher makes it."""
        mirror = self.downloads / "git2" / name
        self.file(mirror / "objects" / "pack" / "pack-1.pack", days + 100, 9000)
        self.file(mirror / "HEAD", days + 100, 10)
        self.file(mirror.with_name(f"{name}.done"), days, 0)
        return mirror

    def record(self, number: int, days: float, *, hours: float = 1, **more: object) -> BuildRecord:
        """A build that was; a completed one unless `state` says otherwise."""
        begun = self.clock.now() - timedelta(days=days)
        known: dict[str, object] = {
            "build_id": f"default-{number:08x}",
            "customer": "default",
            "project": "project",
            "targets": ("image",),
            "state": BuildState.COMPLETED,
            "created": begun,
            "started": begun,
            "ended": begun + timedelta(hours=hours),
        }
        record = BuildRecord(**{**known, **more})  # type: ignore[arg-type]  # tests' own keywords
        self.host.store.add(record)
        return record

    def layer_tree(self, repository: str, commit: str, days: float) -> Path:
        """A layer tree that was leased last some days ago."""
        layers = self.host.places.layers

        def fill(folder: Path) -> dict[str, object]:
            (folder / "layer.conf").write_text("x" * 3000)
            return {}

        locks = self.host.home.locks
        locks.mkdir(exist_ok=True)
        (layers / "trees").mkdir(parents=True, exist_ok=True)
        tree = TreeStore(layers / "trees", locks).make(repository, commit, fill, CancelToken())
        self.age(tree.home / "lease", days)
        return tree.home

    def mirror(self, repository: str, days: float) -> Path:
        """A layer mirror that was fetched into last some days ago."""
        mirror = self.host.places.layers / "mirrors" / f"{repository}.git"
        self.file(mirror / "objects" / "pack" / "pack-1.pack", days)
        for part in ("objects/pack", ""):
            self.age(mirror / part, days)
        return mirror

    def kept_workspace(self, build_id: str, days: float) -> Path:
        """A workspace that was kept some days ago."""
        store = self.host.workspace_store(self.host.places)
        self.clock.advance(-days * 86_400)
        workspace = store.lease("default-project", build_id)
        (workspace.build / "big").write_bytes(b"x" * 5000)
        store.release(workspace, keep=True)
        self.clock.advance(days * 86_400)
        return workspace.path

    def parse_cache(self, name: str, days: float) -> Path:
        """A saved parse cache."""
        folder = make_marked_dir(self.host.home.parse_cache / name)
        (folder / "bb_cache.dat").write_bytes(b"x" * 4000)
        self.age(folder, days)
        return folder

    def job_cache(self, key: str, days: float) -> Path:
        """What a job kept some days ago."""
        archives = JobArchives(self.host.home.job_caches, spare_bytes=0)
        archives.save("acme", key, [b"x" * 5000], CancelToken())
        folder = archives.place("acme", key).parent
        self.age(folder, days)
        return folder

    def image(self, image_id: str, days: float, kind: str = "builder") -> StoredImage:
        """An image that the engine has."""
        made = (self.clock.now() - timedelta(days=days)).timestamp()
        image = StoredImage(image_id, (f"smidr-{kind}:{image_id}",), kind, made, 500_000_000)
        self.images.images.append(image)
        return image
