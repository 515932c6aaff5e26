"""Builds a case in a container: folders, checkouts and the call of BitBake."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.failure_cases import RELEASES, Case

__all__ = ["DATA", "Run", "Site"]

DATA: Final = Path(__file__).resolve().parent.parent / "tests" / "data"
_LAYER: Final = DATA / "failure-layers" / "meta-hostcc"
_LAYERS: Final = "/smidr/layers"
_UPSTREAM: Final = {
    "SMIDR_TEST_OE_CORE": "https://github.com/openembedded/openembedded-core",
    "SMIDR_TEST_BITBAKE": "https://github.com/openembedded/bitbake",
}
_TIMEOUT_S: Final = 120
_LOCAL_CONF: Final = """\
CONF_VERSION = "{conf_version}"
MACHINE = "qemux86-64"
DISTRO = "hostcc"
DL_DIR = "/smidr/downloads"
SSTATE_DIR = "/smidr/sstate"
BB_HASHSERVE_DB_DIR = "${{TOPDIR}}"
TMPDIR = "${{TOPDIR}}/tmp"
BB_NUMBER_THREADS = "1"
PARALLEL_MAKE = "-j1"
PATCHRESOLVE = "noop"
PATCHTOOL = "patch"
USER_CLASSES = ""
CONNECTIVITY_CHECK_URIS = ""
SANITY_TESTED_DISTROS = ""
BBMASK = "/openembedded-core/meta/recipes-"
"""
_BBLAYERS_CONF: Final = """\
BBPATH = "${{TOPDIR}}"
BBFILES = ""
BBLAYERS = " \\
{layers}"
"""
_LAYER_CONF: Final = """\
BBPATH .= ":${LAYERDIR}"
BBFILES += "${LAYERDIR}/recipes-*/*/*.bb ${LAYERDIR}/recipes-*/*/*.bbappend"
BBFILE_COLLECTIONS += "product"
BBFILE_PATTERN_product = "^${LAYERDIR}/"
BBFILE_PRIORITY_product = "10"
LAYERDEPENDS_product = "core"
LAYERSERIES_COMPAT_product = "dunfell kirkstone scarthgap wrynose"
"""
_SCRIPT: Final = """\
cd /smidr/build
export LC_ALL=en_US.UTF-8 BBPATH=/smidr/build
export PATH=/smidr/layers/openembedded-core/scripts:/smidr/layers/bitbake/bin:/usr/bin:/bin
{{
:
{prepare}
}} > /smidr/prepared 2>&1
{{
{run}
}} > /smidr/console.log 2>&1
echo "$?" > /smidr/exit-code
"""


@dataclass(frozen=True)
class Site:
    """What all recordings share: an image, checkouts, and a folder to work in."""

    image: str
    work: Path

    def release(self, name: str) -> Path:
        """The folder of a release, with checkouts of both projects."""
        folder = self.work / name
        if not (folder / "ready").exists():
            _check_out("SMIDR_TEST_OE_CORE", name, folder / "openembedded-core", self.work)
            _check_out("SMIDR_TEST_BITBAKE", RELEASES[name], folder / "bitbake", self.work)
            self._compile(folder)
            (folder / "ready").touch()
        return folder

    def _compile(self, folder: Path) -> None:
        # Containers can't write to the checkouts, so each would compile all modules again.
        mounts = [f"--volume={folder / name}:{_LAYERS}/{name}" for name in _CHECKOUTS]
        modules = [f"{_LAYERS}/bitbake/lib", f"{_LAYERS}/openembedded-core/meta/lib"]
        compile_all = ["python3", "-m", "compileall", "-q", *modules]
        command = ["docker", "run", "--rm", "--network=none", *mounts, self.image, *compile_all]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


_CHECKOUTS: Final = ("openembedded-core", "bitbake")


@dataclass(frozen=True)
class Run:
    """One build: its folders on the host."""

    case: Case
    release: str
    folder: Path

    @property
    def name(self) -> str:
        """The folder's name under `tests/data/failures`."""
        return f"{self.case.name}-{self.release}"

    @property
    def kept(self) -> Path:
        """Where the recording is kept."""
        return DATA / "failures" / self.name

    def write(self) -> None:
        """Make the folders that the container mounts."""
        layers = "".join(
            f"  {layer} \\\n"
            for layer in (*_BASE_LAYERS, f"{_LAYERS}/meta-product", *self.case.layers)
        )
        files = {
            "conf/layer.conf": _LAYER_CONF,
            "/smidr/build/conf/bblayers.conf": _BBLAYERS_CONF.format(layers=layers),
            "/smidr/build/conf/local.conf": _local_conf(self.release) + self.case.conf,
            **self.case.files,
        }
        if self.case.recipe:
            files["recipes-product/product/product_2.1.bb"] = self.case.recipe
        for path, text in files.items():
            inside = (
                path.removeprefix("/smidr/") if path.startswith("/") else f"meta-product/{path}"
            )
            target = self.folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        for name in ("build", "downloads", "sstate"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "passwd").write_text(
            f"root:x:0:0:root:/root:/bin/sh\nbuilder:x:{_UID}:{_UID}::/smidr:/bin/sh\n"
        )

    def build(self, site: Site) -> None:
        """Run BitBake; how it ends is in `exit-code`."""
        case, release = self.case, site.release(self.release)
        name = f"smidr-record-{os.getpid()}"
        script = _SCRIPT.format(prepare=case.prepare, run=case.run)
        mounts = {
            self.folder: "/smidr",
            release / "openembedded-core": f"{_LAYERS}/openembedded-core:ro",
            release / "bitbake": f"{_LAYERS}/bitbake:ro",
            _LAYER: f"{_LAYERS}/meta-hostcc:ro",
            self.folder / "meta-product": f"{_LAYERS}/meta-product",
            self.folder / "passwd": "/etc/passwd:ro",
        }
        (self.folder / "layers").mkdir()
        _own(self.folder)
        user = "0:0" if case.user == "root" else f"{_UID}:{_UID}"
        command = [
            *("docker", "run", "--rm", "--init", "--network=none", "--hostname=builder"),
            f"--name={name}",
            *(f"--volume={source}:{target}" for source, target in mounts.items()),
            *(f"--user={user}", "--env=HOME=/smidr", f"--env=TARGET={case.target}"),
            *case.docker,
            *(site.image, "bash", "-c", script),
        ]
        try:
            subprocess.run(command, check=False, timeout=_TIMEOUT_S)
        finally:
            end = ["docker", "rm", "--force", name]
            subprocess.run(end, check=False, capture_output=True)


_UID: Final = os.getuid() or 1000
_BASE_LAYERS: Final = (f"{_LAYERS}/openembedded-core/meta", f"{_LAYERS}/meta-hostcc")


def _check_out(variable: str, branch: str, target: Path, work: Path) -> None:
    repository = os.environ.get(variable)
    if not repository:
        repository = str(work / f"{variable}.git")
        if not Path(repository).exists():
            subprocess.run(["git", "clone", "--bare", _UPSTREAM[variable], repository], check=True)
    target.mkdir(parents=True, exist_ok=True)
    archive = ["git", "-C", repository, "archive", "--format=tar", branch]
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as files:
        subprocess.run(["tar", "-x", "-C", str(target)], stdin=files.stdout, check=True)


def _local_conf(release: str) -> str:
    text = _LOCAL_CONF.format(conf_version="1" if release == "dunfell" else "2")
    return text if release == "wrynose" else f'{text}TCLIBCAPPEND = ""\n'


def _own(folder: Path) -> None:
    """Give everything to the containers' user."""
    if os.getuid() != 0:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, _UID, _UID, follow_symlinks=False)
