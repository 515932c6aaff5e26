"""Whole builds in this process: real pipeline, store, layers and workspaces; no engine, no BitBake.

The "container" copies what it was given and leaves an image, as a build would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.observer import SilentObserver
from smidr_ci.builds.pipeline import run_build
from smidr_ci.builds.request import BuildRequest
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.loader import LoadedProject, load_project_text
from smidr_ci.config.models import LayerEntry, ProjectConfig
from smidr_ci.containers.runtime import ContainerSpec
from smidr_ci.home import Home
from smidr_ci.images.model import BuilderImage
from smidr_ci.trust import Trust
from tests.fakes.clock import FakeClock
from tests.fakes.runtime import FakeContainer, FakeRuntime

__all__ = ["Bench", "Seen"]

_ROOMY = {"limits": {"min_free_disk": 1, "min_free_disk_percent": 0}}


@dataclass(frozen=True)
class Seen:
    """What one build was, from outside and from inside its container."""

    record: BuildRecord
    spec: ContainerSpec | None
    """None when the build did not come to a container."""
    files: Mapping[str, str]
    """Text of `local.conf`, `bblayers.conf` and `plan.json`."""


class _Images:
    """Stands for the image store: every project gets the same image."""

    def ensure(self, *_: object, **__: object) -> BuilderImage:
        return BuilderImage("sha256:" + "1" * 64, "builder", "builder")


@dataclass
class Bench:
    """A home, a project directory with two local layers, and builds on them."""

    root: Path
    environ: dict[str, str] = field(default_factory=lambda: {"CI_TAG": "v1"})
    exit_code: int = 0
    """What BitBake ends with."""
    warnings: tuple[str, ...] = ()
    """Lines that BitBake prints on its console, each told as an event too."""
    clock: FakeClock = field(default_factory=FakeClock)
    _files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.project.mkdir(parents=True)
        _write_bitbake(self.project / "bitbake")
        _write_core(self.project / "core")
        _write_bitbake(self.project / "core" / "bitbake")
        self.environ["HOME"] = str(self.root)

    @property
    def project(self) -> Path:
        """Where the config lies."""
        return self.root / "project"

    def host(self, agent: AgentConfig | None = None) -> Host:
        """The host with these settings of the operator."""
        agent = agent or AgentConfig.model_validate(_ROOMY)
        host = Host(Home(self.root / "home"), agent, self.environ, self.clock)
        # Where `cached_property` keeps what it made.
        vars(host).update(runtime=FakeRuntime(self.program), images=_Images())
        return host

    def loaded(self, config: ProjectConfig) -> LoadedProject:
        """The config as if it had been read from the project's directory, with local layers."""
        text = "name: project\n"
        path = self.project / "smidr.yaml"
        frame = load_project_text(text, str(path), directory=self.project, environ=self.environ)
        local = [LayerEntry(name=name, path=name) for name in ("bitbake", "core")]
        return replace(frame, config=config.model_copy(update={"layers": tuple(local)}))

    def build(
        self,
        config: ProjectConfig,
        agent: AgentConfig | None = None,
        trust: Trust = Trust.TRUSTED,
        private_cache_key: str = "",
        ref: str = "",
    ) -> Seen:
        """Run a whole build."""
        self._files.clear()
        host = self.host(agent)
        request = BuildRequest(
            project=self.loaded(config),
            trust=trust,
            private_cache_key=private_cache_key,
            ref=ref,
        )
        record = run_build(host, request, CancelToken(), SilentObserver())
        host.store.close()
        started = [spec for spec in vars(host)["runtime"].started if spec.role == "build"]
        return Seen(record, started[0] if started else None, dict(self._files))

    def program(self, container: FakeContainer) -> int:
        """What the container does: see the module."""
        if container.spec.role != "build":
            return 0
        build, control = container.host_path("/smidr/build"), container.host_path("/smidr/control")
        for path in (
            build / "conf/local.conf",
            build / "conf/bblayers.conf",
            control / "plan.json",
        ):
            self._files[path.name] = path.read_text()
        is_apart = any(str(mount.target) == "/smidr/deploy" for mount in container.spec.mounts)
        deploy = container.host_path("/smidr/deploy" if is_apart else "/smidr/build/tmp/deploy")
        images = deploy / "images" / "machine"
        images.mkdir(parents=True, exist_ok=True)  # a warm workspace has it already
        for name in ("image.wic", "image.manifest", "image.cpio.gz"):
            (images / name).write_text(name)
        for name, lines in {
            "console": self.warnings,
            "events": [json.dumps({"event": "log", "level": "warning"}) for _ in self.warnings],
        }.items():
            (control / CONTROL_FILES[name]).write_text("".join(f"{line}\n" for line in lines))
        result = {"exit_code": self.exit_code, "phase": "build"}
        (control / CONTROL_FILES["result"]).write_text(json.dumps(result))
        return self.exit_code


def _write_bitbake(root: Path) -> None:
    for path, text in {
        "bin/bitbake": "",
        "bin/bitbake-hashserv": "",
        "lib/hashserv/server.py": "",
        "lib/bb/__init__.py": '__version__ = "2.8.0"\n',
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def _write_core(root: Path) -> None:
    conf = root / "conf"
    for path in ("machine/qemuarm64", "machine/qemux86", "distro/poky", "multiconfig/second"):
        (conf / path).parent.mkdir(parents=True, exist_ok=True)
        (conf / f"{path}.conf").touch()
    (root / "oe-init-build-env").touch()
    (conf / "layer.conf").write_text(
        'BBFILE_COLLECTIONS += "core"\nLAYERSERIES_COMPAT_core = "kirkstone"\n'
        'LAYERSERIES_CORENAMES = "kirkstone"\n'
    )
