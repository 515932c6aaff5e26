"""`smidr.yaml`: what to build. It comes with a repository, so every value is untrusted input.

The rest of the program reads values that have two names (`build.sstate` and `directories.sstate`)
only through the `resolved_...` properties here.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, Strict, StringConstraints, TypeAdapter, model_validator

from smidr_ci.config.base import MisfitError, MisfitsError, Model
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.sections import (
    Advanced,
    Base,
    Build,
    CacheSettings,
    Container,
    Directories,
    Features,
    LayerEntry,
    Packages,
)
from smidr_ci.config.values import (
    ConfLines,
    ConfValue,
    Glob,
    PackageClass,
    Slug,
    Target,
    Word,
    check_environment_names,
)
from smidr_ci.errors import ConfigError, UsageError

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

_OLDER_NAMES = {
    ("build", "sstate"): ("directories", "sstate"),
    ("build", "tmp"): ("directories", "tmp"),
    ("build", "deploy"): ("directories", "deploy"),
    ("build", "package_classes"): ("packages", "classes"),
    ("build", "extra_image_features"): ("features", "extra_image_features"),
    ("build", "inherit_classes"): ("features", "inherit_classes"),
}


class ProjectConfig(Model):
    """The whole of `smidr.yaml`."""

    config_version: Annotated[int, Field(ge=1, le=1), Strict(), Called("number")] = 1
    """Version of this format."""
    name: Slug
    """Name of the project."""
    description: Annotated[
        str,
        StringConstraints(max_length=4096),
        Matching("text", r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]*", "text without control characters"),
    ] = ""
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
    local_conf: ConfLines = ()
    """Lines added to the end of local.conf."""
    environment: Annotated[
        dict[str, ConfValue], AfterValidator(check_environment_names), Called("names and values")
    ] = Field(default_factory=dict)
    """Variables that BitBake and the recipes may see."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        faults = (*_repeated_layers(self.layers), *_conflicting_names(self))
        if faults:
            raise MisfitsError(faults)
        return self

    @property
    def resolved_machine(self) -> str | None:
        """MACHINE; None leaves it to the project's own conf."""
        return self.build.machine or self.base.machine

    @property
    def all_targets(self) -> tuple[str, ...]:
        """`build.image` and `build.targets`, each once, in this order."""
        image = (self.build.image,) if self.build.image else ()
        return tuple(dict.fromkeys((*image, *self.build.targets)))

    def require_targets(self, chosen: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The targets of a build: those chosen on the command line, else the config's own.

        Raises `UsageError` for a malformed target, `ConfigError` when there is none at all.
        """
        for target in chosen:
            try:
                _TARGET.validate_python(target)
            except ValueError as error:
                raise UsageError(
                    f"{target!r} is not a target",
                    hint="Write core-image-minimal, busybox:do_compile or mc:other:busybox.",
                ) from error
        targets = tuple(dict.fromkeys(chosen)) or self.all_targets
        if not targets:
            raise ConfigError(
                f"project {self.name} names nothing to build",
                hint="Set build.image in smidr.yaml, or give a target: smidr build -t TARGET.",
            )
        return targets

    @property
    def resolved_directories(self) -> Directories:
        """`directories`, with what `build` says under the older names."""
        older = {"sstate": self.build.sstate, "tmp": self.build.tmp, "deploy": self.build.deploy}
        given = {key: value for key, value in older.items() if value is not None}
        return self.directories.model_copy(update=given)

    @property
    def package_classes(self) -> tuple[PackageClass, ...]:
        """Package formats, the first one builds the image; empty leaves it to the distro."""
        return self.packages.classes or self.build.package_classes

    @property
    def image_features(self) -> tuple[str, ...]:
        """EXTRA_IMAGE_FEATURES."""
        return self.features.extra_image_features or self.build.extra_image_features

    @property
    def inherit_classes(self) -> tuple[str, ...]:
        """Classes added to INHERIT."""
        return self.features.inherit_classes or self.build.inherit_classes


_TARGET: TypeAdapter[str] = TypeAdapter(Target)


def _repeated_layers(layers: tuple[LayerEntry, ...]) -> list[MisfitError]:
    first: dict[str, int] = {}
    faults = []
    for index, layer in enumerate(layers):
        if first.setdefault(layer.name, index) != index:
            faults.append(
                MisfitError(
                    f"two layers have the name {layer.name}",
                    ("layers", index, "name"),
                    "Each layer needs a name of its own: it is its directory in the container.",
                )
            )
    return faults


def _conflicting_names(config: ProjectConfig) -> list[MisfitError]:
    faults = []
    for older, newer in _OLDER_NAMES.items():
        values = [getattr(getattr(config, section), key) for section, key in (older, newer)]
        if all(values) and values[0] != values[1]:
            faults.append(
                MisfitError(
                    f"{'.'.join(older)} and {'.'.join(newer)} are two names of one setting "
                    "and say different things",
                    older,
                    f"Keep {'.'.join(newer)}.",
                )
            )
    return faults
