"""The sections of `smidr.yaml`.

Each attribute's docstring is its line in the configuration reference and in the JSON schema.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, Strict, WithJsonSchema, model_validator

from smidr_ci.config.base import MisfitError, MisfitsError, Model
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.values import (
    Command,
    Commit,
    ConfValue,
    Count,
    DebianPackage,
    Flag,
    GitUrl,
    HostPath,
    ImageReference,
    LayerPath,
    MemorySize,
    MirrorLines,
    PackageClass,
    ParallelMake,
    Ref,
    Slug,
    SubFolder,
    Target,
    Warnings,
    Word,
)

__all__ = [
    "Advanced",
    "Base",
    "Build",
    "CacheSettings",
    "Container",
    "Directories",
    "Features",
    "LayerEntry",
    "Packages",
]

_MIN_MEMORY = 256 * 1024**2
_MIN_SHM = 1024**2


class Base(Model):
    """The base of the build: which distribution, for which machine."""

    provider: Slug | None = None
    """`poky` or `oe-core` supply BitBake and the core layers when `layers` names none; any other
    value names the entry of `layers` whose `oe-init-build-env` is used."""
    machine: Word | None = None
    """MACHINE; left to the project's own conf when silent."""
    distro: Word | None = None
    """DISTRO."""
    version: Ref | None = None
    """Branch or tag of the provider's repositories; the default is `yocto_series`."""


class LayerEntry(Model):
    """One repository (or local directory) with one or more BitBake layers, or with BitBake."""

    name: Slug
    """Name of the directory in the container: `/smidr/layers/<name>`."""
    git: GitUrl | None = None
    """URL of the repository: https, http, ssh, git or file."""
    path: LayerPath | None = None
    """Local directory, relative to `smidr.yaml`, instead of `git`."""
    branch: Ref | None = None
    """Follow this branch; `smidr lock` pins it."""
    tag: Ref | None = None
    """Use this tag."""
    commit: Commit | None = None
    """Use exactly this commit; with `branch`, the commit must be on it."""
    mirrors: tuple[GitUrl, ...] = ()
    """URLs to try when `git` does not answer."""
    layers: tuple[SubFolder, ...] | None = None
    """Sub-folders to use as layers; the default is every layer found except tests and skeletons.
    An empty list uses none (a repository that holds only BitBake)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        faults = tuple(_layer_faults(self))
        if faults:
            raise MisfitsError(faults)
        return self


def _layer_faults(layer: LayerEntry) -> list[MisfitError]:
    who = f"layer {layer.name}"
    if layer.git is None and layer.path is None:
        return [
            MisfitError(
                f"{who} has neither git nor path",
                hint="Say where it comes from: git: <URL>, or path: <local directory>.",
            )
        ]
    if layer.git is not None and layer.path is not None:
        return [MisfitError(f"{who} has both git and path", ("path",), "Keep one of them.")]
    if layer.path is not None:
        given = [key for key in ("branch", "tag", "commit", "mirrors") if getattr(layer, key)]
        return [
            MisfitError(f"{who} is a local directory, so {key} has no effect", (key,), "Remove it.")
            for key in given
        ]
    if layer.tag is not None and (layer.branch or layer.commit):
        other = "branch" if layer.branch else "commit"
        return [MisfitError(f"{who} has both tag and {other}", ("tag",), "Keep one of them.")]
    return []


class Build(Model):
    """What to build and how parallel."""

    image: Target | None = None
    """The image or recipe to build when no target is given on the command line."""
    targets: tuple[Target, ...] = ()
    """More targets, built in the same run."""
    machine: Word | None = None
    """MACHINE; overrides `base.machine`."""
    multiconfig: tuple[Word, ...] = ()
    """BBMULTICONFIG: names of `conf/multiconfig/<name>.conf` in a layer."""
    extra_packages: tuple[Word, ...] = ()
    """Packages added to IMAGE_INSTALL."""
    parallel_make: ParallelMake | None = None
    """Jobs of each make: `8` or `-j8`; derived from CPUs and memory when silent."""
    bb_number_threads: Count | None = None
    """BB_NUMBER_THREADS: tasks at once; derived from CPUs and memory when silent."""
    fetch_first: Flag = False
    """Fetch all sources in a phase of its own, then build with BB_NO_NETWORK; a recipe that
    follows a branch (AUTOREV) can't be built like this."""
    workspace: Literal["fresh"] | None = None
    """`fresh`: never go on in the directory of an earlier build, also where the host would let this
    project. Whether builds are warm otherwise is the operator's choice."""
    fail_on_warnings: Warnings = False
    """Let a build with warnings fail: `true` for any, or categories, such as `[package-qa]`."""
    sstate: HostPath | None = None
    """Older name of `directories.sstate`."""
    tmp: HostPath | None = None
    """Older name of `directories.tmp`."""
    deploy: HostPath | None = None
    """Older name of `directories.deploy`."""
    package_classes: tuple[PackageClass, ...] = ()
    """Older name of `packages.classes`."""
    extra_image_features: tuple[Word, ...] = ()
    """Older name of `features.extra_image_features`."""
    inherit_classes: tuple[Word, ...] = ()
    """Older name of `features.inherit_classes`."""


