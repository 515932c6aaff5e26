"""`local.conf` and `bblayers.conf`, written from typed values."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.bitbake.names import check_distro, check_machine, check_multiconfig, check_names
from smidr_ci.bitbake.quoting import assign
from smidr_ci.bitbake.release import Release
from smidr_ci.config.models import ProjectConfig
from smidr_ci.errors import LayerError
from smidr_ci.files import as_host_error, open_untrusted, write_atomic
from smidr_ci.layers.model import LayerSet

__all__ = [
    "ConfInputs",
    "Mirrors",
    "Share",
    "check_distro",
    "check_machine",
    "check_multiconfig",
    "check_names",
    "remove_strays",
    "render_bblayers_conf",
    "render_local_conf",
    "write_conf",
]

_HEADER: Final = "# Written by smidr from smidr.yaml for each build; changes here are lost."
_RM_WORK: Final = "rm_work"
_MAX_CONF_BYTES: Final = 16 * 1024**2
_OWN_FILES: Final = frozenset(
    {"local.conf", "bblayers.conf", "templateconf.cfg", "conf-notes.txt", "conf-summary.txt"}
    | {"sanity_info"}
)
"""Those that smidr, OE-Core's init script and its sanity check write."""

# As OE-Core's own-mirrors.bbclass, but for file:// and what has neither file nor tarball.
_MIRRORED: Final = ("git", "gitsm", "hg", "https?", "ftp", "npm", "crate", "s3", "gs", "az")

# BB_DISKMON_DIRS: stop taking tasks first, end at once when that was not enough.
_DISK_LIMITS: Final = (("STOPTASKS", "1G,100K"), ("HALT", "100M,1K"))


@dataclass(frozen=True)
class Mirrors:
    """The operator's, as pairs of pattern and replacement."""

    sstate: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """What hosts share, below one URL: `sstate/` and maybe `downloads/`."""

    url: str
    has_downloads: bool = True
    packs_repositories: bool = False
    """Whether this build leaves tarballs of git repositories in DL_DIR."""

    @property
    def sstate(self) -> str:
        """A pair for SSTATE_MIRRORS."""
        return f"file://.* {self.url}/sstate/PATH;downloadfilename=PATH"

    @property
    def sources(self) -> tuple[str, ...]:
        """Pairs for PREMIRRORS."""
        schemes = _MIRRORED if self.has_downloads else ()
        return tuple(f"{scheme}://.*/.* {self.url}/downloads/" for scheme in schemes)


@dataclass(frozen=True)
class ConfInputs:
    """All that goes into the conf files. Directories are container paths."""

    config: ProjectConfig
    layers: LayerSet
    threads: int
    """BB_NUMBER_THREADS, and processes that parse."""
    make_jobs: int
    """Jobs of each make."""
    downloads: str = "/smidr/downloads"
    sstate: str = "/smidr/sstate"
    tmpdir: str = "${TOPDIR}/tmp"
    deploy_dir: str | None = None
    """DEPLOY_DIR when it lies outside TMPDIR."""
    sstate_mirror: str | None = None
    """Asked before those of the config."""
    operator_mirrors: Mirrors = Mirrors()
    """Asked after those of the config."""
    share: Share | None = None
    """What other hosts made, asked before all mirrors but `sstate_mirror`."""
    hash_server: str | None = None
    """Address of the host's, for a config that names none."""
    rm_work: bool = False
    """Recipes remove their work directories when they are done; needs OE-Core."""
    extra: tuple[str, ...] = ()
    """Lines that caches and trust ask for, before the config's own `local_conf`."""


def render_local_conf(inputs: ConfInputs) -> str:
    """The text of `conf/local.conf`; the config's own lines come last, so they win."""
    groups = (
        ("What is built", _project(inputs)),
        ("Directories", _directories(inputs)),
        ("Parallelism", _parallelism(inputs)),
        ("Signatures", _signatures(inputs)),
        ("Fetching", _fetching(inputs)),
        ("Features", _features(inputs)),
        ("Images and licences", _images(inputs)),
        ("Caches and trust", inputs.extra),
        ("smidr.yaml: local_conf", inputs.config.local_conf),
    )
    blocks = (f"# {title}\n{_lines(lines)}" for title, group in groups if (lines := list(group)))
    return "\n".join((f"{_HEADER}\n", *blocks))


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _project(inputs: ConfInputs) -> Iterator[str]:
    config, release = inputs.config, Release(inputs.layers.bitbake_version)
    yield assign("CONF_VERSION", config.advanced.conf_version or release.conf_version)
    if config.resolved_machine:
        yield assign("MACHINE", config.resolved_machine)
    if config.base.distro:
        yield assign("DISTRO", config.base.distro)
    if config.build.multiconfig:
        yield assign("BBMULTICONFIG", " ".join(config.build.multiconfig))


