"""Point at the line of `smidr.yaml` that an error found later on is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from smidr_ci.config.loader import LoadedProject
from smidr_ci.errors import ConfigError, LayerError

__all__ = ["naming_the_line"]


@contextmanager
def naming_the_line(project: LoadedProject) -> Iterator[None]:
    """Give errors about layers, machine, distro and the like their place in the config."""
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
    except ConfigError as error:
        if error.where:
            raise
        raise ConfigError(error.message, where=_value(project, error), hint=error.hint) from error


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