class Directories(Model):
    """Host directories, when the defaults under `$SMIDR_HOME` don't fit. Relative to the file."""

    layers: HostPath | None = None
    """Where layer mirrors and trees are kept."""
    downloads: HostPath | None = None
    """DL_DIR, shared by builds."""
    sstate: HostPath | None = None
    """SSTATE_DIR, shared by builds."""
    source: HostPath | None = None
    """Mounted read-only at `/smidr/src`, for recipes that build the project's own checkout."""
    build: HostPath | None = None
    """Where workspaces are made; each build gets a directory of its own in it."""
    tmp: HostPath | None = None
    """Where TMPDIRs are made; each build gets a directory of its own in it."""
    deploy: HostPath | None = None
    """Where DEPLOY_DIRs are made; each build gets a directory of its own in it."""


class Packages(Model):
    """Package formats."""

    classes: tuple[PackageClass, ...] = ()
    """PACKAGE_CLASSES, the first one builds the image."""


class Features(Model):
    """Feature lists."""

    extra_image_features: tuple[Word, ...] = ()
    """EXTRA_IMAGE_FEATURES."""
    user_classes: tuple[Word, ...] = ()
    """USER_CLASSES."""
    inherit_classes: tuple[Word, ...] = ()
    """Classes added to INHERIT."""


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_ConfVersion = Annotated[
    str,
    Matching("number", "[0-9]{1,3}", "a whole number"),
    BeforeValidator(_number_as_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 999},
                {"type": "string", "pattern": "^[0-9]{1,3}$"},
            ]
        }
    ),
]


class Advanced(Model):
    """BitBake settings that few need."""

    bb_hashserve: ConfValue | None = None
    """BB_HASHSERVE: `auto` or `host:port`; by default no hash server is used."""
    bb_signature_handler: Word | None = None
    """BB_SIGNATURE_HANDLER."""
    license_flags: tuple[Word, ...] = ()
    """LICENSE_FLAGS_ACCEPTED (LICENSE_FLAGS_WHITELIST in old releases)."""
    conf_version: _ConfVersion | None = None
    """CONF_VERSION."""
    disk_monitoring: Flag = True
    """BB_DISKMON_DIRS: stop cleanly before the disk is full."""
    qemu_sdl: Flag = False
    """Build qemu-system-native with SDL."""
    qemu_gtk: Flag = False
    """Build qemu-system-native with GTK."""
    accept_fsl_eula: Flag = False
    """ACCEPT_FSL_EULA: you have read and accept NXP's licence."""
    build_timeout: Annotated[int, Field(ge=1, le=100_000), Strict(), Called("minutes")] | None = (
        None
    )
    """Time limit of the whole build in minutes."""
    sstate_mirrors: MirrorLines = ()
    """SSTATE_MIRRORS, one `regex replacement` pair per item."""
    premirrors: MirrorLines = ()
    """PREMIRRORS, one `regex replacement` pair per item, tried before all others."""
    bb_no_network: Flag = False
    """BB_NO_NETWORK: fetch nothing."""
    bb_fetch_premirroronly: Flag = False
    """BB_FETCH_PREMIRRORONLY: fetch from PREMIRRORS only."""


class Container(Model):
    """The builder image and the limits of the container."""

    base_image: ImageReference | None = None
    """Image to build in, or to install `packages` on; pulled when missing.
    `name@sha256:...` pins it."""
    packages: tuple[DebianPackage, ...] | None = None
    """Debian packages installed on the base image; the result is kept and found again by hash.
    The default is none on a `base_image`, and a list for Yocto hosts on a bootstrapped base."""
    bootstrap: Literal["never", "auto", "always"] = "auto"
    """Make a Debian base with mmdebstrap: `auto` when `base_image` is not given."""
    memory: MemorySize | None = None
    """Memory limit, such as `8G`; at least 256M."""
    cpu_count: Annotated[float, Field(ge=0.1, le=4096), Strict(), Called("number")] | None = None
    """CPUs, such as `4` or `2.5`."""
    pids: Annotated[int, Field(ge=64, le=4_194_304), Strict(), Called("number")] | None = None
    """Limit of processes and threads."""
    shm_size: MemorySize | None = None
    """Size of /dev/shm; at least 1M."""
    entrypoint: Command | None = None
    """Program, with arguments, that is given the build's command line and must exec it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        faults = tuple(_container_faults(self))
        if faults:
            raise MisfitsError(faults)
        return self


def _container_faults(container: Container) -> list[MisfitError]:
    faults = []
    if container.base_image is not None and container.bootstrap == "always":
        hint = "Remove base_image, or set bootstrap to auto or never."
        faults.append(
            MisfitError("base_image is not used when bootstrap is always", ("base_image",), hint)
        )
    if container.memory is not None and container.memory < _MIN_MEMORY:
        faults.append(MisfitError("BitBake can't work with less than 256M of memory", ("memory",)))
    if container.shm_size is not None and container.shm_size < _MIN_SHM:
        faults.append(MisfitError("shm_size must be at least 1M", ("shm_size",)))
    return faults


class CacheSettings(Model):
    """How long what this project leaves behind is kept."""

    retention: Annotated[int, Field(ge=1, le=3650), Strict(), Called("days")] | None = None
    """Days that artifacts and kept workspaces of this project's builds for the same customer
    stay; older ones go at the end of a build. By default nothing goes by age."""
