"""Reads `smidr.yaml`: text, limits, substitution, models; all that is wrong in one error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.base import KeyPath, MisfitError
from smidr_ci.config.confinement import confinement_problems, host_path
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.problems import ConfigProblemsError
from smidr_ci.config.provider import provider_problem
from smidr_ci.config.reading import misfit_problems, read_config_text, read_model
from smidr_ci.config.substitution import Substitution
from smidr_ci.config.tree import SourceMap
from smidr_ci.errors import UsageError

__all__ = ["LoadedProject", "load_project", "load_project_text"]


@dataclass(frozen=True)
class LoadedProject:
    """A checked project config, and where each of its values stands."""

    config: ProjectConfig
    path: Path
    """The file as it was named."""
    directory: Path
    """Absolute directory that the config's relative paths start from."""
    text: str
    """The file as it was read, before substitution."""
    source: SourceMap
    home: Path | None = None
    """What a leading `~` means."""

    def place(self, key_path: KeyPath | str) -> str:
        """`smidr.yaml:12:5` for `("layers", 0, "git")` or `layers[0].git`.

        For a key that is not in the file it is the place of what surrounds it.
        """
        return self.source.place(key_path)

    def host_path(self, text: str) -> Path:
        """The absolute path that a value such as `directories.sstate` means, not resolved."""
        return host_path(text, self.directory, self.home)


def load_project(
    path: Path, *, environ: Mapping[str, str], operator: AgentConfig | None = None
) -> LoadedProject:
    """Read and check a project config; raises `ConfigError`, with a list of faults if it can."""
    text = read_config_text(path, hint_if_missing="Write one with: smidr init NAME")
    return load_project_text(
        text, str(path), directory=path.parent, environ=environ, operator=operator
    )


def load_project_text(
    text: str,
    name: str,
    *,
    directory: Path,
    environ: Mapping[str, str],
    operator: AgentConfig | None = None,
    extra_environment: Mapping[str, str] = MappingProxyType({}),
) -> LoadedProject:
    """Check a config that arrived as text; `name` stands for the file in messages.

    Relative paths start from `directory`. `extra_environment` wins over the config's own
    `environment`. Raises `ConfigError`.
    """
    operator = operator or AgentConfig()
    base = directory.absolute()
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    checked = read_model(
        text,
        name,
        ProjectConfig,
        substitution=Substitution(environ, operator.substitution),
        filler={"name": "unnamed"},
    )
    config = _with_environment(checked.model, extra_environment)
    misfits = list(_misfits(config, base, home, operator))
    if misfits:
        raise ConfigProblemsError(misfit_problems(misfits, checked.source))
    return LoadedProject(config, Path(name), base, text, checked.source, home)


def _with_environment(config: ProjectConfig, extra: Mapping[str, str]) -> ProjectConfig:
    if not extra:
        return config
    try:
        # As strict as for the config's own key; the names come from whoever asks.
        checked = ProjectConfig.model_validate({"name": config.name, "environment": dict(extra)})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"a variable for the build can't be used: {reason}",
            hint="Write NAME=VALUE; smidr itself sets the likes of PATH, TMPDIR and MACHINE.",
        ) from error
    merged = {**config.environment, **checked.environment}
    return config.model_copy(update={"environment": merged})


def _misfits(
    config: ProjectConfig, directory: Path, home: Path | None, operator: AgentConfig
) -> Iterator[MisfitError]:
    problem = provider_problem(config)
    if problem:
        yield problem
    if not operator.allow_config_directories:
        yield from confinement_problems(config, directory, home)