def _directories(inputs: ConfInputs) -> Iterator[str]:
    release = Release(inputs.layers.bitbake_version)
    yield assign("DL_DIR", inputs.downloads)
    yield assign("SSTATE_DIR", inputs.sstate)
    yield assign("TMPDIR", inputs.tmpdir)
    if release.appends_libc_to_tmpdir:
        yield assign("TCLIBCAPPEND", "")
    if inputs.deploy_dir:
        yield assign("DEPLOY_DIR", inputs.deploy_dir)
    if inputs.config.advanced.disk_monitoring:
        yield assign("BB_DISKMON_DIRS", _disk_limits(inputs, release))


def _disk_limits(inputs: ConfInputs, release: Release) -> str:
    watched = ["${TMPDIR}", "${DL_DIR}", "${SSTATE_DIR}"]
    if inputs.deploy_dir:
        watched.append("${DEPLOY_DIR}")
    return " ".join(
        f"{release.disk_action(action)},{folder},{limits}"
        for action, limits in _DISK_LIMITS
        for folder in watched
    )


def _parallelism(inputs: ConfInputs) -> Iterator[str]:
    release = Release(inputs.layers.bitbake_version)
    yield assign("BB_NUMBER_THREADS", str(inputs.threads))
    yield assign("BB_NUMBER_PARSE_THREADS", str(inputs.threads))
    yield assign("PARALLEL_MAKE", f"-j {inputs.make_jobs}")
    # Neither changes what recipes say: they must not cost another parse of them all.
    yield assign(
        release.append_to(release.config_hash_ignore),
        " BB_NUMBER_PARSE_THREADS BB_NO_NETWORK SSTATE_MIRRORS",
    )
    # Then no task's hash may hang on it: a cached parse would differ from the one in the worker.
    yield assign(release.append_to(release.task_hash_ignore), " BB_NO_NETWORK")


def _signatures(inputs: ConfInputs) -> Iterator[str]:
    advanced = inputs.config.advanced
    handler, server = advanced.bb_signature_handler, advanced.bb_hashserve
    if inputs.hash_server and handler in {None, "OEEquivHash"} and server is None:
        handler, server = "OEEquivHash", inputs.hash_server
        # BitBake asks it only for a server of its own; without, OE-Core warns of mirrors.
        yield assign("BB_HASHSERVE_UPSTREAM", inputs.hash_server)
    if inputs.layers.has_oe_core:
        # A hash server of its own beside a shared sstate would make builds miss each other's work,
        # so there is none unless the config asks for it; then both settings must agree.
        handler = handler or ("OEEquivHash" if server else "OEBasicHash")
        server = ("auto" if handler == "OEEquivHash" else "") if server is None else server
    if handler is not None:
        yield assign("BB_SIGNATURE_HANDLER", handler)
    if server is not None:
        yield assign("BB_HASHSERVE", server)


def _fetching(inputs: ConfInputs) -> Iterator[str]:
    advanced, release = inputs.config.advanced, Release(inputs.layers.bitbake_version)
    mirrors = inputs.operator_mirrors
    share = inputs.share
    if sstate := (*advanced.sstate_mirrors, *mirrors.sstate):
        yield assign("SSTATE_MIRRORS", " ".join(sstate))
    if (sstate or share) and inputs.config.build.fetch_first and not advanced.bb_no_network:
        # They are asked in the build's own phase, whose sources are all fetched.
        yield assign("SSTATE_MIRROR_ALLOW_NETWORK", "1")
    # By prepending, they stay when the project sets mirrors of its own in local_conf.
    before = [inputs.sstate_mirror, share.sstate if share else None]
    if first := [line for line in before if line]:
        yield assign(release.prepend_to("SSTATE_MIRRORS"), " ".join(first) + " ")
    shared_sources = share.sources if share else ()
    if sources := (*shared_sources, *advanced.premirrors, *mirrors.sources):
        yield assign(release.prepend_to("PREMIRRORS"), " ".join(sources) + " ")
    if share and share.packs_repositories:
        yield assign("BB_GENERATE_MIRROR_TARBALLS", "1")
    if advanced.bb_no_network:
        yield assign("BB_NO_NETWORK", "1")
    if advanced.bb_fetch_premirroronly:
        yield assign("BB_FETCH_PREMIRRORONLY", "1")


