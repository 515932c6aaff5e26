"""Point at the line of `smidr.yaml` that an error found later on is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from smidr_ci.config.base import KeyPath
from smidr_ci.config.loader import LoadedProject
from smidr_ci.diagnosis.model import Category, Diagnosis, Finding
from smidr_ci.errors import ConfigError, ImageError, LayerError

__all__ = ["at_its_target", "naming_the_line"]


@contextmanager
def naming_the_line(project: LoadedProject) -> Iterator[None]:
    """Give errors about layers, machine, distro, image and the like their place in the config."""
    try:
        yield
    except LayerError as error:
        raise LayerError(
            f"{error.where}: {error.message}" if error.where else error.message,
            where=", ".join(_entries(project, error.layers)) or project.place(("layers",)),
            hint=error.hint,
            kind=error.kind,
            layers=error.layers,
        ) from error
    except ImageError as error:
        inner = f"{error.where}: {error.message}" if error.where else error.message
        place = project.place(_image_key(project, error))
        raise ImageError(inner, where=place, hint=error.hint, kind=error.kind) from error
    except ConfigError as error:
        if error.where:
            raise
        raise ConfigError(error.message, where=_value(project, error), hint=error.hint) from error


def at_its_target(project: LoadedProject, diagnosis: Diagnosis) -> Diagnosis:
    """The diagnosis with the place in the config of targets that no recipe provides."""
    findings = tuple(_at_target(project, finding) for finding in diagnosis.findings)
    return replace(diagnosis, findings=findings)


def _at_target(project: LoadedProject, finding: Finding) -> Finding:
    if finding.category is not Category.MISSING_PROVIDER or finding.file is not None:
        return finding
    build = project.config.build
    for key, target in (
        (("build", "image"), build.image),
        *((("build", "targets", i), one) for i, one in enumerate(build.targets)),
    ):
        if target is not None and f"'{target}'" in finding.message:
            file, line, column = project.place(key).rsplit(":", 2)
            return replace(finding, file=file, line=int(line), column=int(column))
    return finding


def _image_key(project: LoadedProject, error: ImageError) -> KeyPath:
    """The package or the base image that the message names, else the whole section."""
    container = project.config.container
    words = set(error.message.replace(",", " ").replace(":", " : ").split())
    for index, package in enumerate(container.packages or ()):
        if package in words:
            return ("container", "packages", index)
    if container.base_image and container.base_image in error.message:
        return ("container", "base_image")
    return ("container",)


def _entries(project: LoadedProject, names: tuple[str, ...]) -> Iterator[str]:
    for index, entry in enumerate(project.config.layers):
        if entry.name in names:
            yield project.place(("layers", index))


def _value(project: LoadedProject, error: ConfigError) -> str:
    """The place of the value that the message is about; of the file when there is none."""
    config = project.config
    for key, value in (
        (("build", "machine"), config.build.machine),
        (("base", "machine"), config.base.machine),
        (("base", "distro"), config.base.distro),
        *((("build", "multiconfig", i), one) for i, one in enumerate(config.build.multiconfig)),
    ):
        if value is not None and f" {value} " in f"{error.message} ":
            return project.place(key)
    return str(project.path)
