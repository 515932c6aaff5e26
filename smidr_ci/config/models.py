"""`smidr.yaml`: what to build. It comes with a repository, so every value is untrusted input.

Each attribute's docstring is its line in the configuration reference and in the JSON schema.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from smidr_ci.config.base import Model
from smidr_ci.config.values import (
    GitUrl,
    Glob,
    LayerPath,
    MemorySize,
    ParallelMake,
    check_environment_names,
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
    "ProjectConfig",
]

Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]{0,127}$")]
Target = Annotated[
    str,
    StringConstraints(
        pattern=r"^(mc:[A-Za-z0-9._-]*:)?[A-Za-z0-9][A-Za-z0-9+._/-]*(:do_[a-z0-9_]+)?$"
    ),
]
Ref = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
ConfValue = Annotated[str, StringConstraints(pattern=r"^[^\n\x00]*$", max_length=4096)]
Count = Annotated[int, Field(ge=1, le=4096, strict=True)]
PackageClass = Literal["rpm", "deb", "ipk", "tar"]


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
    layers: tuple[LayerPath, ...] | None = None
    """Sub-folders to use as layers; the default is every layer found except tests and skeletons.
    An empty list uses none (a repository that holds only BitBake)."""


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
    fetch_first: bool = False
    """Fetch all sources in a phase of its own, then build with BB_NO_NETWORK."""
    sstate: str | None = None
    """Older name of `directories.sstate`."""
    tmp: str | None = None
    """Older name of `directories.tmp`."""
    deploy: str | None = None
    """Older name of `directories.deploy`."""
    package_classes: tuple[PackageClass, ...] = ()
    """Older name of `packages.classes`."""
    extra_image_features: tuple[Word, ...] = ()
    """Older name of `features.extra_image_features`."""
    inherit_classes: tuple[Word, ...] = ()
    """Older name of `features.inherit_classes`."""


class Directories(Model):
    """Host directories, when the defaults under `$SMIDR_HOME` don't fit. Relative to the file."""

    layers: str | None = None
    """Where layer mirrors and trees are kept."""
    downloads: str | None = None
    """DL_DIR, shared by builds."""
    sstate: str | None = None
    """SSTATE_DIR, shared by builds."""
    source: str | None = None
    """Mounted read-only at `/smidr/src`, for recipes that build the project's own checkout."""
    build: str | None = None
    """Where workspaces are made; each build gets a directory of its own in it."""
    tmp: str | None = None
    """Where TMPDIRs are made; each build gets a directory of its own in it."""
    deploy: str | None = None
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


class Advanced(Model):
    """BitBake settings that few need."""

    bb_hashserve: ConfValue | None = None
    """BB_HASHSERVE: `auto` or `host:port`; by default no hash server is used."""
    bb_signature_handler: Word | None = None
    """BB_SIGNATURE_HANDLER."""
    license_flags: tuple[Word, ...] = ()
    """LICENSE_FLAGS_ACCEPTED (LICENSE_FLAGS_WHITELIST in old releases)."""
    conf_version: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}$")] | Count | None = None
    """CONF_VERSION."""
    disk_monitoring: bool = True
    """BB_DISKMON_DIRS: stop cleanly before the disk is full."""
    qemu_sdl: bool = False
    """Build qemu-system-native with SDL."""
    qemu_gtk: bool = False
    """Build qemu-system-native with GTK."""
    accept_fsl_eula: bool = False
    """ACCEPT_FSL_EULA: you have read and accept NXP's licence."""
    build_timeout: Count | None = Field(default=None, le=100_000)
    """Time limit of the whole build in minutes."""
    sstate_mirrors: tuple[ConfValue, ...] | ConfValue = ()
    """SSTATE_MIRRORS, one `regex replacement` pair per item."""
    premirrors: tuple[ConfValue, ...] | ConfValue = ()
    """PREMIRRORS, one `regex replacement` pair per item, tried before all others."""
    bb_no_network: bool = False
    """BB_NO_NETWORK: fetch nothing."""
    bb_fetch_premirroronly: bool = False
    """BB_FETCH_PREMIRRORONLY: fetch from PREMIRRORS only."""


ImageReference = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._:/@-]{0,511}$")]
DebianPackage = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.:-]{0,127}$")]


class Container(Model):
    """The builder image and the limits of the container."""

    base_image: (
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._:/@-]{0,511}$")] | None
    ) = None
    """Image to build in, or to install `packages` on; pulled when missing. `name@sha256:...` pins."""
    packages: (
        tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.:-]{0,127}$")], ...]
        | None
    ) = None
    """Debian packages installed on the base image; the result is kept and found again by hash.
    The default is none on a `base_image`, and a list for Yocto hosts on a bootstrapped base."""
    bootstrap: Literal["never", "auto", "always"] = "auto"
    """Make a Debian base with mmdebstrap: `auto` when `base_image` is not given."""
    memory: MemorySize | None = None
    """Memory limit, such as `8G`."""
    cpu_count: Annotated[float, Field(gt=0, le=4096)] | None = None
    """CPUs, such as `4` or `2.5`."""
    pids: Annotated[int, Field(ge=64, le=4_194_304, strict=True)] | None = None
    """Limit of processes and threads."""
    shm_size: MemorySize | None = None
    """Size of /dev/shm."""
    entrypoint: tuple[ConfValue, ...] | ConfValue | None = None
    """Program, with arguments, that is given the build's command line and must exec it."""


class CacheSettings(Model):
    """How long what this project leaves behind is kept."""

    retention: Annotated[int, Field(ge=1, le=3650, strict=True)] | None = None
    """Days that artifacts and kept workspaces of this project stay."""


class ProjectConfig(Model):
    """The whole of `smidr.yaml`."""

    config_version: Literal[1] = 1
    """Version of this format."""
    name: Slug
    """Name of the project."""
    description: Annotated[str, StringConstraints(max_length=4096)] = ""
    """What it is, for people; shown with the build."""
    yocto_series: Word | None = None
    """Release that every layer must be compatible with, such as `scarthgap`."""
    base: Base = Base()
    """Distribution and machine."""
    layers: tuple[LayerEntry, ...] = ()
    """Repositories with BitBake and the layers."""
    build: Build = Build()
    """Targets and parallelism."""
    directories: Directories = Directories()
    """Host directories."""
    packages: Packages = Packages()
    """Package formats."""
    features: Features = Features()
    """Feature lists."""
    advanced: Advanced = Advanced()
    """BitBake settings that few need."""
    artifacts: tuple[Glob, ...] | None = None
    """Files to keep, as globs below DEPLOY_DIR; the default is what an image build leaves."""
    container: Container = Container()
    """Builder image and limits."""
    cache: CacheSettings = CacheSettings()
    """How long things are kept."""
    local_conf: str | tuple[str, ...] = ()
    """Lines added to the end of local.conf."""
    environment: Annotated[dict[str, ConfValue], AfterValidator(check_environment_names)] = Field(
        default_factory=dict
    )
    """Variables that BitBake and the recipes may see."""