def _features(inputs: ConfInputs) -> Iterator[str]:
    config, release = inputs.config, Release(inputs.layers.bitbake_version)
    if config.package_classes:
        classes = " ".join(f"package_{name}" for name in config.package_classes)
        yield assign("PACKAGE_CLASSES", classes)
    if config.features.user_classes:
        yield assign("USER_CLASSES", " ".join(config.features.user_classes))
    inherited: list[str] = [*config.inherit_classes]
    if inputs.rm_work and inputs.layers.has_oe_core and _RM_WORK not in inherited:
        inherited.append(_RM_WORK)
    if inherited:
        yield assign("INHERIT", " ".join(inherited), "+=")
    advanced = config.advanced
    for wanted, name in ((advanced.qemu_sdl, "sdl"), (advanced.qemu_gtk, "gtk+")):
        if wanted:
            variable = release.append_to("PACKAGECONFIG", "pn-qemu-system-native")
            yield assign(variable, f" {name}")


def _images(inputs: ConfInputs) -> Iterator[str]:
    config, release = inputs.config, Release(inputs.layers.bitbake_version)
    if config.image_features:
        yield assign("EXTRA_IMAGE_FEATURES", " ".join(config.image_features))
    if config.build.extra_packages:
        packages = " ".join(config.build.extra_packages)
        yield assign(release.append_to("IMAGE_INSTALL"), f" {packages}")
    if config.advanced.license_flags:
        yield assign(release.license_flags, " ".join(config.advanced.license_flags))
    if config.advanced.accept_fsl_eula:
        yield assign("ACCEPT_FSL_EULA", "1")


def render_bblayers_conf(inputs: ConfInputs) -> str:
    """The text of `conf/bblayers.conf`.

    BBPATH is what a project without OE-Core's `oe-init-build-env` finds its conf files by.
    Raises `LayerError` for a path that BBLAYERS, a list parted by blanks, can't hold.
    """
    for path in inputs.layers.bblayers:
        if any(mark.isspace() for mark in str(path)):
            raise LayerError(
                f"BitBake can't use a layer with a blank in its path: {path}",
                hint="Rename the folder in the layer's repository, or leave it out of 'layers'.",
            )
    lines = (
        assign("BBPATH", "${TOPDIR}"),
        assign("BBFILES", "", "?="),
        assign("BBLAYERS", " ".join(str(path) for path in inputs.layers.bblayers)),
    )
    return f"{_HEADER}\n\n{_lines(lines)}"


def write_conf(topdir: Path, inputs: ConfInputs) -> None:
    """Write both files into `topdir/conf`; a file that is right already keeps its time.

    BitBake parses everything again when a conf file's time has changed. Raises `HostError`.
    """
    folder = topdir / "conf"
    try:
        if folder.is_symlink():  # left by a recipe of an earlier build in this workspace
            folder.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "local.conf", render_local_conf(inputs))
        _write(folder / "bblayers.conf", render_bblayers_conf(inputs))
    except OSError as error:
        raise as_host_error(error, "can't write the build's configuration", folder) from error


def remove_strays(topdir: Path) -> None:
    """Remove from `topdir/conf` what BitBake would read and an earlier build left there.

    `auto.conf` and the like come from recipes or from somebody's shell. Raises `HostError`.
    """
    folder = topdir / "conf"
    try:
        if folder.is_symlink() or not folder.is_dir():
            return
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in _OWN_FILES:
                path.unlink()
    except OSError as error:
        raise as_host_error(error, "can't tidy the build's configuration", folder) from error


def _write(path: Path, text: str) -> None:
    raw = text.encode()
    with contextlib.suppress(OSError), open_untrusted(path) as present:
        if present.read(_MAX_CONF_BYTES) == raw:
            return
    write_atomic(path, raw)
